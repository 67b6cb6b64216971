import Foundation
import Testing
import WeirCore

/// Observe mode over real processes: what would be refused goes through, is said and is accounted;
/// and a policy that enforces again does so without a restart.
@Suite(.timeLimit(.minutes(3)), .serialized)
struct ObserveTests {
    private static let price = AcceptancePolicy.fixedPrice.rawValue

    private func analyze(_ mesh: Mesh) async throws -> Endpoint.Answer {
        try await mesh.analyze(AcceptancePolicy.sentimentOnly, tier: "acceptance")
    }

    private func beyond(_ mesh: Mesh) async throws -> NanoUSD? {
        let month = Period(.month, at: UnixTime(seconds: Int64(Date().timeIntervalSince1970)))
        return try await mesh.api.get(
            "/v1/accounts?account=usd/user/\(month)/alice", headers: mesh.adminHeaders
        ).json()["beyond"]?.string.flatMap { NanoUSD(usd: $0) }
    }

    @Test func `a budget that is observed is passed, accounted, and enforced by the next policy`()
        async throws
    {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(budget: NanoUSD(3 * Self.price).usd)
        try policy.replace(
            "acceptance.yaml", "agents: [finbert]",
            with: "agents: [finbert]\n  dailyRequests: 4\n  observe: true")
        let options = Mesh.Options(agents: ["finbert", "llama2-7b"], policyFolder: policy.path)
        try await Mesh.run(options) { mesh in
            var decisions: [String] = []
            for _ in 0..<6 {
                let answer = try await analyze(mesh)
                #expect(answer.status == 200, "\(answer.text)")
                decisions.append(answer.header("weir-decision") ?? "-")
                #expect(
                    try answer.json()["cost"]?["total_usd"]?.string
                        == NanoUSD(Self.price).usd)
            }
            let both = "observed:quota_exhausted, observed:budget_exhausted"
            let budget = "observed:budget_exhausted"
            #expect(decisions == ["admitted", "admitted", "admitted", budget, both, both])
            let books = try await mesh.settledBooks(of: "alice")
            #expect(books.limit == NanoUSD(3 * Self.price))
            #expect(books.consumed == NanoUSD(6 * Self.price))
            #expect(try await beyond(mesh) == NanoUSD(3 * Self.price))
            let gateway = try await mesh.gatewayAdmin.get("/metrics").text
            #expect(
                gateway.contains(
                    #"weir_observed_total{agent="-",tier="acceptance",reason="budget_exhausted"} 3"#
                ))

            try policy.replace("acceptance.yaml", "  observe: true\n", with: "")
            try await mesh.apply(policy.path, wait: true)
            let held = try await analyze(mesh)
            #expect(held.status == 429 || held.status == 402, "\(held.text)")
            try policy.replace("acceptance.yaml", "dailyRequests: 4", with: "dailyRequests: 400")
            try await mesh.apply(policy.path, wait: true)
            try await eventually(
                "the budget refuses", within: .seconds(25), every: .milliseconds(500)
            ) {
                try await analyze(mesh).status == 402
            }
            #expect(try await mesh.agentAttempts("finbert") == 6)
            #expect(try await mesh.settledBooks(of: "alice").consumed == books.consumed)
        }
    }

    @Test func `a mesh that observes refuses nothing at gateway and sidecar, but the forbidden`()
        async throws
    {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(budget: "1", maxLease: "0.1")
        try policy.replace(
            "agents.yaml", "path: /models/ProsusAI/finbert",
            with: "path: /models/ProsusAI/finbert\n"
                + "  rateLimit: {requestsPerSecond: 0.01, burst: 1}")
        let mesh = """
            apiVersion: weir.mesh/v1
            kind: Mesh
            metadata: {name: acceptance}
            spec: {observe: true}
            """
        try policy.add("mesh.yaml", mesh)
        let options = Mesh.Options(agents: ["finbert", "llama2-7b"], policyFolder: policy.path)
        try await Mesh.run(options) { mesh in
            #expect(try await analyze(mesh).header("weir-decision") == "admitted")
            let watched = try await analyze(mesh)
            #expect(watched.status == 200)
            #expect(watched.header("weir-decision") == "observed:rate_limited")
            let step = try watched.json()["steps"]?.array?.first
            let attempt = step?["attempts"]?.array?.first
            #expect(attempt?["outcome"]?.string == "ok")
            #expect(attempt?["observed"]?.string == "rate_limited")
            let metrics = try await mesh.sidecarAdmin("finbert").get("/metrics").text
            #expect(metrics.contains(#"weir_observed_total{agent="finbert",tier="acceptance","#))
            _ = try await mesh.settledBooks(of: "alice")
            let records = try await mesh.weir(["get", "usage"])
            #expect(!records.isEmpty)

            // Circuits, too: an agent that fails is asked again and again.
            try await mesh.agents.setFault("finbert", "fail", argument: 500, times: 6)
            for _ in 0..<6 { #expect(try await analyze(mesh).status == 502) }
            #expect(try await analyze(mesh).status == 200)
            #expect(try await mesh.agentAttempts("finbert") == 9)
            // Neither identity nor form is a limit.
            let nobody = try await mesh.gateway.post("/analyze", AcceptancePolicy.sentimentOnly)
            #expect(nobody.status == 401)
            let malformed = try await mesh.analyze("{", tier: "acceptance")
            #expect(malformed.status == 400)

            try policy.replace("mesh.yaml", "observe: true", with: "observe: false")
            try await mesh.apply(policy.path, wait: true)
            let refused = try await analyze(mesh)
            #expect(refused.status != 200)
            #expect(refused.text.contains("rate_limited") || refused.text.contains("circuit_open"))
        }
    }
}
