import WeirCore
import WeirLedger
import WeirMeshProtocol

/// What the gateway knows of the control plane, for `/health`.
package struct ControlPlaneView: Hashable, Sendable {
    package var isReachable: Bool
    /// Since it was last heard.
    package var silentMilliseconds: Int64
    /// It has answered nothing about money for so long that tiers go by `whenControlPlaneIsLost`.
    package var isLost: Bool

    package init(isReachable: Bool, silentMilliseconds: Int64, isLost: Bool = false) {
        self.isReachable = isReachable
        self.silentMilliseconds = silentMilliseconds
        self.isLost = isLost
    }
}

/// What the gateway knows of its own process, for `/health`.
package struct ProcessView: Hashable, Sendable {
    /// It takes no new connections and is about to end.
    package var isDraining = false
    /// The log cannot be written; without it no money is set aside, so nothing is served.
    package var journalHasFailed = false
    /// Since the policy in force came into force here.
    package var policyAgeMilliseconds: Int64?
    /// Of a newer policy that this gateway refused.
    package var policyProblems = 0

    package init() {}
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
    /// Claims an idempotency key, or ends a claim; bounded in time.
    package var idempotency:
        @Sendable (IdempotencyRequest) async -> MeshOutcome<IdempotencyResponse>
    package var controlPlane: @Sendable () -> ControlPlaneView
    package var process: @Sendable () -> ProcessView
    /// What is known of the agents' state.
    package var sight: MeshSight
    package var metrics: any GatewayMetrics
    /// Every call to an agent picks its sidecar here.
    package var picker: EndpointPicker
    /// Answers of agents whose policy has them kept.
    package var cache: ResponseCache?

    package init(
        snapshot: @escaping @Sendable () -> GatewaySnapshot?,
        bind: @escaping @Sendable (SubjectRequest) async -> CallerBinding,
        ledger:
            @escaping @Sendable (SubjectBinding, GatewaySnapshot, any GatewayClock)
            -> any CallerLedger,
        ask: @escaping @Sendable (UserOperation, UserRequest) async -> MeshOutcome<JSONValue>,
        idempotency:
            @escaping @Sendable (IdempotencyRequest) async -> MeshOutcome<IdempotencyResponse>,
        controlPlane: @escaping @Sendable () -> ControlPlaneView,
        process: @escaping @Sendable () -> ProcessView = { ProcessView() },
        sight: MeshSight = MeshSight(), metrics: any GatewayMetrics,
        picker: EndpointPicker = EndpointPicker(), cache: ResponseCache? = nil
    ) {
        self.cache = cache
        self.picker = picker
        self.snapshot = snapshot
        self.bind = bind
        self.ledger = ledger
        self.ask = ask
        self.idempotency = idempotency
        self.controlPlane = controlPlane
        self.process = process
        self.sight = sight
        self.metrics = metrics
    }
}

extension GatewayDependencies {
    func snapshotInForce() throws(GatewayRefusal) -> GatewaySnapshot {
        guard let snapshot = snapshot() else {
            throw GatewayRefusal(
                .controlPlaneLost, "This gateway has no policy yet.", retryAfterSeconds: 1)
        }
        return snapshot
    }
}

/// What belongs to the loop that a request came in on.
package struct GatewayWorker: Sendable {
    package var transport: any AgentTransport
    package var clock: any GatewayClock
    /// Starts what goes on when the request's own task is cancelled, where `transport` and `clock`
    /// may be used.
    package var spawn: @Sendable (@escaping @Sendable () async -> Void) -> Void

    package init(
        transport: any AgentTransport, clock: any GatewayClock,
        spawn: @escaping @Sendable (@escaping @Sendable () async -> Void) -> Void
    ) {
        self.transport = transport
        self.clock = clock
        self.spawn = spawn
    }
}

package protocol GatewayMetrics: Sendable {
    /// `orchestrator_requests_total` and `orchestrator_request_duration_seconds`. The names come
    /// from the policy, never from the wire, so the number of series is bounded.
    func analysisEnded(type: String, tier: String, status: String, nanoseconds: UInt64)
    /// `weir_observed_total`: what would have refused a request at this gateway.
    func observed(_ reasons: [Reason], tier: String)
    /// Counts fallbacks and downgrades.
    func stepsEnded(_ steps: [StepReport])
    /// What this gateway has counted in the last minute.
    var vitals: GatewayVitals { get }
}
