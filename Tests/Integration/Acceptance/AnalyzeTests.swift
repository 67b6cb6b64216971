import Testing
import WeirCore

/// An analysis through gateway, sidecars, control plane and Redis, as a user meets it.
@Suite(.timeLimit(.minutes(2)), .serialized)
struct AnalyzeTests {
    @Test func `the example of the platform answers in the documented shape`() async throws {
        try await Mesh.run { mesh in
            let answer = try await mesh.analyze(AcceptancePolicy.newsAnalysis, tier: "free")
            try #require(answer.status == 200, "\(answer.text)")
            let json = try answer.json()
            #expect(json["id"]?.string?.hasPrefix("req_") == true)
            #expect(json["analysis_type"]?.string == "news_analysis")
            #expect(json["status"]?.string == "complete")
            let steps = try #require(json["steps"]?.array)
            #expect(steps.map { $0["name"]?.string } == ["sentiment", "explanation"])
            #expect(steps.map { $0["agent"]?.string } == ["finbert", "llama2-7b"])
            #expect(steps.allSatisfy { $0["status"]?.string == "ok" })
            #expect(steps[0]["cost_usd"]?.string == "0.000120")
            #expect(steps[1]["cost_source"]?.string == "reported")
            #expect(steps[0]["result"]?["label"]?.string == "positive")
            #expect(steps[1]["result"] != nil)
            let costs = steps.compactMap { $0["cost_usd"]?.string.flatMap { NanoUSD(usd: $0) } }
            let total = try #require(
                json["cost"]?["total_usd"]?.string.flatMap { NanoUSD(usd: $0) })
            #expect(costs.reduce(.zero, +) == total)
            let remaining = json["cost"]?["budget_remaining_usd"]?.string.flatMap {
                NanoUSD(usd: $0)
            }
            #expect(remaining == NanoUSD(5 * NanoUSD.nanoPerUSD) - total)
            #expect(json["policy_version"]?.int64 == 1)
            #expect(answer.header("weir-decision") == "admitted")
            #expect(answer.header("weir-cost-usd") == total.usd)
            #expect(answer.header("weir-budget-remaining-usd") == remaining?.usd)
            #expect(answer.header("weir-policy-version") != nil)

            let books = try await mesh.settledBooks(of: "alice")
            #expect(books.consumed == total)
        }
    }

    @Test func `callers without a good token or body are told why`() async throws {
        try await Mesh.run(.init(agents: ["finbert", "llama2-7b"])) { mesh in
            let none = try await mesh.gateway.post("/analyze", AcceptancePolicy.newsAnalysis)
            #expect(none.status == 401)
            #expect(try none.json()["reason"]?.string == "unauthenticated")
            let bad = try await mesh.analyze(#"{"analysis_type": "news_analysis", "data": {}}"#)
            #expect(bad.status == 422)
            #expect(bad.text.contains("text"))
            let unknown = try await mesh.analyze(#"{"analysis_type": "tarot", "data": {}}"#)
            #expect(unknown.status == 422)
            let twice = try await mesh.analyze(#"{"analysis_type": 1, "analysis_type": 2}"#)
            #expect(twice.status == 400)
            #expect(try twice.json()["reason"]?.string == "duplicate_key")
            #expect(try await mesh.gateway.get("/nowhere").status == 404)
            let wrongMethod = try await mesh.gateway.get(
                "/analyze", headers: mesh.userHeaders("alice", tier: "free"))
            #expect(wrongMethod.status == 405)
            #expect(wrongMethod.header("allow") == "POST")
            #expect(try await mesh.gateway.get("/health").status == 200)
            #expect(try await mesh.agentAttempts("finbert") == 0)
        }
    }

    @Test func `an agent's sidecar takes nothing without a delegation`() async throws {
        try await Mesh.run(.init(agents: ["finbert", "llama2-7b"])) { mesh in
            let body = #"{"inputs": "Profits rise."}"#
            let path = "/models/ProsusAI/finbert"
            let direct = try await mesh.sidecar("finbert").post(path, body)
            #expect(direct.status == 401)
            let forged = try await mesh.sidecar("finbert").post(
                path, body, headers: ["weir-delegation": "AQAAAAA.AAAA"])
            #expect(forged.status == 403)
            #expect(try await mesh.agentAttempts("finbert") == 0)
        }
    }
}
