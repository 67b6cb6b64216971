import Foundation
import Testing
import WeirCore

/// A budget is never overspent, and nobody is refused while money is left.
@Suite(.timeLimit(.minutes(3)), .serialized)
struct BudgetTests {
    private struct Tally {
        var served = 0
        var spent = NanoUSD.zero
        var refused: [String: Int] = [:]
    }

    /// `count` requests of one user at once.
    private func storm(_ mesh: Mesh, count: Int, user: String) async throws -> Tally {
        try await withThrowingTaskGroup(of: Endpoint.Answer.self) { group in
            for _ in 0..<count {
                group.addTask {
                    try await mesh.analyze(
                        AcceptancePolicy.sentimentOnly, user: user, tier: "acceptance")
                }
            }
            var tally = Tally()
            for try await answer in group {
                if answer.status == 200 {
                    tally.served += 1
                    let text = try answer.json()["cost"]?["total_usd"]?.string ?? ""
                    tally.spent += try #require(NanoUSD(usd: text))
                } else {
                    let reason = try answer.json()["reason"]?.string ?? answer.text
                    tally.refused["\(answer.status) \(reason)", default: 0] += 1
                }
            }
            return tally
        }
    }

    @Test func `200 at once on a budget for exactly 40 serve exactly 40`() async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        let budget = NanoUSD(40 * AcceptancePolicy.fixedPrice.rawValue)
        try policy.addFixedPriceTier(budget: budget.usd, maxLease: budget.usd)
        var options = Mesh.Options(
            agents: ["finbert", "llama2-7b"], latency: "12", policyFolder: policy.path)
        // The gateway sheds above 100 by default, and this is about money.
        options.environment["gateway"] = ["MAX_CONCURRENT_REQUESTS": "400"]
        try await Mesh.run(options) { mesh in
            let tally = try await storm(mesh, count: 200, user: "alice")
            #expect(tally.served == 40)
            #expect(tally.spent == budget)
            #expect(tally.refused == ["402 budget_exhausted": 160])
            // The answers, Redis and the records agree to the n$, and so does the agent.
            let books = try await mesh.settledBooks(of: "alice")
            #expect(books.consumed == budget)
            #expect(books.limit == budget)
            #expect(try await mesh.agentAttempts("finbert") == 40)
            // The sidecar's own count; the records above were shipped from its journal's files.
            let metrics = try await mesh.sidecarAdmin("finbert").get("/metrics").text
            let charged = metrics.split(separator: "\n")
                .filter { $0.hasPrefix("cost_usd_total{") }
                .compactMap { $0.split(separator: " ").last.flatMap { Double($0) } }
                .reduce(0, +)
            #expect(Int64((charged * 1e9).rounded()) == budget.rawValue)
            let late = try await mesh.analyze(
                AcceptancePolicy.sentimentOnly, user: "alice", tier: "acceptance")
            #expect(late.status == 402)
            #expect(late.text.contains("resets_at"))
        }
    }

    @Test func `from the tier's shares on answers warn, and operators are told once`()
        async throws
    {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        let budget = NanoUSD(10 * AcceptancePolicy.fixedPrice.rawValue)
        try policy.addFixedPriceTier(
            budget: budget.usd, maxLease: budget.usd, more: "warnAtPercent: [50, 90]")
        let options = Mesh.Options(
            agents: ["finbert", "llama2-7b"], latency: "5", policyFolder: policy.path)
        try await Mesh.run(options) { mesh in
            var warnings: [String?] = []
            for _ in 0..<10 {
                // The rest of the budget may be on its way back to the account: then come again.
                let answer = try await eventually("the call is served") {
                    let answer = try await mesh.analyze(
                        AcceptancePolicy.sentimentOnly, user: "alice", tier: "acceptance")
                    return answer.status == 200 ? answer : nil
                }
                warnings.append(answer.header("weir-budget-warning"))
            }
            let shares = [50, 60, 70, 80, 90, 100]
            #expect(
                warnings == [nil, nil, nil, nil] + shares.map { "user/month \($0)%" })
            let stream = try await mesh.analyze(
                AcceptancePolicy.sentimentOnly, user: "alice", tier: "acceptance",
                headers: ["accept": "text/event-stream"])
            #expect(stream.header("weir-budget-warning") == "user/month 100%")

            let metrics = try await mesh.gatewayAdmin.get("/metrics").text
            for share in [50, 90] {
                let labels = #"{scope="user",tier="acceptance",percent="\#(share)"} 1"#
                #expect(metrics.contains("weir_budget_warnings_total" + labels))
            }
            let gateway = try mesh.part("gateway")
            try await eventually("both crossings are in the log") {
                gateway.log.split(separator: "\n").count {
                    $0.contains("an account has reached a share of its limit")
                } == 2
            }
        }
    }

    @Test func `with small leases nobody overspends and a patient user gets all`() async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        let budget = NanoUSD(40 * AcceptancePolicy.fixedPrice.rawValue)
        // The default maxLease: a twentieth, so two calls of 40 at a time.
        try policy.addFixedPriceTier(budget: budget.usd)
        var options = Mesh.Options(
            agents: ["finbert", "llama2-7b"], latency: "5", policyFolder: policy.path)
        options.environment["gateway"] = ["MAX_CONCURRENT_REQUESTS": "400"]
        try await Mesh.run(options) { mesh in
            let tally = try await storm(mesh, count: 200, user: "bob")
            #expect(tally.served <= 40)
            var served = tally.served
            // Contended requests are told to come again; who does gets the rest of the budget.
            try await eventually("the budget is used up", within: .seconds(30)) {
                let answer = try await mesh.analyze(
                    AcceptancePolicy.sentimentOnly, user: "bob", tier: "acceptance")
                if answer.status == 200 { served += 1 }
                return answer.status == 402
            }
            #expect(served == 40)
            let books = try await mesh.settledBooks(of: "bob")
            #expect(books.consumed == budget)
            #expect(try await mesh.agentAttempts("finbert") == 40)
        }
    }
}
