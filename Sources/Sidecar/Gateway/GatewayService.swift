import SidecarCore
import WeirCore
import WeirMeshProtocol
import WeirPolicy

/// The gateway's own endpoints behind one door: routing, CORS, and refusals as problem documents.
/// One for the process; every loop calls it.
package final class GatewayService: Sendable {
    private let configuration: GatewayConfiguration
    private let dependencies: GatewayDependencies
    private let endpoints: EndpointTable
    private let workload: WorkloadAdmission

    package init(configuration: GatewayConfiguration, dependencies: GatewayDependencies) {
        self.configuration = configuration
        self.dependencies = dependencies
        let workload = WorkloadAdmission(max: configuration.analysesMax) {
            dependencies.controlPlane().isLost
        }
        let identity = CallerIdentity(verifier: configuration.verifier, bind: dependencies.bind)
        self.workload = workload
        let calls = OutboundCalls()
        func asked(
            _ operation: UserOperation, _ path: String, _ methods: [String]
        ) -> ControlPlaneEndpoint {
            ControlPlaneEndpoint(
                operation: operation, path: path, methods: methods, identity: identity,
                dependencies: dependencies)
        }
        endpoints = EndpointTable(
            [
                AnalyzeEndpoint(identity: identity, workload: workload, dependencies: dependencies),
                ChatCompletionsEndpoint(
                    identity: identity, workload: workload, dependencies: dependencies),
                HealthEndpoint(dependencies: dependencies),
                AgentsHealthEndpoint(identity: identity, dependencies: dependencies),
                asked(.preferences, "/agents/preferences", ["GET", "POST"]),
                asked(.budget, "/budget/update", ["POST"]),
                asked(.performance, "/agents/performance/{agent}", ["GET", "HEAD"]),
                asked(.costBreakdown, "/cost/breakdown", ["GET", "HEAD"]),
                asked(.costSuggestions, "/cost/suggestions", ["GET", "HEAD"]),
                StatsEndpoint(identity: identity, dependencies: dependencies),
                AgentTestEndpoint(identity: identity, dependencies: dependencies),
            ]
                + ModelsEndpoint.Form.allCases.map {
                    ModelsEndpoint(form: $0, identity: identity, dependencies: dependencies)
                }
                + OutboundEndpoint.Form.allCases.map {
                    OutboundEndpoint(form: $0, calls: calls, dependencies: dependencies)
                })
    }

    package var analysesInHand: Int { workload.requestsInHand }

    /// Shows what is in hand, what waits and what was shed.
    package func show(on registry: Metrics) { workload.show(on: registry) }

    package func respond(
        to request: GatewayRequest, on worker: GatewayWorker
    ) async -> GatewayAnswer {
        var answer: GatewayAnswer
        do throws(GatewayRefusal) {
            answer = try await route(request, worker)
        } catch {
            answer = .refusal(error, of: request)
        }
        if let version = dependencies.snapshot()?.version {
            answer.fields.append(GatewayField("weir-policy-version", String(version.number)))
        }
        answer.fields += configuration.origins.fields(for: request.field("origin"))
        if request.method == "HEAD" { answer.body = .bytes([]) }
        return answer
    }

    private func route(
        _ request: GatewayRequest, _ worker: GatewayWorker
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        // The server as a whole (RFC 9110 §9.3.7).
        if request.method == "OPTIONS", request.path == "*" {
            let allow = (endpoints.methods + ["OPTIONS"]).joined(separator: ", ")
            return GatewayAnswer(
                status: 204, fields: [GatewayField("allow", allow)], body: .bytes([]))
        }
        guard let (endpoint, parameters) = endpoints.endpoint(for: request.path) else {
            throw GatewayRefusal(.unknownRoute, "There is nothing at this path.")
        }
        if request.method == "OPTIONS" {
            let allow = GatewayField(
                "allow", (endpoint.methods + ["OPTIONS"]).joined(separator: ", "))
            let fields = configuration.origins.preflightFields(
                for: request.field("origin"), methods: endpoint.methods)
            return GatewayAnswer(status: 204, fields: [allow] + fields, body: .bytes([]))
        }
        guard endpoint.methods.contains(request.method) else {
            let allowed = endpoint.methods.joined(separator: ", ")
            var refusal = GatewayRefusal(.method, "The methods here are \(allowed).")
            refusal.fields = [GatewayField("allow", allowed)]
            throw refusal
        }
        var request = request
        request.endpoint = endpoint.path
        request.parameters = parameters
        return try await endpoint.respond(to: request, on: worker)
    }
}
