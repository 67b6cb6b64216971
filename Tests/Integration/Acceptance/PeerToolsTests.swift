import Foundation
import Testing
import WeirCore

/// The control plane as tools of others meet it: a tester of OpenAPI documents, and curl.
@Suite(.timeLimit(.minutes(4)), .serialized)
struct PeerToolsTests {
    /// A tester of OpenAPI documents.
    private static let schemathesis = PythonTool(
        name: "schemathesis", requirement: "schemathesis>=4,<5")

    @Test(
        .enabled("schemathesis cannot be installed from PyPI; see scripts/test") {
            await Self.schemathesis.install()
        })
    func `the API does what its OpenAPI document says`() async throws {
        try await Mesh.run(.init(agents: ["finbert"])) { mesh in
            let folder = try TemporaryFolder()
            defer { folder.remove() }
            // If-Match is looked at before the body (RFC 9110 §13.2.1), so 412 refuses as well.
            let settings = try folder.write(
                "schemathesis.toml",
                """
                [checks.negative_data_rejection]
                expected-statuses = [400, 401, 403, 404, 405, 406, 409, 412, 415, 422]
                """)
            // A policy, a version to go back to and an If-Match can be right by their schemas and
            // wrong all the same, so not all that a schema allows has to be accepted.
            let result = try await Tools.run(
                Self.schemathesis.path,
                [
                    "--config-file", settings, "run", mesh.api.base + "/openapi.json", "--phases",
                    "examples,coverage,fuzzing",
                    "--max-examples", "10", "--seed", "1", "--checks", "all",
                    "--exclude-checks", "positive_data_acceptance",
                    "--suppress-health-check", "all", "--request-timeout", "10", "--no-color",
                    "--header", "Authorization: Bearer \(Mesh.adminToken)",
                ], environment: ["HOME": folder.path], within: .seconds(90))
            #expect(result.status == 0, "\(result.output.suffix(20_000))")
        }
    }

    @Test func `curl reads the watch of the policy`() async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try await Mesh.run(.init(agents: ["finbert"], policyFolder: policy.path)) { mesh in
            let curl = try Tools.path("curl")
            let common = ["-sS", "-N", "--http2-prior-knowledge", "--max-time", "30"]
            let base = "http://127.0.0.1:\(mesh.meshPort)/mesh/v1/"
            let request: JSONValue = [
                "protocolVersions": [1], "credential": .string(Mesh.joinToken),
                "role": "agent", "agent": "finbert", "endpoint": "127.0.0.1:9",
                "instance": "curl",
            ]
            let joined = try await Tools.run(
                curl,
                common + [
                    "-H", "Content-Type: application/json", "-d", request.text, base + "join",
                ])
            let session = try #require(
                try JSON.parse(joined.output)["session"]?.string, "\(joined.output)")
            let watch = try TestProcess(
                "watch", executable: curl,
                arguments: common + [
                    "-H", "Authorization: Bearer \(session)", base + "policy?watch",
                ], folder: folder)
            do {
                let first = try await watch.line(containing: "\"number\":1")
                let projection = try JSON.parse(first)["projection"]
                #expect(first.contains("ProsusAI/finbert"))
                // Only what concerns this agent, and no keys of anybody.
                #expect(!first.contains("gpt-4-turbo") && !first.contains("hopKey"))
                #expect(projection != nil, "\(first)")
                _ = try await watch.line(containing: "bookmark")
                try policy.replace("prices.yaml", "\"0.000120\"", with: "\"0.000130\"")
                try await mesh.apply(policy.path)
                let second = try await watch.line(containing: "0.000130")
                #expect(second.contains("\"number\":2"))
            } catch {
                await watch.dispose()
                throw error
            }
            await watch.dispose()
            let none = try await Tools.run(
                curl, common + ["-o", "/dev/null", "-w", "%{http_code}", base + "policy?watch"])
            #expect(none.output == "401")
        }
    }
}
