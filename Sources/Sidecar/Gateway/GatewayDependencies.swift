import WeirCore
import WeirLedger
import WeirMeshProtocol

/// What the gateway knows of the control plane, for `/health`.
package struct ControlPlaneView: Hashable, Sendable {
    package var isReachable: Bool
    /// Since it was last heard.
    package var silentMilliseconds: Int64

    package init(isReachable: Bool, silentMilliseconds: Int64) {
        self.isReachable = isReachable
        self.silentMilliseconds = silentMilliseconds
    }
}

/// What the control plane says about the bearer of a token.
package enum CallerBinding: Sendable {
    case bound(SubjectBinding)
    case refused(Reason, String)
    /// It is away, and nothing is remembered of this caller.
    case unavailable
}

/// What the gateway needs of the rest of its process.
package struct GatewayDependencies: Sendable {
    /// `nil` before the first policy.
    package var snapshot: @Sendable () -> GatewaySnapshot?
    package var bind: @Sendable (SubjectRequest) async -> CallerBinding
    package var ledger:
        @Sendable (SubjectBinding, GatewaySnapshot, any GatewayClock) -> any CallerLedger
    /// Passes a user's own request on to the control plane; bounded in time.
    package var ask: @Sendable (UserOperation, UserRequest) async -> MeshOutcome<JSONValue>
    package var controlPlane: @Sendable () -> ControlPlaneView
    package var metrics: any GatewayMetrics

    package init(
        snapshot: @escaping @Sendable () -> GatewaySnapshot?,
        bind: @escaping @Sendable (SubjectRequest) async -> CallerBinding,
        ledger:
            @escaping @Sendable (SubjectBinding, GatewaySnapshot, any GatewayClock)
            -> any CallerLedger,
        ask: @escaping @Sendable (UserOperation, UserRequest) async -> MeshOutcome<JSONValue>,
        controlPlane: @escaping @Sendable () -> ControlPlaneView, metrics: any GatewayMetrics
    ) {
        self.snapshot = snapshot
        self.bind = bind
        self.ledger = ledger
        self.ask = ask
        self.controlPlane = controlPlane
        self.metrics = metrics
    }
}

/// What belongs to the loop that a request came in on.
package struct GatewayWorker: Sendable {
    package var transport: any AgentTransport
    package var clock: any GatewayClock

    package init(transport: any AgentTransport, clock: any GatewayClock) {
        self.transport = transport
        self.clock = clock
    }
}

package protocol GatewayMetrics: Sendable {
    /// `orchestrator_requests_total` and `orchestrator_request_duration_seconds`. The names come
    /// from the policy, never from the wire, so the number of series is bounded.
    func analysisEnded(type: String, tier: String, status: String, nanoseconds: UInt64)
    /// `weir_fallbacks_total` and `weir_downgrades_total`.
    func routingChanged(_ change: RoutingChange)
}
