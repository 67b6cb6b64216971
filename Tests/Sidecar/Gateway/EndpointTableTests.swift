import Testing

@testable import SidecarGateway

@Suite struct EndpointTableTests {
    private struct Named: GatewayEndpoint {
        let path: String
        let methods = ["GET"]

        func respond(
            to request: GatewayRequest, on worker: GatewayWorker
        ) async throws(GatewayRefusal) -> GatewayAnswer {
            GatewayAnswer(status: 200, fields: [], body: .bytes([]))
        }
    }

    private let table = EndpointTable([
        Named(path: "/agents/health"), Named(path: "/agents/performance/{agent}"),
    ])

    @Test func findsAPathWithoutParameters() throws {
        let found = try #require(table.endpoint(for: "/agents/health"))
        #expect(found.endpoint.path == "/agents/health")
        #expect(found.parameters.isEmpty)
    }

    @Test func readsTheParametersOfAPath() throws {
        let found = try #require(table.endpoint(for: "/agents/performance/llama2-7b"))
        #expect(found.endpoint.path == "/agents/performance/{agent}")
        #expect(found.parameters == ["agent": "llama2-7b"])
    }

    @Test(arguments: [
        "/", "", "/agents", "/agents/health/", "/agents/performance", "/agents/performance/",
        "/agents/performance//", "/agents/performance/a/b", "//agents/performance/a",
        "agents/performance/a",
    ])
    func findsNothingElse(path: String) {
        #expect(table.endpoint(for: path) == nil)
    }
}
