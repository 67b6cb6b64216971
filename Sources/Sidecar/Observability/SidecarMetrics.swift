import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// The metrics of a sidecar by the names of API.md. The seed's names belong to the process that
/// knows the truth: agents' sidecars count attempts and money, gateways count users' requests.
package struct SidecarMetrics: Sendable {
    package static let latencyBounds: [UInt64] = [
        1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000,
    ].map { $0 * 1_000_000 }
    package static let lagBounds: [UInt64] = [100_000, 1_000_000, 10_000_000, 100_000_000]

    package let registry: Metrics
    package let invocations: Metrics.Family
    package let cost: Metrics.Family
    package let breakerState: Metrics.Family
    package let requests: Metrics.Family
    package let upstreamDuration: Metrics.Family
    package let firstByte: Metrics.Family
    package let inFlight: Metrics.Family
    package let waiting: Metrics.Family
    package let tokens: Metrics.Family
    package let overruns: Metrics.Family
    package let loopLag: Metrics.Family
    package let healthy: Metrics.Family

    package init(_ registry: Metrics) {
        self.registry = registry
        invocations = registry.family(
            .counter, "agent_invocations_total", help: "Attempts at an agent by their outcome.",
            labels: ["agent", "model", "tier", "outcome"])
        cost = registry.family(
            .counterOfBillionths, "cost_usd_total",
            help: "What attempts cost, and how that is known.",
            labels: ["agent", "model", "tier", "source"])
        breakerState = registry.family(
            .gauge, "circuit_breaker_state", help: "0 closed, 1 half-open, 2 open.",
            labels: ["agent", "endpoint"])
        requests = registry.family(
            .counter, "weir_requests_total",
            help: "Requests by decision: admitted, or the reason of the refusal.",
            labels: ["decision"])
        upstreamDuration = registry.family(
            .histogram(bounds: Self.latencyBounds), "weir_upstream_duration_seconds",
            help: "From the first byte to the agent to the last byte from it.", labels: ["agent"])
        firstByte = registry.family(
            .histogram(bounds: Self.latencyBounds), "weir_upstream_first_byte_seconds",
            help: "From the first byte to the agent to the head of its answer.", labels: ["agent"])
        inFlight = registry.family(
            .gauge, "weir_requests_in_flight", help: "Requests at the agent now.",
            labels: ["agent"])
        waiting = registry.family(
            .gauge, "weir_requests_waiting", help: "Requests in the agent's queue now.",
            labels: ["agent"])
        tokens = registry.family(
            .counter, "weir_tokens_total", help: "Tokens that agents reported.",
            labels: ["agent", "model", "kind"])
        overruns = registry.family(
            .counter, "weir_overruns_total",
            help: "Attempts that cost more than their worst case: the provider broke its word.",
            labels: ["agent", "model"])
        loopLag = registry.family(
            .histogram(bounds: Self.lagBounds), "weir_loop_lag_seconds",
            help: "How late an event loop runs its timers.", labels: ["worker"])
        healthy = registry.family(
            .gauge, "weir_agent_healthy",
            help: "1 while the agent passes its health checks, 0 while it fails them.",
            labels: ["agent"])
    }

    /// Shows an agent's stages at each scrape. `endpoint` is the agent's address.
    package func show(_ runtime: AgentRuntime, agent: String, endpoint: String) {
        let metrics = self
        registry.collect { _ in
            let levels = runtime.levels
            let registry = metrics.registry
            registry.set(
                registry.series(metrics.breakerState, [agent, endpoint]),
                Int64(levels.breaker.rawValue))
            registry.set(registry.series(metrics.inFlight, [agent]), Int64(levels.inFlight))
            registry.set(registry.series(metrics.waiting, [agent]), Int64(levels.waiting))
        }
    }

    /// Shows the log and what is open in it at each scrape.
    package func show(_ ledger: SidecarLedger) {
        registry.collect { text in
            let gauges = ledger.gauges()
            func write(_ name: String, _ help: String, _ value: String) {
                text.family(name, .gauge, help: help)
                text.sample(name, [], value)
            }
            write(
                "weir_journal_bytes", "Size of the write-ahead log.", String(gauges.journalBytes))
            write(
                "weir_journal_failed", "1 when the log cannot be written.",
                gauges.journalFailure == nil ? "0" : "1")
            write(
                "weir_open_reservations", "Reservations and children that are open.",
                String(gauges.openReservations))
            write(
                "weir_open_delegations", "Delegations of others that are open here.",
                String(gauges.openDelegations))
            write(
                "weir_accounts_nearly_spent",
                "Accounts in money known here of which 80 % or more is spent.",
                String(gauges.accountsNearlySpent))
        }
    }

    /// Shows which policy is in force; `version` is asked at each scrape.
    package func showPolicy(_ version: @escaping @Sendable () -> PolicyVersion?) {
        registry.collect { text in
            guard let version = version() else { return }
            text.family("weir_policy_info", .gauge, help: "The policy in force.")
            text.sample(
                "weir_policy_info",
                [("version", String(version.number)), ("hash", version.hash)], "1")
        }
    }

    /// Shows the log of the process.
    package func show(_ log: Log) {
        registry.collect { text in
            text.family(
                "weir_log_lines_dropped_total", .counter,
                help: "Lines that nobody took in time.")
            text.sample("weir_log_lines_dropped_total", [], String(log.droppedLines))
        }
    }
}

/// The series that one worker counts for one agent, resolved once for each tier and model.
final class AgentSeries {
    let metrics: SidecarMetrics
    let shard: MetricsShard
    private let agent: String
    private var decisions: ContiguousArray<Metrics.Series?>
    private let duration: Metrics.Series
    private let firstByte: Metrics.Series
    private var attempts: [Key: Metrics.Series] = [:]
    /// Tiers and models come from the policy, outcomes from `Reason`; this bounds what a caller
    /// with odd ones could make of it. Beyond it every lookup asks the registry, which has its own
    /// bound.
    private static let attemptsMax = 4_096

    private struct Key: Hashable {
        let family: Metrics.Family
        let model: String
        let tier: String
        let detail: UInt8
    }

    init(_ metrics: SidecarMetrics, shard: MetricsShard, agent: String) {
        self.metrics = metrics
        self.shard = shard
        self.agent = agent
        decisions = ContiguousArray(repeating: nil, count: 256)
        duration = metrics.registry.series(metrics.upstreamDuration, [agent])
        firstByte = metrics.registry.series(metrics.firstByte, [agent])
    }

    func decided(_ reason: Reason) {
        let index = Int(reason.rawValue)
        let series =
            decisions[index] ?? metrics.registry.series(metrics.requests, [reason.name])
        decisions[index] = series
        shard.add(series)
    }

    func attempted(
        _ cost: AttemptCost, model: String, tier: String, outcome: Reason,
        nanoseconds: UInt64, firstByteNanoseconds: UInt64
    ) {
        shard.add(
            series(metrics.invocations, model, tier, outcome.rawValue, outcome.name))
        if cost.amount.rawValue > 0 {
            shard.add(
                series(metrics.cost, model, tier, cost.source.rawValue, cost.source.name),
                UInt64(cost.amount.rawValue))
        }
        if cost.isOverrun {
            shard.add(metrics.registry.series(metrics.overruns, [agent, model]))
        }
        count(cost.tokens.input, "input", model, 0)
        count(cost.tokens.cachedInput, "cached_input", model, 1)
        count(cost.tokens.output, "output", model, 2)
        count(cost.tokens.reasoning, "reasoning", model, 3)
        let bounds = SidecarMetrics.latencyBounds
        shard.observe(duration, bounds: bounds, nanoseconds: nanoseconds)
        if firstByteNanoseconds > 0 {
            shard.observe(firstByte, bounds: bounds, nanoseconds: firstByteNanoseconds)
        }
    }

    private func count(_ tokens: UInt32, _ kind: String, _ model: String, _ number: UInt8) {
        guard tokens > 0 else { return }
        let key = Key(family: metrics.tokens, model: model, tier: "", detail: number)
        shard.add(find(key) { [agent, model, kind] }, UInt64(tokens))
    }

    private func series(
        _ family: Metrics.Family, _ model: String, _ tier: String, _ detail: UInt8, _ name: String
    ) -> Metrics.Series {
        find(Key(family: family, model: model, tier: tier, detail: detail)) {
            [agent, model, tier, name]
        }
    }

    private func find(_ key: Key, _ labels: () -> [String]) -> Metrics.Series {
        if let known = attempts[key] { return known }
        let series = metrics.registry.series(key.family, labels())
        if attempts.count < Self.attemptsMax { attempts[key] = series }
        return series
    }
}
