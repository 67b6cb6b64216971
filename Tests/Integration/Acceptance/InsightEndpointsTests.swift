import Foundation
import Testing
import WeirCore

/// The endpoints that show what is going on, over real processes: who may see what, and that the
/// figures are those of the calls that were made.
@Suite(.timeLimit(.minutes(4)), .serialized)
struct InsightEndpointsTests {
    private func headers(_ user: String, roles: [String] = []) -> [String: String] {
        let token = TestToken.mint(
            user: user, tier: "enterprise", key: Mesh.userKey,
            claims: ["roles": .array(roles.map(JSONValue.string))])
        return ["authorization": "Bearer " + token]
    }

    private func withMesh(_ test: (Mesh) async throws -> Void) async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.replace(
            "agents.yaml", "breaker: {consecutiveFailures: 5, open: 5s, openMax: 120s}",
            with: "breaker: {consecutiveFailures: 2, open: 60s, openMax: 120s}")
        try await Mesh.run(
            .init(agents: ["finbert", "llama2-7b", "gpt4-turbo"], policyFolder: policy.path), test)
    }

    private func get(
        _ path: String, _ mesh: Mesh, roles: [String] = [], user: String = "alice"
    ) async throws -> JSONValue {
        let answer = try await mesh.gateway.get(path, headers: headers(user, roles: roles))
        try #require(answer.status == 200, "\(path): \(answer.text)")
        return try answer.json()
    }

    @Test func `an open breaker, a fallback and the costs are in stats`() async throws {
        try await withMesh { mesh in
            try await mesh.agents.setFault("gpt4-turbo", "fail", argument: 500)
            for _ in 0..<3 {
                let answer = try await mesh.analyze(
                    AcceptancePolicy.newsAnalysis, tier: "enterprise")
                try #require(answer.status == 200, "\(answer.text)")
            }
            let books = try await mesh.settledBooks(of: "alice")
            var stats = JSONValue.null
            try await eventually("the reports have it") {
                stats = try await get("/stats", mesh, roles: ["operator"])
                let gpt = stats["agents"]?.array?.first { $0["agent"] == "gpt4-turbo" }
                return stats["requests"]?["total"] == 3
                    && gpt?["breakers"]?.array?.first?["state"] == "open"
            }
            #expect(stats["scope"] == "mesh")
            #expect(stats["requests"]?["by_status"] == ["complete": 3])
            #expect(stats["requests"]?["by_tier"] == ["enterprise": 3])
            #expect(stats["fallbacks"]?["total"] == 3)
            let reasons = stats["fallbacks"]?["list"]?.array?.map { $0["reason"]?.string }
            #expect(Set(reasons ?? []) == ["upstream_error", "circuit_open"])
            #expect(stats["gateways"]?.array?.count == 1)
            #expect(stats["policy"]?["refused_by"] == [])
            #expect(stats["health"]?["parts"]?.array?.count == 5)
            #expect((stats["health"]?["system_health_score"]?.double ?? 1) < 0.6)
            #expect(stats["costs"]?["total_usd"]?.string == books.consumed.usd)
            let tiers = stats["costs"]?["by_tier"]?.array ?? []
            #expect(tiers.map { $0["tier"]?.string } == ["enterprise"])
            #expect(
                try await mesh.gateway.get("/stats", headers: headers("alice")).status == 403)
            #expect(try await mesh.gateway.get("/stats").status == 401)

            // Without the control plane: this gateway alone, and it says so.
            try await mesh.controlPlane.process.killAtOnce()
            try await eventually("the gateway speaks for itself", within: .seconds(30)) {
                stats = try await get("/stats", mesh, roles: ["operator"])
                return stats["scope"] == "gateway"
            }
            #expect(stats["requests"]?["total"] == 3)
            #expect(stats["costs"]?["reason"]?.string != nil)
        }
    }

    @Test func `costs agree with the ledger to the n$`() async throws {
        try await withMesh { mesh in
            for _ in 0..<2 {
                let answer = try await mesh.analyze(
                    AcceptancePolicy.newsAnalysis, tier: "enterprise")
                try #require(answer.status == 200, "\(answer.text)")
            }
            let books = try await mesh.settledBooks(of: "alice")
            let costs = try await get("/cost/breakdown?by=agent,type", mesh)
            #expect(costs["total_usd"]?.string == books.consumed.usd)
            #expect(costs["ledger"]?["consumed_usd"]?.string == books.consumed.usd)
            #expect(costs["ledger"]?["recorded_usd"]?.string == books.consumed.usd)
            #expect(costs["ledger"]?["not_yet_recorded_usd"] == "0.000000")
            #expect(costs["ledger"]?["not_yet_settled_usd"] == "0.000000")
            // What lies idle with the gateway is set aside, too.
            #expect(costs["ledger"]?["outstanding_usd"]?.string == books.held.usd)
            let rows = costs["breakdown"]?.array ?? []
            #expect(Set(rows.compactMap { $0["agent"]?.string }) == ["finbert", "gpt4-turbo"])
            #expect(rows.allSatisfy { $0["type"] == "news_analysis" && $0["attempts"] == 2 })
            let sum = rows.compactMap { $0["cost_usd"]?.string.flatMap { NanoUSD(usd: $0) } }
                .reduce(.zero, +)
            #expect(sum == books.consumed)

            // Bob sees nothing of it; an operator does.
            #expect(
                try await get("/cost/breakdown", mesh, user: "bob")["total_usd"] == "0.000000")
            let path = "/cost/breakdown?user=alice"
            #expect(
                try await mesh.gateway.get(path, headers: headers("bob")).status == 403)
            let seen = try await get(path, mesh, roles: ["operator"], user: "bob")
            #expect(seen["total_usd"]?.string == books.consumed.usd)

            let history = try await get("/agents/performance/finbert?window=24h", mesh)
            #expect(history["attempts"] == 2 && history["success_rate"] == 1)
            #expect(history["cost_per_request_usd"] == "0.000120")
            #expect(history["hours"]?.array?.isEmpty == false)
            for (path, status) in [
                ("/agents/performance/ghost", 404), ("/agents/performance/finbert?window=1y", 422),
                ("/cost/breakdown?by=", 422), ("/cost/breakdown?by=agent&by=day", 400),
            ] {
                let answer = try await mesh.gateway.get(path, headers: headers("alice"))
                #expect(answer.status == status, "\(path): \(answer.text)")
            }
            let wrong = try await mesh.gateway.get(
                "/cost/breakdown?by=moon&from=x", headers: headers("alice"))
            let pointers = try wrong.json()["errors"]?.array?.compactMap { $0["pointer"]?.string }
            #expect(pointers == ["/query/by", "/query/from"])

            let suggestions = try await get("/cost/suggestions", mesh)
            #expect(suggestions["suggestions"] == [])
            #expect(suggestions["reason"]?.string?.contains("4 attempts") == true)
            for path in ["/cost/breakdown", "/cost/suggestions", "/agents/performance/finbert"] {
                #expect(try await mesh.gateway.get(path).status == 401)
            }
        }
    }

    @Test func `a test of an agent is a real call that the mesh pays for`() async throws {
        try await Mesh.run { mesh in
            let operators = headers("olga", roles: ["operator"]).merging([
                "content-type": "application/json"
            ]) { $1 }
            func test(_ agent: String) async throws -> JSONValue {
                let answer = try await mesh.gateway.post(
                    "/agents/test", #"{"agent": "\#(agent)"}"#, headers: operators)
                try #require(answer.status == 200, "\(answer.text)")
                return try answer.json()
            }
            var total = NanoUSD.zero
            for agent in SampleAgentsProcess.names {
                let tested = try await test(agent)
                #expect(tested["outcome"] == "ok", "\(tested.text)")
                #expect(tested["answer"]?.object != nil || tested["answer"]?.array != nil)
                let cost = try #require(
                    tested["cost_usd"]?.string.flatMap { NanoUSD(usd: $0) })
                #expect(cost > .zero)
                total += cost
                #expect(try await mesh.agentAttempts(agent) == 1)
            }
            let refused = try await mesh.gateway.post(
                "/agents/test", #"{"agent": "finbert"}"#,
                headers: headers("alice").merging(["content-type": "application/json"]) { $1 })
            #expect(refused.status == 403)

            let month = Period(.month, at: UnixTime(seconds: Int64(Date().timeIntervalSince1970)))
            try await eventually("the mesh's account has all of it") {
                let account = try await mesh.api.get(
                    "/v1/accounts?account=usd/mesh/\(month)/agent-tests",
                    headers: mesh.adminHeaders)
                return try account.json()["consumed"]?.string == total.usd
            }
            // Olga asked, and paid nothing.
            let own = try await get("/cost/breakdown", mesh, user: "olga")
            #expect(own["total_usd"] == "0.000000")
            let records = try await get(
                "/cost/breakdown?user=mesh&by=type", mesh, roles: ["operator"], user: "olga")
            #expect(records["total_usd"]?.string == total.usd)
            #expect(records["breakdown"]?.array?.first?["type"] == "agent_test")

            try await mesh.agents.setFault("risk", "fail", argument: 500)
            let failed = try await test("risk")
            #expect(failed["outcome"] == "upstream_error")
        }
    }
}
