import Testing
import WeirCore

/// One analysis through gateway, sidecars, control plane and Redis.
@Suite(.timeLimit(.minutes(2)))
struct MeshTests {
    private static let news = """
        {"analysis_type": "news_analysis", "data": {"text": "Apple stock surged 5% after strong \
        quarterly earnings report"}}
        """

    @Test func `news_analysis runs sentiment and then explanation`() async throws {
        try await Mesh.run { mesh in
            let answer = try await mesh.analyze(Self.news)
            #expect(answer.status == 200, "\(answer.text)\n\(mesh.logs)")
            let body = try answer.json()
            #expect(body["status"] == "complete")
            #expect(body["analysis_type"] == "news_analysis")
            let steps = try #require(body["steps"]?.array)
            #expect(steps.map { $0["name"] } == ["sentiment", "explanation"])
            #expect(steps.map { $0["agent"] } == ["finbert", "llama2-7b"])
            #expect(steps.allSatisfy { $0["status"] == "ok" })
            #expect(try await mesh.agents.count("completed", of: "finbert") == 1)
            #expect(try await mesh.agents.count("completed", of: "llama2-7b") == 1)

            // What the steps cost is what the whole costs, to the last n$.
            let total = body["cost"]?["total_usd"]?.string.flatMap { NanoUSD(usd: $0) }
            let parts = steps.compactMap { $0["cost_usd"]?.string.flatMap { NanoUSD(usd: $0) } }
            #expect(parts.count == 2)
            #expect(total == parts.reduce(.zero, +))
            #expect(total.map { $0 > .zero } == true)
        }
    }

    @Test func `what is refused reaches no agent`() async throws {
        try await Mesh.run { mesh in
            let anonymous = try await mesh.gateway.post("/analyze", Self.news)
            #expect(anonymous.status == 401)
            let forged = TestToken.mint(
                user: "alice", tier: "enterprise", key: "another-key-0123456789abcdef01234567")
            let refused = try await mesh.gateway.post(
                "/analyze", Self.news, headers: ["authorization": "Bearer " + forged])
            #expect(refused.status == 401)
            #expect(refused.header("content-type") == "application/problem+json")
            let invalid = try await mesh.analyze(#"{"analysis_type":"news_analysis","data":{}}"#)
            #expect(invalid.status == 422)
            for agent in SampleAgentsProcess.names {
                #expect(try await mesh.agents.count("requests", of: agent) == 0)
            }
        }
    }

    @Test func `a sidecar that was killed comes back by itself`() async throws {
        try await Mesh.run { mesh in
            #expect(try await mesh.analyze(Self.news).status == 200)
            let sidecar = try mesh.part("finbert")
            try await sidecar.process.killAtOnce()
            #expect(try await mesh.analyze(Self.news).status != 200)
            try sidecar.startAgain()
            try await sidecar.ready()
            try await eventually("the mesh serves again", within: .seconds(15)) {
                try await mesh.analyze(Self.news).status == 200
            }
        }
    }
}
