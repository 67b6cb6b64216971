import SidecarCore
import Synchronization
import WeirCore

/// The seed's metrics of users' requests, which the gateway knows the truth of. Labels are names of
/// the policy, or a dash for what was not known yet when a request was refused.
package final class OrchestratorMetrics: GatewayMetrics {
    private static let bounds = SidecarMetrics.latencyBounds

    private let registry: Metrics
    private let requests: Metrics.Family
    private let duration: Metrics.Family
    private let fallbacks: Metrics.Family
    private let downgrades: Metrics.Family
    /// Requests end on every worker's loop; a shard has one writer, and the lock is that writer.
    private let shard: Mutex<MetricsShard>

    /// `score` gives `system_health_score` at the time of a scrape, from 0 to 1.
    package init(_ registry: Metrics, score: @escaping @Sendable () -> Double) {
        self.registry = registry
        requests = registry.family(
            .counter, "orchestrator_requests_total",
            help: "Users' requests by type, tier and outcome: complete, partial or a reason.",
            labels: ["type", "tier", "status"])
        duration = registry.family(
            .histogram(bounds: Self.bounds), "orchestrator_request_duration_seconds",
            help: "How long users' requests took.", labels: ["type", "tier"])
        let change = ["from", "to", "reason"]
        fallbacks = registry.family(
            .counter, "weir_fallbacks_total",
            help: "Steps that another agent was tried for, because one failed.", labels: change)
        downgrades = registry.family(
            .counter, "weir_downgrades_total",
            help: "Steps that went to a cheaper agent than the plan says.", labels: change)
        shard = Mutex(registry.shard())
        registry.collect { text in
            text.family(
                "system_health_score", .gauge,
                help: "Mean over agents of the share of their endpoints that serve, 0 to 1.")
            text.sample("system_health_score", [], "\(score())")
        }
    }

    package func analysisEnded(type: String, tier: String, status: String, nanoseconds: UInt64) {
        let requests = registry.series(self.requests, [type, tier, status])
        let duration = registry.series(self.duration, [type, tier])
        shard.withLock { shard in
            shard.add(requests)
            shard.observe(duration, bounds: Self.bounds, nanoseconds: nanoseconds)
        }
    }
}

extension OrchestratorMetrics {
    package func routingChanged(_ change: RoutingChange) {
        let family =
            switch change.kind {
            case .fallback: fallbacks
            case .downgrade: downgrades
            }
        let series = registry.series(family, [change.from, change.to, change.reason])
        shard.withLock { $0.add(series) }
    }
}

extension GatewayState {
    /// What `system_health_score` says of the snapshot in force.
    package var healthScore: Double { GatewayHealth.score(snapshot) }
}
