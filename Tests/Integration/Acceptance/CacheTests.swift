import Foundation
import Testing
import WeirCore

/// Answers that a gateway keeps, with real processes.
@Suite(.timeLimit(.minutes(2)), .serialized)
struct CacheTests {
    @Test func `the same request costs once, and its user alone gets the answer again`()
        async throws
    {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(budget: "1", maxLease: "0.1")
        try policy.replace(
            "agents.yaml", "  path: /models/ProsusAI/finbert\n",
            with: "  path: /models/ProsusAI/finbert\n  cache: {ttl: 1h}\n")
        let options = Mesh.Options(
            agents: ["finbert", "llama2-7b"], latency: "5", policyFolder: policy.path)
        try await Mesh.run(options) { mesh in
            func ask(_ user: String) async throws -> Endpoint.Answer {
                let answer = try await mesh.analyze(
                    AcceptancePolicy.sentimentOnly, user: user, tier: "acceptance")
                try #require(answer.status == 200, "\(answer.text)")
                return answer
            }
            let first = try await ask("alice")
            #expect(first.header("weir-cache") == nil)
            let again = try await ask("alice")
            #expect(again.header("weir-cache") == "hit")
            #expect(again.header("weir-cost-usd") == "0.000000")
            let steps = try [first, again].map { try $0.json()["steps"]?.array?.first }
            #expect(steps[0]?["result"] == steps[1]?["result"])
            #expect(steps[1]?["attempts"]?.array?.first?["cached"] == true)
            #expect(try await ask("bob").header("weir-cache") == nil)
            #expect(try await mesh.agentAttempts("finbert") == 2)
            let books = try await mesh.settledBooks(of: "alice")
            #expect(books.consumed == AcceptancePolicy.fixedPrice)
            let metrics = try await mesh.gatewayAdmin.get("/metrics").text
            #expect(metrics.contains(#"weir_cache_saved_usd_total{agent="finbert"} 0.00012"#))
            // Another policy may mean another answer.
            try policy.replace("agents.yaml", "cache: {ttl: 1h}", with: "cache: {ttl: 2h}")
            try await mesh.apply(policy.path, wait: true)
            try await eventually("what was kept is kept no more") {
                try await ask("alice").header("weir-cache") == nil
            }
        }
    }
}
