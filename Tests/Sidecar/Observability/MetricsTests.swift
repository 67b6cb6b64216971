import Glibc
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarCore

private func lines(_ metrics: Metrics) -> [String] {
    String(decoding: metrics.exposition(), as: UTF8.self).split(separator: "\n").map(String.init)
}

/// What `promtool check metrics` says of a text; `nil` where it is not installed.
private func promtool(_ text: [UInt8]) throws -> (status: Int32, output: String)? {
    guard access("/usr/bin/promtool", X_OK) == 0 else { return nil }
    let path = "/tmp/weir-metrics-\(getpid())-\(UInt32.random(in: 0 ... .max)).txt"
    let file = try #require(fopen(path, "w"))
    text.withUnsafeBytes { _ = fwrite($0.baseAddress, 1, $0.count, file) }
    fclose(file)
    defer { unlink(path) }
    let pipe = try #require(popen("/usr/bin/promtool check metrics < \(path) 2>&1", "r"))
    var output: [UInt8] = []
    var byte = fgetc(pipe)
    while byte != EOF {
        output.append(UInt8(truncatingIfNeeded: byte))
        byte = fgetc(pipe)
    }
    return (pclose(pipe), String(decoding: output, as: UTF8.self))
}

@Suite struct MetricsTests {
    @Test func shardsAreSummed() {
        let metrics = Metrics()
        let family = metrics.family(.counter, "weir_a_total", help: "A.", labels: ["x"])
        let one = metrics.series(family, ["1"])
        #expect(metrics.series(family, ["1"]) == one)
        let shards = (0..<3).map { _ in metrics.shard() }
        for (index, shard) in shards.enumerated() { shard.add(one, UInt64(index + 1)) }
        shards[0].add(metrics.series(family, ["2"]))
        #expect(
            lines(metrics) == [
                "# HELP weir_a_total A.", "# TYPE weir_a_total counter",
                "weir_a_total{x=\"1\"} 6", "weir_a_total{x=\"2\"} 1",
            ])
    }

    @Test func moneyIsExact() {
        let metrics = Metrics()
        let family = metrics.family(.counterOfBillionths, "cost_usd_total", help: "C.")
        metrics.shard().add(metrics.series(family), 12_000_120_001)
        #expect(lines(metrics).last == "cost_usd_total 12.000120001")
        #expect(MetricsText.billionths(0) == "0")
        #expect(MetricsText.billionths(1_500_000_000) == "1.5")
        #expect(MetricsText.billionths(.max) == "18446744073.709551615")
    }

    @Test func gaugesGoUpAndDown() {
        let metrics = Metrics()
        let gauge = metrics.series(metrics.family(.gauge, "weir_g", help: "G."))
        let (a, b) = (metrics.shard(), metrics.shard())
        a.add(gauge, signed: 3)
        b.add(gauge, signed: -5)
        #expect(lines(metrics).last == "weir_g -2")
        metrics.set(gauge, 10)
        #expect(lines(metrics).last == "weir_g 8")
    }

    @Test func histogramsAreCumulative() {
        let bounds: [UInt64] = [1_000_000, 2_500_000_000]
        let metrics = Metrics()
        let family = metrics.family(.histogram(bounds: bounds), "weir_h_seconds", help: "H.")
        let series = metrics.series(family)
        let shard = metrics.shard()
        for value: UInt64 in [0, 1_000_000, 1_000_001, 3_000_000_000] {
            shard.observe(series, bounds: bounds, nanoseconds: value)
        }
        #expect(
            lines(metrics).dropFirst(2) == [
                "weir_h_seconds_bucket{le=\"0.001\"} 2", "weir_h_seconds_bucket{le=\"2.5\"} 3",
                "weir_h_seconds_bucket{le=\"+Inf\"} 4", "weir_h_seconds_sum 3.002000001",
                "weir_h_seconds_count 4",
            ])
    }

    @Test func labelsAreBoundedAndSumsStayRight() {
        let metrics = Metrics()
        let family = metrics.family(.counter, "weir_b_total", help: "B.", labels: ["m", "n"])
        let shard = metrics.shard()
        let count = Metrics.seriesPerFamilyMax + 500
        for index in 0..<count { shard.add(metrics.series(family, ["\(index)", "x"])) }
        let samples = lines(metrics).dropFirst(2)
        #expect(samples.count == Metrics.seriesPerFamilyMax + 1)
        #expect(samples.last == "weir_b_total{m=\"other\",n=\"other\"} 500")
    }

    @Test func textIsEscaped() {
        var text = MetricsText()
        text.family("weir_e", .gauge, help: "a\\b\n\"c\"")
        text.sample("weir_e", [("l", "a\\b\n\"c\"")], "1")
        #expect(
            String(decoding: text.bytes, as: UTF8.self) == """
                # HELP weir_e a\\\\b\\n"c"
                # TYPE weir_e gauge
                weir_e{l="a\\\\b\\n\\"c\\""} 1

                """)
    }

    @Test func promtoolFindsNothingToSay() throws {
        let registry = Metrics()
        let metrics = SidecarMetrics(registry)
        let series = AgentSeries(metrics, shard: registry.shard(), agent: "finbert")
        for reason in Reason.allCases { series.decided(reason) }
        var tokens = AttemptRecord.Tokens()
        tokens.input = 10
        tokens.cachedInput = 5
        tokens.output = 3
        tokens.reasoning = 1
        for source in CostSource.allCases {
            let cost = AttemptCost(
                amount: NanoUSD(120_000), source: source, tokens: tokens, isOverrun: true)
            series.attempted(
                cost, model: "m\"\\\n", tier: "free", outcome: .admitted,
                nanoseconds: 12_345_678, firstByteNanoseconds: 1_000)
        }
        let lag = registry.series(metrics.loopLag, ["0"])
        registry.shard().observe(lag, bounds: SidecarMetrics.lagBounds, nanoseconds: 5)
        metrics.showPolicy { PolicyVersion(epoch: 1, number: 7, hash: "ab") }
        var agent = AgentPolicy(
            name: "finbert", wireProtocol: .json, path: "/", models: [.init(id: "m", aliases: [])])
        agent.healthCheck = .init(path: "/health")
        let runtime = AgentRuntime(agent, endpoints: [.loopback(port: 1), .unix("/a\"b")])
        metrics.show(runtime, agent: "finbert") { 0 }
        let text = registry.exposition()
        guard let result = try promtool(text) else { return }
        #expect(result.status == 0, "\(result.output)")
        #expect(result.output.isEmpty, "\(result.output)")
        // The check itself can fail.
        let bad = try promtool(Array("# TYPE x counter\nx 1\nx 2\n".utf8))
        #expect(bad?.status != 0)
    }

    /// Threads count while another one scrapes: nothing is lost.
    @Test func countingNeedsNoLock() {
        let metrics = Metrics()
        let series = metrics.series(metrics.family(.counter, "weir_c_total", help: "C."))
        final class Job: Sendable {
            let shard: MetricsShard
            let series: Metrics.Series
            init(_ shard: MetricsShard, _ series: Metrics.Series) {
                self.shard = shard
                self.series = series
            }
        }
        var threads: [pthread_t] = []
        for _ in 0..<4 {
            var thread = pthread_t()
            let job = Unmanaged.passRetained(Job(metrics.shard(), series))
            pthread_create(
                &thread, nil,
                { raw in
                    guard let raw else { return nil }
                    let job = Unmanaged<Job>.fromOpaque(raw).takeRetainedValue()
                    for _ in 0..<20_000 { job.shard.add(job.series) }
                    return nil
                }, job.toOpaque())
            threads.append(thread)
        }
        for _ in 0..<20 { _ = metrics.exposition() }
        for thread in threads { pthread_join(thread, nil) }
        #expect(lines(metrics).last == "weir_c_total 80000")
    }
}
