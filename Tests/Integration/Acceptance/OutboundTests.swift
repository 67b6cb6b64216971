import Foundation
import Testing
import WeirCore

/// An agent that calls another one through its sidecar while it works on a request. The test plays
/// the agent: it sees what the sample agent was given, and calls the sidecar's outbound listener.
@Suite(.timeLimit(.minutes(3)), .serialized)
struct OutboundTests {
    private static let chat = #"""
        {"model": "llama", "messages": [{"role": "user", "content": "Is this good news?"}],
         "max_tokens": 20}
        """#

    private func withMesh(maxCost: String, _ test: (Mesh) async throws -> Void) async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(budget: "1")
        try policy.replace(
            "acceptance.yaml", "  agents: [finbert]\n", with: "  agents: [finbert, llama2-7b]\n")
        try policy.replace(
            "agents.yaml", "path: /models/ProsusAI/finbert",
            with: "path: /models/ProsusAI/finbert\n"
                + "  outbound: {agents: [llama2-7b], maxCostPerRequest: \"\(maxCost)\"}")
        var options = Mesh.Options(agents: ["finbert", "llama2-7b"], policyFolder: policy.path)
        options.callingAgents = ["finbert"]
        try await Mesh.run(options, test)
    }

    /// Runs an analysis whose agent takes its time, and `calls` meanwhile, with what the agent was
    /// given.
    private func analysis(
        _ mesh: Mesh, calls: (Endpoint, [String: String]) async throws -> Void
    ) async throws -> Endpoint.Answer {
        try await mesh.agents.reset("finbert")
        try await mesh.agents.setFault("finbert", "slow", argument: 3_500, times: 1)
        async let answer = mesh.analyze(AcceptancePolicy.sentimentOnly, tier: "acceptance")
        let capability = try await eventually("the agent is given a capability") {
            let fields = try await mesh.agents.stats("finbert")["last"]?["headers"]?.array ?? []
            return fields.first { $0.array?.first?.string == "weir-run" }?.array?.last?.string
        }
        try await calls(try mesh.outbound("finbert"), ["weir-run": capability])
        return try await answer
    }

    private func cost(_ answer: Endpoint.Answer) throws -> NanoUSD {
        try #require(answer.header("weir-cost-usd").flatMap { NanoUSD(usd: $0) }, "\(answer.text)")
    }

    @Test func `an agent's own calls are charged to the user, in the same run`() async throws {
        try await withMesh(maxCost: "0.05") { mesh in
            var spent = AcceptancePolicy.fixedPrice
            var given: [String: String] = [:]
            let answer = try await analysis(mesh) { outbound, capability in
                given = capability
                let first = try await outbound.post(
                    "/agents/llama2-7b", Self.chat, headers: capability)
                #expect(first.status == 200, "\(first.text)")
                #expect(try first.json()["choices"]?.array?.count == 1)
                #expect(first.header("weir-budget-remaining-usd") != nil)
                // The model names the agent; a token of the agent's own is not believed.
                let second = try await outbound.post(
                    "/v1/chat/completions", Self.chat,
                    headers: capability.merging(["authorization": "Bearer mine"]) { $1 })
                #expect(second.status == 200, "\(second.text)")
                #expect(second.header("weir-agent") == "llama2-7b")
                spent += try cost(first) + cost(second)

                for (headers, path, status, reason) in [
                    ([:], "/agents/llama2-7b", 403, "forbidden"),
                    (["weir-run": "forged.forged"], "/agents/llama2-7b", 403, "forbidden"),
                    (capability, "/agents/finbert", 403, "agent_not_allowed"),
                    (capability, "/agents/nobody", 404, "unknown_agent"),
                    (capability, "/anywhere", 404, "unknown_route"),
                ] as [([String: String], String, Int, String)] {
                    let refused = try await outbound.post(path, Self.chat, headers: headers)
                    #expect(refused.status == status, "\(path): \(refused.text)")
                    #expect(try refused.json()["reason"]?.string == reason)
                }
                // What only the sidecar may say opens nothing at the gateway itself.
                let direct = try await mesh.gateway.post(
                    "/outbound/agents/llama2-7b", Self.chat,
                    headers: ["authorization": "Weir-Run " + (capability["weir-run"] ?? "")])
                #expect(direct.status == 403)
            }
            #expect(answer.status == 200, "\(answer.text)")
            #expect(try await mesh.agentAttempts("llama2-7b") == 2)
            let late = try await mesh.outbound("finbert").post(
                "/agents/llama2-7b", Self.chat, headers: given)
            #expect(late.status == 403)
            #expect(try await mesh.agentAttempts("llama2-7b") == 2, "nothing was forwarded")

            let books = try await mesh.settledBooks(of: "alice")
            #expect(books.consumed == spent)
            #expect(spent > AcceptancePolicy.fixedPrice)
            let file = SQLiteFile(path: mesh.data("control-plane") + "/archive.sqlite3")
            let rows = try await file.rows("SELECT DISTINCT run FROM records")
            #expect(rows.count == 1)
            let records = try await file.rows("SELECT agent FROM records ORDER BY agent")
            #expect(
                records.compactMap { $0["agent"]?.string } == [
                    "finbert", "llama2-7b", "llama2-7b",
                ])
        }
    }

    @Test func `calls stay within what the policy gives them`() async throws {
        try await withMesh(maxCost: "0.000000100") { mesh in
            let answer = try await analysis(mesh) { outbound, capability in
                let refused = try await outbound.post(
                    "/agents/llama2-7b", Self.chat, headers: capability)
                #expect(refused.status == 402, "\(refused.text)")
                #expect(try refused.json()["reason"]?.string == "budget_exhausted")
                #expect(try cost(refused) == .zero)
            }
            #expect(answer.status == 200)
            #expect(try await mesh.agentAttempts("llama2-7b") == 0)
            let books = try await mesh.settledBooks(of: "alice")
            #expect(books.consumed == AcceptancePolicy.fixedPrice)
        }
    }
}
