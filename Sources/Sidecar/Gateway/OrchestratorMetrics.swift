import SidecarCore
import Synchronization
import WeirCore
import WeirMeshProtocol

/// The seed's metrics of users' requests, which the gateway knows the truth of. Labels are names of
/// the policy, or a dash for what was not known yet when a request was refused.
package final class OrchestratorMetrics: GatewayMetrics {
    private static let bounds = SidecarMetrics.latencyBounds

    private let registry: Metrics
    private let requests: Metrics.Family
    private let duration: Metrics.Family
    private let watched: Metrics.Family
    private let fallbacks: Metrics.Family
    private let downgrades: Metrics.Family

    private struct Windows {
        var requests = CounterWindow()
        var latencies = CounterWindow()
        var fallbacks = CounterWindow()
        var downgrades = CounterWindow()
    }

    private let windows = Mutex(Windows())

    /// `score` gives `system_health_score` at the time of a scrape, from 0 to 1.
    package init(_ metrics: SidecarMetrics, score: @escaping @Sendable () -> Double) {
        let registry = metrics.registry
        self.registry = registry
        watched = metrics.observed
        requests = registry.family(
            .counter, "orchestrator_requests_total",
            help: "Users' requests by type, tier and outcome: complete, partial or a reason.",
            labels: ["type", "tier", "status"])
        duration = registry.family(
            .histogram(bounds: Self.bounds), "orchestrator_request_duration_seconds",
            help: "How long users' requests took.", labels: ["type", "tier"])
        fallbacks = registry.family(
            .counter, "weir_fallbacks_total",
            help: "Steps that went to another agent because one failed or could not be asked.",
            labels: ["from", "to", "reason"])
        downgrades = registry.family(
            .counter, "weir_downgrades_total",
            help: "Steps that went to another agent than planned, by budget or preference.",
            labels: ["from", "to", "reason"])
        registry.collect { text in
            text.family(
                "system_health_score", .gauge,
                help: "Weighted mean over agents of the share of their endpoints that serve.")
            text.sample("system_health_score", [], "\(score())")
        }
    }

    package func analysisEnded(type: String, tier: String, status: String, nanoseconds: UInt64) {
        registry.add(registry.series(requests, [type, tier, status]))
        registry.observe(
            registry.series(duration, [type, tier]), bounds: Self.bounds, nanoseconds: nanoseconds)
    }

    package func stepsEnded(_ steps: [StepReport]) {
        for step in steps {
            guard let to = step.attempts.last?.agent else { continue }
            if let fallback = step.fallback {
                registry.add(
                    registry.series(fallbacks, [fallback.from, to, fallback.reason.name]))
            }
            if let downgrade = step.downgrade {
                registry.add(registry.series(downgrades, [downgrade.from, to, downgrade.reason]))
            }
        }
    }

    /// Under the agent "-": at a gateway no agent is involved yet.
    package func observed(_ reasons: [Reason], tier: String) {
        for reason in reasons {
            registry.add(registry.series(watched, ["-", tier, reason.name]))
        }
    }

    // MARK: The last minute

    /// Once a second, for `vitals`.
    package func look(nowNanoseconds now: UInt64) {
        func counts(_ family: Metrics.Family) -> [UInt64] {
            registry.read(family).map { $0.values[0] }
        }
        let requests = counts(requests)
        let fallbacks = counts(fallbacks)
        let downgrades = counts(downgrades)
        let latencies = registry.read(duration).reduce(
            into: [UInt64](repeating: 0, count: Self.bounds.count + 1)
        ) { sums, series in
            for index in sums.indices { sums[index] &+= series.values[index] }
        }
        windows.withLock { windows in
            windows.requests.add(requests, nowNanoseconds: now)
            windows.fallbacks.add(fallbacks, nowNanoseconds: now)
            windows.downgrades.add(downgrades, nowNanoseconds: now)
            windows.latencies.add(latencies, nowNanoseconds: now)
        }
    }

    package var vitals: GatewayVitals {
        let windows = windows.withLock { $0 }
        var vitals = GatewayVitals()
        vitals.windowMilliseconds = Int64(clamping: windows.requests.spanNanoseconds / 1_000_000)
        vitals.requests = grown(requests, windows.requests, MeshLimits.vitalRequestsMax) {
            GatewayVitals.Requests(type: $0[0], tier: $0[1], status: $0[2], count: $1)
        }
        vitals.detours = [
            (fallbacks, windows.fallbacks, GatewayVitals.Detour.Kind.fallback),
            (downgrades, windows.downgrades, .downgrade),
        ].flatMap { family, window, kind in
            grown(family, window, MeshLimits.vitalDetoursMax / 2) {
                GatewayVitals.Detour(
                    kind: kind, from: $0[0], to: $0[1], reason: $0[2], count: $1)
            }
        }
        vitals.latencies = windows.latencies.growth.map { Int64(clamping: $0) }
        return vitals
    }

    /// Series never change their place, so the window's counters are those of the family's first.
    private func grown<Row>(
        _ family: Metrics.Family, _ window: CounterWindow, _ max: Int,
        _ row: ([String], Int64) -> Row
    ) -> [Row] {
        let rows = zip(registry.read(family), window.growth).filter { $0.1 > 0 }
        return rows.prefix(max).map { row($0.0.labels, Int64(clamping: $0.1)) }
    }
}
