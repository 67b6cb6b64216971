import Testing
import WeirPolicy

@testable import SidecarCore

private let second: UInt64 = 1_000_000_000
private let millisecond: UInt64 = 1_000_000

/// By reference, because the test macros cannot call what changes a value.
private final class Endpoints {
    private var members: EndpointSet<String>
    private var random = SplitMix64(seed: 7)

    init(_ names: [String], failures: Int = 3) {
        var breaker = AgentPolicy.Breaker()
        breaker.consecutiveFailures = failures
        breaker.openMilliseconds = 1_000
        breaker.openMillisecondsMax = 8_000
        members = EndpointSet(names, breaker)
    }

    func pick(
        at now: UInt64 = 0, without tried: [String] = [],
        _ whenAllAreOut: EndpointSet<String>.WhenAllAreOut = .refuse
    ) -> EndpointSet<String>.Pick {
        members.pick(nowNanoseconds: now, random: random.next(), whenAllAreOut: whenAllAreOut) {
            !tried.contains($0)
        }
    }

    func chosen(
        at now: UInt64 = 0, without tried: [String] = [],
        _ whenAllAreOut: EndpointSet<String>.WhenAllAreOut = .refuse
    ) -> EndpointSet<String>.Choice? {
        guard case .chosen(let choice) = pick(at: now, without: tried, whenAllAreOut) else {
            return nil
        }
        return choice
    }

    func end(
        _ choice: EndpointSet<String>.Choice, _ outcome: CircuitBreaker.Outcome,
        latency: UInt64? = nil, at now: UInt64
    ) {
        members.ended(
            choice, outcome, latencyNanoseconds: latency, nowNanoseconds: now,
            random: random.next())
    }

    /// So many requests, one after the other, until each name fails as told; who served them.
    func run(
        _ count: Int, at now: UInt64 = 0, latency: [String: UInt64] = [:], failing: Set<String> = []
    ) -> [String: Int] {
        var served: [String: Int] = [:]
        for _ in 0..<count {
            guard let choice = chosen(at: now) else { continue }
            served[choice.key, default: 0] += 1
            let outcome: CircuitBreaker.Outcome =
                failing.contains(choice.key)
                ? .failure(.serverError, retryAfterNanoseconds: nil) : .success
            end(choice, outcome, latency: latency[choice.key] ?? 10 * millisecond, at: now)
        }
        return served
    }

    /// Fails the requests of one endpoint until its circuit opens.
    func trip(_ name: String, at now: UInt64 = 0) {
        let others = members.keys.filter { $0 != name }
        for _ in 0..<3 {
            guard let choice = chosen(at: now, without: others) else { return }
            end(choice, .failure(.serverError, retryAfterNanoseconds: nil), at: now)
        }
    }

    func update(_ names: [String]) { members.update(names) }
    func mark(_ name: String, isHealthy: Bool) { members.setHealth(isHealthy, of: name) }
    func status(_ name: String, at now: UInt64 = 0) -> EndpointSet<String>.Status? {
        members.statuses(nowNanoseconds: now).first { $0.key == name }
    }
    var openedBy: [CircuitBreaker.Failure] { members.openedBy }
}

private let failure = CircuitBreaker.Outcome.failure(.serverError, retryAfterNanoseconds: nil)
private let unreachable = CircuitBreaker.Outcome.failure(.connect, retryAfterNanoseconds: nil)

@Suite struct EndpointSetTests {
    @Test func nobodyServesAnEmptySet() {
        #expect(Endpoints([]).pick() == .none)
        #expect(Endpoints([]).pick(.tryLeastBad) == .none)
    }

    @Test func oneAloneIsTheAgentsCircuit() throws {
        let endpoints = Endpoints(["a"])
        #expect(endpoints.run(3, failing: ["a"]) == ["a": 3])
        guard case .refused(let wait) = endpoints.pick() else {
            Issue.record("not refused")
            return
        }
        #expect(wait >= second / 2 && wait <= second)
        #expect(endpoints.openedBy == [.serverError])
        let probe = try #require(endpoints.chosen(at: wait))
        #expect(probe.isProbe)
        #expect(endpoints.chosen(at: wait) == nil, "one probe")
        endpoints.end(probe, .success, at: wait)
        #expect(endpoints.openedBy == [] && endpoints.chosen(at: wait)?.isProbe == false)
    }

    @Test func whoFailsIsOutUntilAProbeSucceeds() throws {
        let endpoints = Endpoints(["a", "b", "c"])
        endpoints.trip("b")
        let served = endpoints.run(300)
        #expect(served["b"] == nil && min(served["a"] ?? 0, served["c"] ?? 0) > 100, "\(served)")
        #expect(endpoints.status("b")?.breaker == .open)
        #expect(endpoints.status("b")?.failures[CircuitBreaker.Failure.serverError.rawValue] == 3)
        let probe = try #require(endpoints.chosen(at: second))
        #expect(probe.key == "b" && probe.isProbe, "the first request behind the back-off")
        for _ in 0..<20 { #expect(endpoints.chosen(at: second)?.key != "b", "exactly one probe") }
        endpoints.end(probe, .success, latency: millisecond, at: second)
        #expect(endpoints.status("b")?.breaker == .closed)
    }

    @Test func theSlowOneGetsTheLeast() throws {
        let endpoints = Endpoints(["a", "b", "slow"])
        let served = endpoints.run(600, latency: ["slow": 200 * millisecond])
        #expect(served["slow"] ?? 0 <= 5, "\(served)")
        let (a, b) = (served["a"] ?? 0, served["b"] ?? 0)
        #expect(min(a, b) > 150, "\(served)")
    }

    /// A failure at once is no fast answer.
    @Test func failingFastAttractsNobody() {
        let endpoints = Endpoints(["a", "b"], failures: 1_000)
        let served = endpoints.run(
            500, latency: ["a": 100 * millisecond, "b": millisecond], failing: ["b"])
        #expect(served["b"] ?? 0 <= 5, "\(served)")
    }

    @Test func checksNeverTakeTheLastOne() {
        let endpoints = Endpoints(["a", "b"])
        endpoints.mark("a", isHealthy: false)
        #expect(endpoints.run(50) == ["b": 50])
        endpoints.mark("b", isHealthy: false)
        #expect(endpoints.run(50).values.reduce(0, +) == 50)
        let alone = Endpoints(["a"])
        alone.mark("a", isHealthy: false)
        #expect(alone.run(5) == ["a": 5])
    }

    @Test func whoCannotBeReachedIsAvoidedForAWhile() throws {
        let endpoints = Endpoints(["a", "b"], failures: 100)
        let first = try #require(endpoints.chosen(without: ["b"]))
        endpoints.end(first, unreachable, at: 0)
        #expect(endpoints.run(50) == ["b": 50])
        #expect(endpoints.chosen(without: ["b"])?.key == "a", "unless there is no other")
        #expect(endpoints.status("a", at: 2 * second)?.isServing == true)
    }

    @Test func aRetryNeverComesBack() {
        let endpoints = Endpoints(["a", "b"])
        #expect(endpoints.chosen(without: ["a"])?.key == "b")
        #expect(endpoints.pick(without: ["a", "b"]) == .none)
        endpoints.trip("b")
        #expect(endpoints.pick(without: ["a"]) == .none, "its circuit is open, and a still serves")
    }

    @Test func whereAllAreOutTheLeastBadIsTriedOneAtATime() throws {
        let endpoints = Endpoints(["a", "b"])
        _ = endpoints.run(12, failing: ["a", "b"])
        #expect(endpoints.status("a")?.breaker == .open && endpoints.status("b")?.breaker == .open)
        guard case .refused(let wait) = endpoints.pick() else {
            Issue.record("not refused")
            return
        }
        #expect(wait <= second)
        var now = second
        for _ in 0..<6 {
            // However often both have failed, one is tried within the first back-off.
            let first = try #require(endpoints.chosen(at: now))
            #expect(first.isProbe)
            let second = endpoints.chosen(at: now)
            #expect(second == nil || second?.key != first.key)
            endpoints.end(first, failure, at: now)
            if let second { endpoints.end(second, failure, at: now) }
            now += 1_000 * millisecond
        }
        let probe = try #require(endpoints.chosen(at: now))
        endpoints.end(probe, .success, latency: millisecond, at: now)
        #expect(endpoints.chosen(at: now)?.key == probe.key, "and is in again at once")
    }

    @Test func aTimeThatWasAskedForIsKept() throws {
        let endpoints = Endpoints(["a", "b"])
        for name in ["a", "b"] {
            let other = name == "a" ? "b" : "a"
            let choice = try #require(endpoints.chosen(without: [other]))
            let asks = name == "a" ? 5 * second : 7 * second
            endpoints.end(choice, .failure(.rateLimited, retryAfterNanoseconds: asks), at: 0)
        }
        #expect(endpoints.pick(at: 0) == .refused(retryAfterNanoseconds: 5 * second))
        #expect(endpoints.openedBy == [.rateLimited])
        #expect(endpoints.chosen(at: 5 * second)?.key == "a")
    }

    @Test func someRatherTryThanRefuse() throws {
        let endpoints = Endpoints(["a"])
        _ = endpoints.run(3, failing: ["a"])
        let tried = try #require(endpoints.chosen(.tryLeastBad))
        #expect(tried.isProbe)
        #expect(endpoints.chosen(.tryLeastBad)?.isProbe == false, "and others go along")
        endpoints.end(tried, .success, latency: millisecond, at: 0)
        #expect(endpoints.status("a")?.breaker == .closed)
    }

    /// Short deadlines of one caller must not shut an endpoint for everybody.
    @Test func impatientCallersOpenNoCircuit() throws {
        let endpoints = Endpoints(["a"])
        _ = endpoints.run(1, latency: ["a": second])
        for _ in 0..<20 {
            let choice = try #require(endpoints.chosen(at: second))
            endpoints.end(choice, .callerTimedOut, at: second + 50 * millisecond)
        }
        #expect(endpoints.status("a", at: second)?.breaker == .closed)
        for _ in 0..<3 {
            let choice = try #require(endpoints.chosen(at: second))
            endpoints.end(choice, .callerTimedOut, at: 6 * second)
        }
        #expect(
            endpoints.status("a", at: 6 * second)?.openedBy == .timeout, "much later than usual")
    }

    @Test func discoveryKeepsWhatIsKnown() throws {
        let endpoints = Endpoints(["a", "b"])
        endpoints.trip("a")
        let running = try #require(endpoints.chosen())
        endpoints.update(["c", "a", "a"])
        #expect(endpoints.status("a")?.breaker == .open)
        #expect(endpoints.status("b") == nil)
        endpoints.end(running, failure, at: 0)
        #expect(endpoints.run(5) == ["c": 5])
        endpoints.update(["b", "c"])
        #expect(endpoints.status("b")?.outstanding == 0, "who comes back begins anew")
    }

    /// Whatever happens: every request is answered or refused, nothing is counted twice, no open
    /// circuit has two probes, and a healed set serves.
    @Test(arguments: 1...200 as ClosedRange<UInt64>)
    func anyOrderOfEventsKeepsTheRules(_ seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var breaker = AgentPolicy.Breaker()
        breaker.consecutiveFailures = 1 + Int(random.next() % 4)
        breaker.openMilliseconds = 500
        breaker.openMillisecondsMax = 4_000
        var set = EndpointSet(Array(0..<Int(1 + random.next() % 5)), breaker)
        let count = set.count
        var open: [EndpointSet<Int>.Choice] = []
        var now: UInt64 = 0
        for _ in 0..<400 {
            now += random.next() % (300 * millisecond)
            switch random.next() % 8 {
            case 0: set.setHealth(random.next() % 2 == 0, of: Int(random.next() % UInt64(count)))
            case 1...3:
                guard !open.isEmpty else { break }
                let choice = open.remove(at: Int(random.next() % UInt64(open.count)))
                let kinds = CircuitBreaker.Failure.allCases
                let kind = kinds[Int(random.next() % UInt64(kinds.count))]
                let outcomes: [CircuitBreaker.Outcome] = [
                    .success, .unknown, .callerTimedOut, .failure(kind, retryAfterNanoseconds: nil),
                    .failure(kind, retryAfterNanoseconds: random.next() % (9 * second)),
                ]
                set.ended(
                    choice, outcomes[Int(random.next() % 5)], latencyNanoseconds: 5 * millisecond,
                    nowNanoseconds: now, random: random.next())
            default:
                let before = set.statuses(nowNanoseconds: now)
                let pick = set.pick(nowNanoseconds: now, random: random.next())
                switch pick {
                case .chosen(let choice):
                    let was = before[choice.key]
                    #expect(was.breaker != .halfOpen, "seed \(seed)")
                    #expect(choice.isProbe == (was.breaker == .open), "seed \(seed)")
                    let better = before.contains(where: \.isServing)
                    #expect(choice.isProbe || was.isServing || !better, "seed \(seed)")
                    open.append(choice)
                case .refused:
                    #expect(before.allSatisfy { $0.breaker != .closed }, "seed \(seed)")
                case .none: Issue.record("seed \(seed): an endpoint is always there")
                }
            }
            let outstanding = set.statuses(nowNanoseconds: now).map(\.outstanding).reduce(0, +)
            #expect(outstanding == open.count, "seed \(seed)")
        }
        for choice in open {
            set.ended(
                choice, .unknown, latencyNanoseconds: nil, nowNanoseconds: now,
                random: random.next())
        }
        for _ in 0..<count {
            now += 10 * second
            guard case .chosen(let choice) = set.pick(nowNanoseconds: now, random: random.next())
            else {
                Issue.record("seed \(seed): a healed set serves")
                return
            }
            set.ended(
                choice, .success, latencyNanoseconds: millisecond, nowNanoseconds: now,
                random: random.next())
        }
    }
}
