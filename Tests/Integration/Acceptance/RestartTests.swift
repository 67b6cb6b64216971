import Foundation
import Testing
import WeirCore
import WeirMeshProtocol

/// An orderly stop of the whole mesh and a start on the same data change nothing that counts.
@Suite(.timeLimit(.minutes(2)), .serialized)
struct RestartTests {
    @Test func `policy, ledger, bindings and usage are there after a restart`() async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        let budget = NanoUSD(10 * AcceptancePolicy.fixedPrice.rawValue)
        try policy.addFixedPriceTier(budget: budget.usd, maxLease: budget.usd)
        let options = Mesh.Options(agents: ["finbert", "llama2-7b"], policyFolder: policy.path)
        try await Mesh.run(options) { mesh in
            func analyze(tier: String) async throws -> Endpoint.Answer {
                try await mesh.analyze(AcceptancePolicy.sentimentOnly, tier: tier)
            }
            try policy.replace("tiers.yaml", "dailyRequests: 100\n", with: "dailyRequests: 101\n")
            try await mesh.apply(policy.path, wait: true)
            for _ in 0..<4 { #expect(try await analyze(tier: "acceptance").status == 200) }
            let before = try await mesh.settledBooks(of: "alice")
            #expect(before.consumed == NanoUSD(4 * AcceptancePolicy.fixedPrice.rawValue))
            let seenBefore = try await View(mesh)

            try await mesh.restartEverything()

            #expect(try await mesh.settledBooks(of: "alice") == before)
            #expect(try await View(mesh) == seenBefore)
            #expect(seenBefore.policyNumber == 2)
            // What binds a user to a tier is the first sight of her, not a later token.
            for call in 0..<6 {
                // Redis is another process on the same data: a new epoch, which grants nothing
                // before the holders of before have reported, and they are gone.
                let answer = try await eventually("money is granted", within: .seconds(40)) {
                    let answer = try await analyze(tier: call == 0 ? "premium" : "acceptance")
                    return answer.status == 503 ? nil : answer
                }
                #expect(answer.status == 200, "\(answer.text)")
                #expect(try answer.json()["policy_version"]?.int64 == 2)
            }
            let late = try await analyze(tier: "acceptance")
            #expect(late.status == 402)
            #expect(try late.json()["reason"]?.string == "budget_exhausted")
            #expect(try await mesh.settledBooks(of: "alice").consumed == budget)
            #expect(try await mesh.agentAttempts("finbert") == 10)
        }
    }

    /// Longer than a sidecar may be silent: when the control plane returns, it has not heard of
    /// anybody for that long, and takes no agent away for it.
    @Test func `agents stay known while the control plane is away and when it returns`()
        async throws
    {
        try await Mesh.run(Mesh.Options(agents: ["finbert", "llama2-7b"])) { mesh in
            func areKnown(for span: Duration) async throws {
                try await steadily("every agent is known", for: span) {
                    try await mesh.lackingAgents().isEmpty
                }
            }
            try await mesh.controlPlane.process.killAtOnce()
            try await areKnown(for: .milliseconds(MeshLimits.silentMilliseconds + 1_000))
            try mesh.controlPlane.startAgain()
            try await mesh.controlPlane.ready()
            try await areKnown(for: .seconds(4))
            let answer = try await mesh.analyze(AcceptancePolicy.newsAnalysis)
            #expect(answer.status == 200, "\(answer.text)")
        }
    }

    /// What an operator sees through the API, without what names single processes.
    private struct View: Equatable {
        let policyNumber: Int64?
        let policyHash: String?
        let history: [Int64?]
        let usage: JSONValue?
        let states: [String: String]

        init(_ mesh: Mesh) async throws {
            func get(_ path: String) async throws -> JSONValue {
                try await mesh.api.get(path, headers: mesh.adminHeaders).json()
            }
            let policy = try await get("/v1/policy")
            policyNumber = policy["version"]?["number"]?.int64
            policyHash = policy["version"]?["hash"]?.string
            history = (try await get("/v1/policy/history")["versions"]?.array ?? []).map {
                $0["version"]?["number"]?.int64
            }
            usage = try await get("/v1/usage?by=user,agent,tier")["usage"]
            states = (try await get("/v1/sidecars")["sidecars"]?.array ?? []).reduce(into: [:]) {
                $0[$1["agent"]?.string ?? "gateway"] = $1["policy"]?["state"]?.string
            }
        }
    }
}
