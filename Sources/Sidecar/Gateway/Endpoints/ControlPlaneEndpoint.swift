import WeirCore
import WeirMeshProtocol
import WeirPolicy

/// An endpoint whose answer only the control plane knows: the caller is verified here, and the
/// request passed on with who asks.
struct ControlPlaneEndpoint: GatewayEndpoint {
    let operation: UserOperation
    let path: String
    let methods: [String]
    let identity: CallerIdentity
    let dependencies: GatewayDependencies

    func respond(
        to request: GatewayRequest, on worker: GatewayWorker
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        let snapshot = try dependencies.snapshotInForce()
        let caller = try await identity.identify(
            request, snapshot: snapshot, now: worker.clock.now
        ).caller
        let message = UserRequest(
            subject: .init(
                user: caller.user, tenant: caller.tenant, tier: caller.tier.name,
                roles: caller.roles),
            parameters: try request.allParameters(),
            body: request.method == "POST" ? try request.json() : nil)
        switch await dependencies.ask(operation, message) {
        case .answered(let body):
            return .json(200, body, [GatewayField("cache-control", "no-store")])
        case .refused(let refusal): throw GatewayRefusal(refusal)
        case .unavailable:
            throw GatewayRefusal(
                .controlPlaneLost, "The control plane does not answer now.", retryAfterSeconds: 1)
        }
    }
}

extension GatewayRefusal {
    /// What the control plane found wrong with a user's request.
    init(_ refusal: MeshRefusal) {
        // The uplink lets only reasons of ours through.
        self.init(
            Reason(name: refusal.reason) ?? .forbidden, refusal.detail,
            problems: refusal.problems ?? [])
    }
}
