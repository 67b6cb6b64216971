import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import SidecarCore

@Suite struct OutboundRunsTests {
    private let runs = OutboundRuns()
    private let delegation = Delegation(
        keyID: 3, issuer: Incarnation(4), audience: Incarnation(12),
        key: ChildKey(lease: LeaseID(incarnation: Incarnation(4), number: 9), child: 1),
        amount: NanoUSD(1), run: Identifier(high: 1, low: 2), request: Identifier(high: 3, low: 4),
        subject: "alice", tenant: "", tier: "free", requestType: "news", agent: "mood",
        method: "POST", path: "/", remainingMilliseconds: 1_000)

    private func failure(_ field: String?, at now: UInt64 = 0) -> OutboundRuns.Failure? {
        do throws(OutboundRuns.Failure) {
            _ = try runs.take(field, nowNanoseconds: now)
            return nil
        } catch {
            return error
        }
    }

    @Test func callsOfOneRequestStayWithinItsAmount() throws {
        let run = try #require(
            runs.begin(delegation, amount: NanoUSD(100), untilNanoseconds: 1_000))
        let first = try runs.take(run.field, nowNanoseconds: 0)
        #expect(first.amount == NanoUSD(100) && first.delegation.subject == "alice")
        #expect(failure(run.field) == .busy)
        runs.giveBack(first, cost: NanoUSD(70))
        let second = try runs.take(run.field, nowNanoseconds: 0)
        #expect(second.amount == NanoUSD(30) && second.number != first.number)
        runs.giveBack(second, cost: NanoUSD(31))
        #expect(failure(run.field) == .spent)
        #expect(runs.end(run.number) == NanoUSD(101))
    }

    @Test func aCapabilityEndsWithItsRequest() throws {
        let run = try #require(
            runs.begin(delegation, amount: NanoUSD(100), untilNanoseconds: 1_000))
        #expect(failure(run.field, at: 1_000) == .over)
        let open = try runs.take(run.field, nowNanoseconds: 999)
        // What is still in progress counts with all that it may cost.
        #expect(runs.end(run.number) == NanoUSD(100))
        runs.giveBack(open, cost: NanoUSD(1))
        #expect(failure(run.field) == .over)
        #expect(runs.end(run.number) == .zero)
    }

    @Test func aQuestionTakesNothing() throws {
        let run = try #require(
            runs.begin(delegation, amount: NanoUSD(100), untilNanoseconds: 1_000))
        let call = try runs.take(run.field, nowNanoseconds: 0)
        let question = try runs.look(run.field, nowNanoseconds: 0)
        #expect(question.amount == .zero && question.number != call.number)
        #expect(throws: OutboundRuns.Failure.over) {
            _ = try runs.look(run.field, nowNanoseconds: 1_000)
        }
        #expect(throws: OutboundRuns.Failure.unreadable) {
            _ = try runs.look(nil, nowNanoseconds: 0)
        }
    }

    @Test func thereIsRoomForSoManyRequestsAndNoMore() throws {
        let runs = OutboundRuns(countMax: 3)
        for _ in 0..<3 {
            _ = try #require(runs.begin(delegation, amount: NanoUSD(1), untilNanoseconds: 1))
        }
        #expect(runs.begin(delegation, amount: NanoUSD(1), untilNanoseconds: 1) == nil)
        _ = runs.end(1)
        #expect(runs.begin(delegation, amount: NanoUSD(1), untilNanoseconds: 1) != nil)
    }

    @Test func whatThisSidecarDidNotGiveOpensNothing() throws {
        let run = try #require(
            runs.begin(delegation, amount: NanoUSD(100), untilNanoseconds: 1_000))
        let foreign = try #require(
            OutboundRuns().begin(delegation, amount: NanoUSD(100), untilNanoseconds: 1_000))
        for field in [nil, "", "x.y", foreign.field, String(run.field.dropLast(2)) + "AA"] {
            #expect(failure(field) == .unreadable)
        }
        #expect(failure(run.field) == nil)
    }
}
