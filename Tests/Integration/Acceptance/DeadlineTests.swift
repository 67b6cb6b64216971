import Foundation
import Testing
import WeirCore

/// A deadline reaches the agent in words, and when it passes the agent is really let go.
@Suite(.timeLimit(.minutes(2)), .serialized)
struct DeadlineTests {
    private func withMesh(_ test: (Mesh) async throws -> Void) async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(budget: "1")
        try policy.replace(
            "agents.yaml", "requestBodyBytesMax: 262144\n",
            with: "requestBodyBytesMax: 262144\n  whenCallerLeaves: cancel\n")
        try await Mesh.run(.init(agents: ["finbert"], policyFolder: policy.path), test)
    }

    private func header(_ name: String, _ mesh: Mesh) async throws -> String? {
        let last = try await mesh.agents.stats("finbert")["last"]
        return last?["headers"]?.array?.first { $0.array?.first?.string == name }?
            .array?.last?.string
    }

    /// The agent would stall for a minute; it sees the end of its connection long before.
    private func agentIsLetGo(_ mesh: Mesh) async throws {
        try await eventually("the agent sees that nobody waits any more", within: .seconds(10)) {
            let stats = try await mesh.agents.stats("finbert")
            return stats["aborted"]?.int64 == 1 && stats["inFlight"]?.int64 == 0
        }
    }

    @Test func `a deadline that passes cancels the agent's request, and it costs`() async throws {
        try await withMesh { mesh in
            try await mesh.agents.setFault("finbert", "stall", times: 1)
            let late = try await mesh.analyze(
                #"{"analysis_type": "sentiment_only", "data": {"text": "Up."}, "#
                    + #""options": {"timeout_ms": 1500}}"#, tier: "acceptance")
            #expect(late.status == 504, "\(late.text)")
            #expect(try late.json()["reason"]?.string == "deadline")
            try await agentIsLetGo(mesh)
            let told = try #require(
                try await header("request-timeout-ms", mesh).flatMap { Int($0) })
            #expect((1...1_500).contains(told))
            // Nobody knows what the agent did until then.
            #expect(
                try await mesh.settledBooks(of: "alice").consumed == AcceptancePolicy.fixedPrice)
            let fine = try await mesh.analyze(AcceptancePolicy.sentimentOnly, tier: "acceptance")
            #expect(fine.status == 200, "one impatient caller opens no circuit")
        }
    }

    @Test func `a caller that leaves cancels, where the policy says so`() async throws {
        try await withMesh { mesh in
            try await mesh.agents.setFault("finbert", "stall", times: 1)
            var connection: RawConnection? = try RawConnection(port: mesh.gatewayPort)
            let headers = mesh.userHeaders("bob", tier: "acceptance")
            try connection?.send(
                "POST /analyze HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
                    + headers.map { "\($0.key): \($0.value)\r\n" }.joined()
                    + "Content-Length: \(AcceptancePolicy.sentimentOnly.utf8.count)\r\n\r\n"
                    + AcceptancePolicy.sentimentOnly)
            try await eventually("the agent works for bob") {
                try await mesh.agents.count("inFlight", of: "finbert") == 1
            }
            connection = nil
            try await agentIsLetGo(mesh)
            #expect(try await mesh.settledBooks(of: "bob").consumed == AcceptancePolicy.fixedPrice)
        }
    }
}
