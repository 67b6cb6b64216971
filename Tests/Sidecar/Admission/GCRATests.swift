import Testing
import WeirPolicy

@testable import SidecarCore

/// The definition, request by request, with the whole history: a leaky bucket of `burst` intervals
/// that leaks one nanosecond in each nanosecond, in which each request takes an interval.
private struct LeakyBucket {
    let interval: UInt64
    let burst: UInt64
    var level: UInt64 = 0
    var last: UInt64 = 0

    mutating func admits(at now: UInt64) -> Bool {
        level -= min(level, now - last)
        last = now
        guard level + interval <= burst * interval else { return false }
        level += interval
        return true
    }
}

/// By reference, because the test macros cannot call what changes a value.
private final class Table {
    private var table: SubjectRates
    init(_ capacity: Int) { table = SubjectRates(capacity: capacity) }
    var count: Int { table.count }
    func take(_ subject: String, _ limit: GCRA, _ now: UInt64) -> SubjectRates.Decision {
        table.take(subject, limit, nowNanoseconds: now)
    }
}

@Suite struct GCRATests {
    @Test(arguments: [(1.0, 1), (10, 1), (10, 5), (3, 2), (1_000, 50), (0.5, 3), (7.77, 13)])
    func agreesWithTheBucket(_ rate: Double, _ burst: Int64) {
        let limit = GCRA(requestsPerSecond: rate, burst: burst)
        var bucket = LeakyBucket(interval: limit.intervalNanoseconds, burst: UInt64(burst))
        var random = SplitMix64(seed: 77)
        var arrival: UInt64 = 0
        var now: UInt64 = 5_000_000_000
        for _ in 0..<20_000 {
            let step = UInt64.random(in: 0...3, using: &random)
            now += step == 0 ? 0 : UInt64.random(in: 0...limit.intervalNanoseconds, using: &random)
            switch limit.decide(arrival: arrival, nowNanoseconds: now) {
            case .admit(let next, _):
                let expected = bucket.admits(at: now)
                #expect(expected)
                arrival = next
            case .refuse(let wait):
                let expected = bucket.admits(at: now)
                #expect(!expected)
                // One nanosecond early is too early, and then it is right.
                let early = limit.decide(arrival: arrival, nowNanoseconds: now + wait - 1)
                guard case .refuse(1) = early else { return #expect(Bool(false), "\(early)") }
                guard case .admit = limit.decide(arrival: arrival, nowNanoseconds: now + wait)
                else { return #expect(Bool(false), "refused in its time") }
            }
        }
    }

    @Test func countsTheBurstDown() {
        let limit = GCRA(requestsPerSecond: 10, burst: 3)
        var arrival: UInt64 = 0
        var left: [Int64] = []
        while case .admit(let next, let remaining) = limit.decide(
            arrival: arrival, nowNanoseconds: 1_000_000_000)
        {
            arrival = next
            left.append(remaining)
        }
        #expect(left == [2, 1, 0])
        #expect(
            limit.decide(arrival: arrival, nowNanoseconds: 1_000_000_000)
                == .refuse(retryAfterNanoseconds: 100_000_000))
    }

    @Test func oddRatesDoNotTrap() {
        for rate in [0, -1, .infinity, .nan, 1e300, 1e-300, .leastNonzeroMagnitude] as [Double] {
            for burst in [.min, 0, 1, .max] as [Int64] {
                let limit = GCRA(requestsPerSecond: rate, burst: burst)
                _ = limit.decide(arrival: 0, nowNanoseconds: .max)
                _ = limit.decide(arrival: .max, nowNanoseconds: 0)
                _ = limit.windowSeconds
            }
        }
    }

    @Test func subjectsHaveTheirOwn() {
        let limit = GCRA(requestsPerSecond: 1, burst: 1)
        let table = Table(10)
        for name in ["a", "b"] {
            #expect(
                table.take(name, limit, 0)
                    == .decided(.admit(arrival: 1_000_000_000, remaining: 0)))
        }
        #expect(
            table.take("a", limit, 1)
                == .decided(.refuse(retryAfterNanoseconds: 999_999_999)))
    }

    /// Against a table without a limit: eviction never lets a request through that it would refuse.
    @Test func onlyIdleSubjectsAreForgotten() {
        let limit = GCRA(requestsPerSecond: 10, burst: 2)
        let small = Table(8)
        var arrivals: [String: UInt64] = [:]
        var random = SplitMix64(seed: 4)
        var now: UInt64 = 0
        var full = 0
        for _ in 0..<20_000 {
            now += UInt64.random(in: 0...30_000_000, using: &random)
            let name = "s\(Int.random(in: 0..<24, using: &random))"
            let expected = limit.decide(arrival: arrivals[name] ?? 0, nowNanoseconds: now)
            switch small.take(name, limit, now) {
            case .tableFull: full += 1
            case .decided(let decision):
                #expect(decision == expected)
                if case .admit(let next, _) = decision { arrivals[name] = next }
            }
        }
        #expect(small.count == 8)
        #expect(full > 0 && full < 20_000)
    }
}
