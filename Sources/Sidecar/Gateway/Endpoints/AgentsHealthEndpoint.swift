import WeirCore
import WeirMeshProtocol

/// `GET /agents/health`: names and states for everybody; who shows a token also sees endpoints,
/// breakers, rates and errors. From memory, so that asking often costs the control plane nothing.
struct AgentsHealthEndpoint: GatewayEndpoint {
    let identity: CallerIdentity
    let dependencies: GatewayDependencies
    let path = "/agents/health"
    let methods = ["GET", "HEAD"]

    func respond(
        to request: GatewayRequest, on worker: GatewayWorker
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        guard let snapshot = dependencies.snapshot() else {
            throw GatewayRefusal(
                .controlPlaneLost, "This gateway has no policy yet.", retryAfterSeconds: 1)
        }
        let agents = dependencies.sight.agents
        guard request.fields.contains(where: { $0.name == "authorization" }) else {
            return .json(200, ["agents": AgentHealthDocument.names(agents)], [])
        }
        _ = try await identity.identify(request, snapshot: snapshot, now: worker.clock.now)
        var body: JSONObject = ["at": .string(worker.clock.now.rfc3339)]
        let mesh = dependencies.sight.mesh(nowNanoseconds: worker.clock.nowNanoseconds)
        body["control_plane_view_age_ms"] =
            mesh.map { .number(JSONNumber($0.ageNanoseconds / 1_000_000)) } ?? .null
        body["agents"] = AgentHealthDocument.detail(agents)
        return .json(200, .object(body), [])
    }
}
