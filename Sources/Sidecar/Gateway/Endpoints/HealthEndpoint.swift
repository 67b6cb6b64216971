/// `GET /health`, for everybody.
struct HealthEndpoint: GatewayEndpoint {
    let dependencies: GatewayDependencies
    let path = "/health"
    let methods = ["GET", "HEAD"]

    func respond(
        to request: GatewayRequest, on worker: GatewayWorker
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        GatewayHealth(
            snapshot: dependencies.snapshot(), controlPlane: dependencies.controlPlane(),
            process: dependencies.process(), agents: dependencies.sight.agents
        ).answer()
    }
}
