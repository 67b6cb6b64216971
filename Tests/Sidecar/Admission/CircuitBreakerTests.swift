import Testing
import WeirPolicy

@testable import SidecarCore

private let second: UInt64 = 1_000_000_000

/// By reference, because the test macros cannot call what changes a value.
private final class Breaker {
    private var breaker: CircuitBreaker

    init(_ failures: Int) {
        var settings = AgentPolicy.Breaker()
        settings.consecutiveFailures = failures
        settings.openMilliseconds = 1_000
        settings.openMillisecondsMax = 4_000
        breaker = CircuitBreaker(settings)
    }

    var position: CircuitBreaker.Position { breaker.position }
    var openedBy: CircuitBreaker.Failure? { breaker.openedBy }

    func admitted(at now: UInt64 = 0, early: Bool = false) -> CircuitBreaker.Permit? {
        guard case .admit(let permit) = breaker.decide(nowNanoseconds: now, early: early) else {
            return nil
        }
        return permit
    }

    /// How long it refuses from `now` on; `nil` when it does not.
    func wait(at now: UInt64 = 0) -> UInt64? {
        guard case .refuse(let wait) = breaker.decide(nowNanoseconds: now) else { return nil }
        return wait
    }

    func ended(
        _ permit: CircuitBreaker.Permit, _ outcome: CircuitBreaker.Outcome, at now: UInt64,
        random: UInt64 = .max
    ) {
        breaker.ended(permit, outcome, nowNanoseconds: now, random: random)
    }

    /// One whole request: whether it was a probe; `nil` when it was refused.
    func request(
        _ outcome: CircuitBreaker.Outcome, at now: UInt64 = 0, random: UInt64 = .max
    ) -> Bool? {
        guard let permit = admitted(at: now) else { return nil }
        ended(permit, outcome, at: now, random: random)
        return permit.isProbe
    }

    func fail(_ failure: CircuitBreaker.Failure = .serverError, at now: UInt64 = 0) -> Bool? {
        request(.failure(failure, retryAfterNanoseconds: nil), at: now)
    }
}

@Suite struct CircuitBreakerTests {
    @Test(arguments: CircuitBreaker.Failure.allCases.filter { $0 != .rateLimited })
    func failuresInARowOpenIt(_ failure: CircuitBreaker.Failure) {
        let breaker = Breaker(3)
        for _ in 1..<3 { #expect(breaker.fail(failure) == false) }
        #expect(breaker.position == .closed)
        _ = breaker.fail(failure)
        #expect(breaker.position == .open)
        #expect(breaker.openedBy == failure)
        #expect(breaker.wait() != nil)
    }

    @Test func aRateLimitWithoutATimeIsNoFailure() {
        let breaker = Breaker(3)
        for _ in 0..<20 { #expect(breaker.fail(.rateLimited) == false) }
        _ = breaker.fail()
        _ = breaker.fail()
        #expect(breaker.fail(.rateLimited) == false, "and no success either")
        _ = breaker.fail()
        #expect(breaker.position == .open)
        #expect(breaker.fail(.rateLimited, at: 2 * second) == true)
        #expect(breaker.position == .closed, "who limits lives")
    }

    /// The last of several endpoints is tried after the first back-off, however often it failed;
    /// but not before the time that it named.
    @Test func anEarlyProbeDoesNotWaitForTheDoubledBackOff() throws {
        let breaker = Breaker(1)
        var now: UInt64 = 0
        for _ in 0..<3 {
            #expect(breaker.fail(at: now) != nil)
            now += try #require(breaker.wait(at: now))
        }
        _ = breaker.fail(at: now)
        #expect(try #require(breaker.wait(at: now)) > 2 * second)
        #expect(breaker.admitted(at: now + second - 1, early: true) == nil)
        #expect(breaker.admitted(at: now + second, early: true)?.isProbe == true)
        #expect(breaker.admitted(at: now + second, early: true) == nil, "one at a time")

        let asked = Breaker(1)
        _ = asked.request(.failure(.rateLimited, retryAfterNanoseconds: 3 * second))
        #expect(asked.admitted(at: 2 * second, early: true) == nil)
        #expect(asked.admitted(at: 3 * second, early: true) != nil)
    }

    @Test func aSuccessBeginsAnew() {
        let breaker = Breaker(3)
        for _ in 0..<10 {
            _ = breaker.fail()
            _ = breaker.fail()
            _ = breaker.request(.success)
        }
        #expect(breaker.position == .closed)
    }

    @Test func whatTeachesNothingChangesNothing() {
        let breaker = Breaker(2)
        _ = breaker.fail()
        _ = breaker.request(.unknown)
        _ = breaker.fail()
        #expect(breaker.position == .open)
    }

    @Test func oneProbeAtATime() throws {
        let breaker = Breaker(1)
        _ = breaker.fail()
        let probe = try #require(breaker.admitted(at: 2 * second))
        #expect(probe.isProbe)
        #expect(breaker.position == .halfOpen)
        for _ in 0..<3 { #expect(breaker.request(.success, at: 2 * second) == nil) }
        breaker.ended(probe, .success, at: 2 * second)
        #expect(breaker.position == .closed)
        #expect(breaker.request(.success, at: 2 * second) == false)
    }

    @Test func aProbeThatWasNotMadeIsGivenBack() {
        let breaker = Breaker(1)
        _ = breaker.fail()
        #expect(breaker.request(.unknown, at: 2 * second) == true)
        #expect(breaker.position == .open)
        #expect(breaker.request(.success, at: 2 * second) == true, "the next one probes at once")
        #expect(breaker.position == .closed)
    }

    @Test func backOffDoublesUpToItsLimit() throws {
        let breaker = Breaker(1)
        var now: UInt64 = 0
        var waits: [UInt64] = []
        for _ in 0..<5 {
            #expect(breaker.fail(at: now) != nil)
            let wait = try #require(breaker.wait(at: now))
            waits.append(wait)
            now += wait
        }
        let bases: [UInt64] = [1, 2, 4, 4, 4].map { $0 * second }
        for (wait, base) in zip(waits, bases) { #expect(wait >= base / 2 && wait <= base) }
        #expect(breaker.request(.success, at: now) == true)
        _ = breaker.fail(at: now)
        #expect(try #require(breaker.wait(at: now)) <= second, "a success begins the back-off anew")
    }

    @Test func jitterCoversHalfTheBackOff() {
        var random = SplitMix64(seed: 1)
        let waits = (0..<200).compactMap { _ -> UInt64? in
            let breaker = Breaker(1)
            _ = breaker.request(
                .failure(.connect, retryAfterNanoseconds: nil), random: random.next())
            return breaker.wait()
        }
        #expect(waits.allSatisfy { $0 >= second / 2 && $0 <= second })
        #expect(Set(waits).count > 190)
    }

    @Test func retryAfterIsObeyedAtOnceAndBounded() {
        let breaker = Breaker(50)
        _ = breaker.request(.failure(.rateLimited, retryAfterNanoseconds: 3 * second))
        #expect(breaker.wait() == 3 * second)
        let long = Breaker(50)
        _ = long.request(.failure(.serverError, retryAfterNanoseconds: 900 * second))
        #expect(long.wait() == 4 * second)
    }

    @Test func outcomesFromBeforeTheTripSayNothing() throws {
        let breaker = Breaker(1)
        let early = (0..<4).compactMap { _ in breaker.admitted() }
        #expect(early.count == 4)
        let failure = CircuitBreaker.Outcome.failure(.timeout, retryAfterNanoseconds: nil)
        breaker.ended(early[0], failure, at: 0)
        let wait = try #require(breaker.wait())
        breaker.ended(early[1], failure, at: wait / 2)
        #expect(breaker.wait(at: wait / 2) == wait - wait / 2, "a slow burst does not hold it open")
        let probe = try #require(breaker.admitted(at: wait))
        breaker.ended(early[2], .success, at: wait)
        #expect(breaker.position == .halfOpen, "only the probe closes it")
        breaker.ended(probe, .success, at: wait)
        breaker.ended(early[3], failure, at: wait)
        #expect(breaker.position == .closed)
    }
}
