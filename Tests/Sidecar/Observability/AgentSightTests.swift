import Synchronization
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import SidecarCore

private let second: UInt64 = 1_000_000_000

@Suite struct CounterWindowTests {
    @Test func growthIsThatOfTheLastMinute() {
        var window = CounterWindow()
        #expect(window.growth == [] && window.spanNanoseconds == 0)
        for tick in 0...100 as ClosedRange<UInt64> {
            window.add([tick, 5], nowNanoseconds: tick * second)
        }
        #expect(window.growth == [60, 0])
        #expect(window.lastGrowth == [1, 0])
        #expect(window.spanNanoseconds == 60 * second)
    }

    @Test func aCounterThatComesUpLaterWasZeroBefore() {
        var window = CounterWindow()
        window.add([3], nowNanoseconds: second)
        window.add([4, 7], nowNanoseconds: 2 * second)
        #expect(window.growth == [1, 7])
    }

    @Test func readingsInARowTakeNoRoom() {
        var window = CounterWindow()
        for step in 0..<10_000 as Range<UInt64> {
            window.add([step], nowNanoseconds: step * 1_000_000)
        }
        // Ten seconds of a reading each millisecond: what is kept is a second apart.
        #expect(window.growth == [9_999])
        #expect(window.lastGrowth[0] >= 100 && window.lastGrowth[0] <= 1_000)
    }

    @Test func aLongSilenceIsInTheWindow() {
        var window = CounterWindow()
        window.add([1], nowNanoseconds: second)
        window.add([9], nowNanoseconds: 500 * second)
        #expect(window.growth == [8])
        #expect(window.spanNanoseconds == 499 * second)
    }
}

@Suite struct AgentSightTests {
    private let metrics = SidecarMetrics(Metrics())

    private func status(
        _ breaker: CircuitBreaker.Position, isHealthy: Bool = true
    ) -> EndpointSet<SocketAddress>.Status {
        .init(
            key: .loopback(port: 9), breaker: breaker, isHealthy: isHealthy, isAvoided: false,
            outstanding: 0, averageNanoseconds: 0, failures: [])
    }

    private func attempt(_ series: AgentSeries, _ outcome: Reason, milliseconds: UInt64) {
        series.decided(.admitted)
        series.attempted(
            AttemptCost(amount: .zero, source: .none, tokens: .init(), isOverrun: false),
            model: "m", tier: "free", outcome: outcome, nanoseconds: milliseconds * 1_000_000,
            firstByteNanoseconds: 0)
    }

    @Test func saysWhatTheMetricsSay() throws {
        let seen = Mutex(AgentSight.Endpoints([status(.closed)], areChecked: false))
        let sight = AgentSight(metrics) { _ in seen.withLock { $0 } }
        let series = AgentSeries(metrics, shard: metrics.registry.shard(), agent: "finbert")
        sight.look(nowNanoseconds: second, at: UnixTime(seconds: 100))
        for _ in 0..<18 { attempt(series, .admitted, milliseconds: 8) }
        for _ in 0..<2 { attempt(series, .upstreamError, milliseconds: 400) }
        // It took no connection: no attempt, and yet its fault.
        series.decided(.upstreamError)
        series.decided(.rateLimited)
        attempt(series, .cancelled, milliseconds: 8)
        seen.withLock { $0.statuses = [status(.open)] }
        sight.look(nowNanoseconds: 2 * second, at: UnixTime(seconds: 101))

        let vitals = sight.vitals
        #expect(vitals.calls.successes == 18)
        #expect(vitals.calls.failures == 3)
        #expect(vitals.calls.others == 2)
        #expect(vitals.calls.windowMilliseconds == 1_000)
        #expect(vitals.lastError == LastError(reason: "upstream_error", at: UnixTime(seconds: 101)))
        #expect(
            vitals.endpoints == [
                .init(address: "127.0.0.1:9", breaker: .open, since: UnixTime(seconds: 101))
            ])
        #expect(vitals.servingShare == 0)
        let median = try #require(LatencyBuckets.quantile(0.5, of: vitals.calls.latencies))
        #expect(median > 5 && median <= 10)
        let high = try #require(LatencyBuckets.quantile(0.95, of: vitals.calls.latencies))
        #expect(high > 250 && high <= 500)

        sight.look(nowNanoseconds: 3 * second, at: UnixTime(seconds: 102))
        // Nothing new: the error stays where it was, and so does the beginning of the state.
        #expect(sight.vitals.lastError?.at == UnixTime(seconds: 101))
        #expect(sight.vitals.endpoints[0].since == UnixTime(seconds: 101))
        sight.look(nowNanoseconds: 90 * second, at: UnixTime(seconds: 189))
        sight.look(nowNanoseconds: 151 * second, at: UnixTime(seconds: 250))
        #expect(sight.vitals.calls.successes == 0)
        #expect(sight.vitals.calls.successRate == nil)
    }

    @Test func aGaugeIsAskedOfThoseWhoKnowIt() {
        let registry = metrics.registry
        let metrics = metrics
        registry.collect { _ in
            registry.set(registry.series(metrics.waiting, ["finbert"]), 4)
        }
        let sight = AgentSight(metrics) { _ in
            .init([status(.closed, isHealthy: false)], areChecked: true)
        }
        sight.look(nowNanoseconds: second, at: UnixTime(seconds: 1))
        #expect(sight.vitals.waiting == 4)
        #expect(sight.vitals.isHealthy == false)
        #expect(sight.vitals.servingShare == 0)
    }
}

@Suite struct LoopLagTests {
    @Test func aLoopCountsHowLateItsTimersAre() async throws {
        let metrics = SidecarMetrics(Metrics())
        let loop = try EventLoop()
        LoopLag.measure(loop, worker: "7", metrics)
        let thread = try LoopThread(loop, name: "lag")
        defer {
            loop.stop()
            thread.join()
        }
        let counted = await becomesTrue {
            metrics.registry.read(metrics.loopLag).contains {
                $0.labels == ["7"] && $0.values.dropLast().reduce(0, +) >= 1
            }
        }
        #expect(counted)
    }
}
