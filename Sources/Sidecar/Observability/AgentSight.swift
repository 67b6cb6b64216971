import Synchronization
import WeirCore
import WeirMeshProtocol

/// What a sidecar says of its agent in its reports. It says what the metrics say: looked at once a
/// second, so that the path of requests pays nothing for it.
package final class AgentSight: Sendable {
    private enum Kind: Int { case success, failure, other }

    private struct State {
        var calls = CounterWindow()
        /// Of the reasons by which failures came, in the order of `Reason.allCases`.
        var failures = CounterWindow()
        var endpoints: [AgentVitals.Endpoint] = []
        var isHealthy: Bool?
        var waiting = 0
        var lastError: LastError?
    }

    /// What is known of the agent's endpoints at a time of the monotonic clock.
    package struct Endpoints: Sendable {
        package var statuses: [EndpointSet<SocketAddress>.Status]
        /// The policy has their health checked.
        package var areChecked: Bool

        package init(_ statuses: [EndpointSet<SocketAddress>.Status], areChecked: Bool) {
            self.statuses = statuses
            self.areChecked = areChecked
        }
    }

    private let metrics: SidecarMetrics
    private let endpoints: @Sendable (UInt64) -> Endpoints
    private let state = Mutex(State())

    package init(
        _ metrics: SidecarMetrics, endpoints: @escaping @Sendable (UInt64) -> Endpoints
    ) {
        self.metrics = metrics
        self.endpoints = endpoints
    }

    /// Once a second, from any one thread.
    package func look(nowNanoseconds now: UInt64, at time: UnixTime) {
        let registry = metrics.registry
        registry.refreshGauges()
        let outcomes = byReason()
        var counts: [UInt64] = [0, 0, 0]
        for (reason, count) in outcomes { counts[Self.kind(reason).rawValue] += count }
        // One agent is served here; its latencies are one series.
        let latencies = registry.read(metrics.upstreamDuration).first?.values.dropLast()
        let endpoints = endpoints(now)
        let waiting = registry.read(metrics.waiting).reduce(0) { $0 + Int($1.gauge) }
        state.withLock { state in
            state.calls.add(counts + (latencies ?? []), nowNanoseconds: now)
            state.failures.add(outcomes.map(\.count), nowNanoseconds: now)
            for (outcome, grown) in zip(outcomes, state.failures.lastGrowth)
            where grown > 0 && Self.kind(outcome.reason) == .failure {
                state.lastError = LastError(reason: outcome.reason.name, at: time)
            }
            state.endpoints = Self.endpoints(
                endpoints.statuses, before: state.endpoints, at: time)
            state.isHealthy =
                endpoints.areChecked ? endpoints.statuses.contains(where: \.isHealthy) : nil
            state.waiting = waiting
        }
    }

    /// Attempts by their outcome, and those that were refused or failed before a byte was sent, of
    /// every reason there is.
    private func byReason() -> [(reason: Reason, count: UInt64)] {
        var counts = [Reason: UInt64](minimumCapacity: 16)
        for reading in metrics.registry.read(metrics.invocations) {
            guard let reason = Reason(name: reading.labels[3]) else { continue }
            counts[reason, default: 0] += reading.values[0]
        }
        for reading in metrics.registry.read(metrics.requests) {
            // What was admitted is an attempt, and counted above.
            guard let reason = Reason(name: reading.labels[0]), reason != .admitted else {
                continue
            }
            counts[reason, default: 0] += reading.values[0]
        }
        return Reason.allCases.map { ($0, counts[$0] ?? 0) }
    }

    private static let faults: Set<Reason> = [
        .upstreamError, .upstreamProtocol, .deadline, .noEndpoint,
    ]

    private static func kind(_ reason: Reason) -> Kind {
        reason == .admitted ? .success : faults.contains(reason) ? .failure : .other
    }

    private static func endpoints(
        _ statuses: [EndpointSet<SocketAddress>.Status], before: [AgentVitals.Endpoint],
        at time: UnixTime
    ) -> [AgentVitals.Endpoint] {
        statuses.prefix(MeshLimits.vitalEndpointsMax).map { status in
            let address = status.key.description
            let breaker: AgentVitals.Breaker =
                switch status.breaker {
                case .closed: .closed
                case .halfOpen: .halfOpen
                case .open: .open
                }
            let known = before.first { $0.address == address && $0.breaker == breaker }
            return known ?? AgentVitals.Endpoint(address: address, breaker: breaker, since: time)
        }
    }

    package var vitals: AgentVitals {
        state.withLock { state in
            AgentVitals(
                endpoints: state.endpoints, isHealthy: state.isHealthy,
                calls: Self.summary(state.calls), waiting: state.waiting,
                lastError: state.lastError)
        }
    }

    private static func summary(_ window: CounterWindow) -> CallSummary {
        let growth = window.growth.map { Int64(clamping: $0) }
        var summary = CallSummary()
        guard growth.count >= 3 else { return summary }
        summary.windowMilliseconds = Int64(clamping: window.spanNanoseconds / 1_000_000)
        summary.successes = growth[Kind.success.rawValue]
        summary.failures = growth[Kind.failure.rawValue]
        summary.others = growth[Kind.other.rawValue]
        summary.latencies = Array(growth.dropFirst(3))
        return summary
    }
}
