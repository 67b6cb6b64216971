import Foundation
import Testing
import WeirCore

/// A policy change reaches running sidecars; a bad one reaches nobody.
@Suite(.timeLimit(.minutes(3)), .serialized)
struct PolicyTests {
    private let agents = ["finbert", "llama2-7b"]

    @Test func `a change is enforced by running sidecars without a restart`() async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(budget: "1")
        let options = Mesh.Options(agents: agents, policyFolder: policy.path)
        try await Mesh.run(options) { mesh in
            func analyze() async throws -> Endpoint.Answer {
                try await mesh.analyze(AcceptancePolicy.sentimentOnly, tier: "acceptance")
            }
            let before = try await analyze()
            #expect(try before.json()["cost"]?["total_usd"]?.string == "0.000120")
            let pid = try mesh.part("finbert").process.pid

            try policy.replace("prices.yaml", "\"0.000120\"", with: "\"0.000240\"")
            try await mesh.apply(policy.path, wait: true)
            // `--wait` has seen every sidecar's ACK, so the next answer is under the new policy.
            let after = try await analyze()
            #expect(try after.json()["cost"]?["total_usd"]?.string == "0.000240")
            #expect(try after.json()["policy_version"]?.int64 == 2)

            try policy.replace(
                "agents.yaml", "path: /models/ProsusAI/finbert",
                with: "path: /models/ProsusAI/finbert\n"
                    + "  rateLimit: {requestsPerSecond: 0.01, burst: 1}")
            try await mesh.apply(policy.path, wait: true)
            _ = try await analyze()
            let limited = try await analyze()
            #expect(limited.status != 200)
            #expect(limited.text.contains("rate_limited"))
            #expect(try mesh.part("finbert").process.pid == pid)
        }
    }

    @Test func `a bad policy is refused with all its problems and changes nothing`() async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try await Mesh.run(.init(agents: agents, policyFolder: policy.path)) { mesh in
            try policy.replace("tiers.yaml", "monthlyBudget: \"5\"", with: "monthlyBudget: \"-5\"")
            try policy.replace("tiers.yaml", "dailyRequests: 1000", with: "dailyRequests: many")
            try policy.replace(
                "agents.yaml", "protocol: huggingface", with: "protocol: carrier-pigeon")
            let refused = await #expect(throws: TestProcess.Failed.self) {
                try await mesh.apply(policy.path)
            }
            let words = refused?.description ?? ""
            #expect(words.contains("monthlyBudget"))
            #expect(words.contains("dailyRequests"))
            #expect(words.contains("protocol"))
            let current = try await mesh.api.get("/v1/policy", headers: mesh.adminHeaders)
            #expect(try current.json()["version"]?["number"]?.int64 == 1)
            #expect(try await mesh.analyze(AcceptancePolicy.newsAnalysis).status == 200)
        }
    }

    @Test func `a sidecar restarted while the control plane is away serves from disk`() async throws
    {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(budget: "1", maxLease: "0.1")
        try await Mesh.run(.init(agents: agents, policyFolder: policy.path)) { mesh in
            func status() async throws -> Int {
                try await mesh.analyze(AcceptancePolicy.sentimentOnly, tier: "acceptance").status
            }
            // Enough for the gateway to lease ahead of what it spends.
            for _ in 0..<40 { #expect(try await status() == 200) }
            try await mesh.controlPlane.process.killAtOnce()
            let finbert = try mesh.part("finbert")
            try await finbert.process.killAtOnce()
            try finbert.startAgain()
            try await finbert.ready()
            // The gateway goes on inside its leases, the sidecar from its last good policy.
            try await eventually("served without a control plane", within: .seconds(10)) {
                try await status() == 200
            }
            let page = try await mesh.sidecarAdmin("finbert").get("/config").text
            #expect(page.contains("finbert"))
            try mesh.controlPlane.startAgain()
            try await mesh.controlPlane.ready()
            let books = try await mesh.settledBooks(of: "alice", within: .seconds(20))
            #expect(books.consumed.rawValue >= 41 * AcceptancePolicy.fixedPrice.rawValue)
        }
    }
}
