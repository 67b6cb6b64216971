import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// The metrics of a sidecar by the names of API.md. The seed's names belong to the process that
/// knows the truth: agents' sidecars count attempts and money, gateways count users' requests.
package struct SidecarMetrics: Sendable {
    package static let latencyBounds = LatencyBuckets.bounds
    package static let lagBounds: [UInt64] = [100_000, 1_000_000, 10_000_000, 100_000_000]

    package let registry: Metrics
    package let invocations: Metrics.Family
    package let cost: Metrics.Family
    package let requests: Metrics.Family
    package let upstreamDuration: Metrics.Family
    package let firstByte: Metrics.Family
    package let inFlight: Metrics.Family
    package let waiting: Metrics.Family
    package let tokens: Metrics.Family
    package let overruns: Metrics.Family
    package let loopLag: Metrics.Family
    package let observed: Metrics.Family
    package let retries: Metrics.Family
    package let grpcCalls: Metrics.Family

    package init(_ registry: Metrics) {
        self.registry = registry
        invocations = registry.family(
            .counter, "agent_invocations_total", help: "Attempts at an agent by their outcome.",
            labels: ["agent", "model", "tier", "outcome"])
        cost = registry.family(
            .counterOfBillionths, "cost_usd_total",
            help: "What attempts cost, and how that is known.",
            labels: ["agent", "model", "tier", "source"])
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
        retries = registry.family(
            .counter, "weir_retries_total",
            help: "Requests sent to another endpoint because one could not be connected to.",
            labels: ["agent"])
        grpcCalls = registry.family(
            .counter, "weir_grpc_requests_total",
            help: "Calls of gRPC by method and the status that the caller was told.",
            labels: ["agent", "method", "status"])
        observed = registry.family(
            .counter, "weir_observed_total",
            help: "Requests that would have been refused, had the policy not only observed.",
            labels: ["agent", "tier", "reason"])
    }

    /// Shows an agent's stages and endpoints at each scrape.
    package func show(
        _ runtime: AgentRuntime, agent: String, now: @escaping @Sendable () -> UInt64
    ) {
        let metrics = self
        registry.collect { text in
            let levels = runtime.levels
            let registry = metrics.registry
            registry.set(registry.series(metrics.inFlight, [agent]), Int64(levels.inFlight))
            registry.set(registry.series(metrics.waiting, [agent]), Int64(levels.waiting))
            let endpoints = runtime.endpoints(nowNanoseconds: now())
            Self.write(endpoints, agent, isChecked: runtime.isChecked, &text)
        }
    }

    /// Written as they are now and not kept as series: endpoints come and go.
    private static func write(
        _ endpoints: [EndpointSet<SocketAddress>.Status], _ agent: String, isChecked: Bool,
        _ text: inout MetricsText
    ) {
        func gauge(
            _ name: String, _ help: String, _ value: (EndpointSet<SocketAddress>.Status) -> String
        ) {
            text.family(name, .gauge, help: help)
            for endpoint in endpoints {
                let labels = [("agent", agent), ("endpoint", endpoint.key.description)]
                text.sample(name, labels, value(endpoint))
            }
        }
        gauge("circuit_breaker_state", "0 closed, 1 half-open, 2 open.") {
            String($0.breaker.rawValue)
        }
        gauge("weir_endpoint_serving", "1 while the endpoint is balanced to, 0 while it is out.") {
            $0.isServing ? "1" : "0"
        }
        gauge("weir_endpoint_requests_in_flight", "Requests at the endpoint now.") {
            String($0.outstanding)
        }
        gauge("weir_endpoint_latency_seconds", "What an answer is expected to take (peak EWMA).") {
            MetricsText.billionths($0.averageNanoseconds)
        }
        if isChecked {
            let help = "1 while the endpoint passes its health checks, 0 while it fails them."
            gauge("weir_endpoint_healthy", help) { $0.isHealthy ? "1" : "0" }
            text.family(
                "weir_agent_healthy", .gauge,
                help: "1 while any endpoint of the agent passes its health checks, else 0.")
            let isHealthy = endpoints.contains(where: \.isHealthy)
            text.sample("weir_agent_healthy", [("agent", agent)], isHealthy ? "1" : "0")
        }
        let name = "weir_upstream_failures_total"
        text.family(name, .counter, help: "Failures of an endpoint by their kind.")
        for endpoint in endpoints {
            for kind in CircuitBreaker.Failure.allCases {
                let labels = [
                    ("agent", agent), ("endpoint", endpoint.key.description), ("kind", kind.name),
                ]
                text.sample(name, labels, String(endpoint.failures[kind.rawValue]))
            }
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
                "weir_unreported_leases",
                "Leases whose counters the control plane does not have yet.",
                String(gauges.unreportedLeases))
            write(
                "weir_open_delegations", "Delegations of others that are open here.",
                String(gauges.openDelegations))
            write(
                "weir_unreported_finals",
                "Settlements of others' delegations that the control plane does not have yet.",
                String(gauges.unreportedFinals))
            write(
                "weir_delegations_shut",
                "1 while no delegation is accepted, because too many settlements are unreported.",
                gauges.acceptsDelegations ? "0" : "1")
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
