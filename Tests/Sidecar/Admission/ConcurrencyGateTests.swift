import Testing
import WeirCore
import WeirPolicy

@testable import SidecarCore

/// By reference, because the test macros cannot call what changes a value.
private final class Gate {
    private var gate: ConcurrencyGate

    init(_ requestsMax: Int, queue: Int = 0) {
        var limit = AgentPolicy.Concurrency(requestsMax: requestsMax)
        limit.queueMax = queue
        limit.queueMilliseconds = 1
        gate = ConcurrencyGate(limit)
    }

    var inFlight: Int { gate.inFlight }
    var waiting: Int { gate.waiting }
    var nextDeadlineNanoseconds: UInt64? { gate.nextDeadlineNanoseconds }

    func arrive(
        _ ticket: UInt64, _ priority: Int = 0, at now: UInt64 = 0, subject: String = "",
        subjectMax: Int? = nil, headroom: Int = 0
    ) -> ConcurrencyGate.Arrival {
        gate.arrive(
            ticket, priority: priority, subject: subject, subjectMax: subjectMax,
            headroom: headroom, nowNanoseconds: now)
    }

    func release(subject: String = "", subjectMax: Int? = nil) -> UInt64? {
        gate.release(subject: subject, subjectMax: subjectMax)
    }

    func expire(nowNanoseconds now: UInt64) -> UInt64? { gate.expire(nowNanoseconds: now) }
    func leave(_ ticket: UInt64) -> Bool { gate.leave(ticket) }
}

@Suite struct ConcurrencyGateTests {
    @Test func admitsUpToTheLimit() {
        let gate = Gate(2)
        #expect(gate.arrive(1) == .admitted)
        #expect(gate.arrive(2) == .admitted)
        #expect(gate.arrive(3) == .refused(.overloaded))
        #expect(gate.release() == nil)
        #expect(gate.arrive(4) == .admitted)
    }

    @Test func higherPriorityGoesFirstAndEqualsInTheirOrder() {
        let gate = Gate(1, queue: 6)
        _ = gate.arrive(1)
        for (ticket, priority) in [(2, 0), (3, 5), (4, 5), (5, 9), (6, 0), (7, 5)] {
            #expect(
                gate.arrive(UInt64(ticket), priority)
                    == .queued(deadlineNanoseconds: 1_000_000, shed: nil))
        }
        #expect((0..<7).map { _ in gate.release() } == [5, 3, 4, 7, 2, 6, nil])
    }

    @Test func lowerPrioritiesLeavePlacesFreeForHigherOnes() {
        let gate = Gate(3, queue: 4)
        let waits = ConcurrencyGate.Arrival.queued(deadlineNanoseconds: 1_000_000, shed: nil)
        #expect(gate.arrive(1, 0, headroom: 1) == .admitted)
        #expect(gate.arrive(2, 0, headroom: 1) == .admitted)
        #expect(gate.arrive(3, 0, headroom: 1) == waits)
        // The free place is not for the one that waits.
        #expect(gate.arrive(4, 5) == .admitted)
        #expect(gate.arrive(5, 5) == waits)
        #expect(gate.release() == 5)
        // Two of three are taken, and the third is kept free.
        #expect(gate.release() == nil)
        #expect(gate.release() == 3)
        #expect(gate.inFlight == 2)
    }

    @Test func onePlaceIsForEverybody() {
        let gate = Gate(2)
        #expect(gate.arrive(1, 0, headroom: 9) == .admitted)
        #expect(gate.arrive(2, 0, headroom: 9) == .refused(.overloaded))
        let none = Gate(0)
        #expect(none.arrive(1, 0, headroom: 9) == .refused(.overloaded))
    }

    @Test func theLowestIsShed() {
        let gate = Gate(1, queue: 2)
        _ = gate.arrive(1)
        _ = gate.arrive(2, 3)
        _ = gate.arrive(3, 1)
        #expect(gate.arrive(4, 1) == .refused(.overloaded), "equals do not push each other out")
        #expect(gate.arrive(5, 2) == .queued(deadlineNanoseconds: 1_000_000, shed: 3))
        #expect(gate.arrive(6, 9) == .queued(deadlineNanoseconds: 1_000_000, shed: 5))
        #expect((0..<3).map { _ in gate.release() } == [6, 2, nil])
    }

    @Test func waitingEnds() {
        let gate = Gate(1, queue: 3)
        _ = gate.arrive(1)
        _ = gate.arrive(2, at: 0)
        _ = gate.arrive(3, at: 10)
        #expect(gate.nextDeadlineNanoseconds == 1_000_000)
        #expect(gate.expire(nowNanoseconds: 999_999) == nil)
        #expect(gate.expire(nowNanoseconds: 1_000_000) == 2)
        #expect(gate.expire(nowNanoseconds: 1_000_000) == nil)
        #expect(gate.leave(3))
        #expect(!gate.leave(3))
        #expect(gate.release() == nil)
        #expect(gate.inFlight == 0)
    }

    @Test func aSubjectHasALimitOfItsOwn() {
        let gate = Gate(10, queue: 10)
        func arrive(_ ticket: UInt64, _ subject: String) -> ConcurrencyGate.Arrival {
            gate.arrive(ticket, subject: subject, subjectMax: 2)
        }
        #expect(arrive(1, "a") == .admitted)
        #expect(arrive(2, "a") == .admitted)
        #expect(arrive(3, "a") == .refused(.concurrency))
        #expect(arrive(4, "b") == .admitted)
        _ = gate.release(subject: "a", subjectMax: 2)
        #expect(arrive(5, "a") == .admitted)
    }

    /// Against a plain model: never above the limits, nobody lost, nobody admitted twice.
    @Test func keepsItsLimitsUnderAnySchedule() {
        var random = SplitMix64(seed: 21)
        let gate = Gate(4, queue: 5)
        var running: Set<UInt64> = []
        var waiting: [UInt64: Int] = [:]
        var now: UInt64 = 0
        func admit(_ next: UInt64?) {
            guard let next else { return }
            let priority = waiting.removeValue(forKey: next)
            #expect(waiting.values.allSatisfy { $0 <= priority ?? .min }, "the highest goes first")
            #expect(running.insert(next).inserted)
        }
        for ticket in UInt64(1)...20_000 {
            now += UInt64.random(in: 0...200_000, using: &random)
            switch Int.random(in: 0..<5, using: &random) {
            case 0...2:
                let priority = Int.random(in: 0..<3, using: &random)
                switch gate.arrive(ticket, priority, at: now) {
                case .admitted: running.insert(ticket)
                case .queued(_, let shed):
                    if let shed { #expect(waiting.removeValue(forKey: shed) != nil) }
                    waiting[ticket] = priority
                case .refused: #expect(running.count == 4 && waiting.count == 5)
                }
            case 3:
                if let done = running.randomElement(using: &random) {
                    running.remove(done)
                    admit(gate.release())
                }
            default:
                while let late = gate.expire(nowNanoseconds: now) {
                    #expect(waiting.removeValue(forKey: late) != nil)
                }
            }
            #expect(gate.inFlight == running.count && running.count <= 4)
            #expect(gate.waiting == waiting.count && waiting.count <= 5)
        }
    }
}
