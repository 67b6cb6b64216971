import Foundation
import Testing
import WeirCore

/// Users' own endpoints, keys and budgets over real processes.
@Suite(.timeLimit(.minutes(3)), .serialized)
struct AccountTests {
    private static let options: Mesh.Options = {
        var options = Mesh.Options()
        options.agents = ["finbert", "llama2-7b"]
        return options
    }()

    private func bearer(_ key: String) -> [String: String] { ["authorization": "Bearer " + key] }

    private func dailyRequests(_ mesh: Mesh, _ user: String) async throws -> Int64 {
        let day = Period(.day, at: UnixTime(seconds: Int64(Date().timeIntervalSince1970)))
        let answer = try await mesh.api.get(
            "/v1/accounts?account=requests/user/\(day)/\(user)", headers: mesh.adminHeaders)
        return try answer.json()["consumed"]?.int64 ?? 0
    }

    @Test func `a replay costs nothing and counts no request`() async throws {
        try await Mesh.run(Self.options) { mesh in
            let key = ["idempotency-key": "order-1"]
            let first = try await mesh.analyze(AcceptancePolicy.newsAnalysis, headers: key)
            #expect(first.status == 200, "\(first.text)")
            let books = try await mesh.settledBooks(of: "alice")
            let calls = try await mesh.agentAttempts("finbert")
            for _ in 0..<3 {
                let again = try await mesh.analyze(AcceptancePolicy.newsAnalysis, headers: key)
                #expect(again.status == 200)
                #expect(again.text == first.text)
                #expect(again.header("weir-idempotent-replayed") == "true")
                #expect(again.header("weir-cost-usd") == "0.000000")
            }
            #expect(try await mesh.agentAttempts("finbert") == calls)
            #expect(try await mesh.settledBooks(of: "alice").consumed == books.consumed)
            try await eventually("the day's requests are told") {
                try await dailyRequests(mesh, "alice") == 1
            }
            let other = try await mesh.analyze(
                AcceptancePolicy.newsAnalysis.replacingOccurrences(of: "5%", with: "6%"),
                headers: key)
            #expect(other.status == 422)
            // The key is alice's: bob's is another one.
            let bobs = try await mesh.analyze(
                AcceptancePolicy.newsAnalysis, user: "bob", headers: key)
            #expect(bobs.header("weir-idempotent-replayed") == nil)
        }
    }

    @Test func `a key works until it is revoked and spends no more than its own budget`()
        async throws
    {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(budget: "10", maxLease: "1")
        var options = Self.options
        options.policyFolder = policy.path
        try await Mesh.run(options) { mesh in
            let budget = NanoUSD(5 * AcceptancePolicy.fixedPrice.rawValue)
            let made = try await mesh.weir([
                "key", "create", "--user", "robot", "--tier", "acceptance", "--budget", budget.usd,
                "--note", "nightly batch", "-o", "json",
            ])
            let key = try JSON.parse(made)
            let headers = bearer(try #require(key["key"]?.string))
            let id = try #require(key["id"]?.string)
            var statuses: [Int] = []
            for _ in 0..<100 {
                let answer = try await mesh.gateway.post(
                    "/analyze", AcceptancePolicy.sentimentOnly, headers: headers)
                statuses.append(answer.status)
                if answer.status == 402 {
                    #expect(answer.text.contains("usd/key/"))
                    break
                }
            }
            #expect(statuses.count { $0 == 200 } == 5)
            #expect(statuses.last == 402)
            let books = try await mesh.settledBooks(of: "robot")
            #expect(books.consumed == budget && books.limit == NanoUSD(usd: "10"))
            // The user's token is not bound to the key's budget.
            let token = try await mesh.analyze(
                AcceptancePolicy.sentimentOnly, user: "robot", tier: "free")
            #expect(token.status == 200, "\(token.text)")

            #expect(try await mesh.weir(["key", "list", "--user", "robot"]).contains(id))
            try await mesh.weir(["key", "revoke", id, "--reason", "test"])
            let revokedAt = ContinuousClock.now
            try await eventually("the gateway refuses the key", within: .seconds(5)) {
                try await mesh.gateway.get("/agents/preferences", headers: headers).status == 401
            }
            print("a revoked key was refused after \(ContinuousClock.now - revokedAt)")
            let unknown = try await mesh.gateway.get(
                "/agents/preferences", headers: bearer("weir_unknown"))
            #expect(unknown.status == 401)
            #expect(try unknown.json()["reason"] == "unauthenticated")
            let log = try await mesh.weir(["get", "admin-log"])
            #expect(log.contains("api_key.create") && log.contains("nightly batch"))
            #expect(log.contains("api_key.revoke"))
        }
    }

    @Test func `a lowered budget refuses within seconds and a raised one serves at once`()
        async throws
    {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        // One lease of everything: what is in hand must not outlive the change.
        try policy.addFixedPriceTier(budget: "10", maxLease: "10")
        var options = Self.options
        options.policyFolder = policy.path
        try await Mesh.run(options) { mesh in
            func analyze() async throws -> Endpoint.Answer {
                try await mesh.analyze(
                    AcceptancePolicy.sentimentOnly, user: "carol", tier: "acceptance")
            }
            #expect(try await analyze().status == 200)
            let user = mesh.userHeaders("carol", tier: "acceptance")
            let lowered = try await mesh.gateway.post(
                "/budget/update", #"{"monthly_limit_usd": "0.000130", "reason": "enough"}"#,
                headers: user)
            #expect(lowered.status == 200, "\(lowered.text)")
            #expect(try lowered.json()["monthly_limit_usd"] == "0.000130")
            let loweredAt = ContinuousClock.now
            // The traffic goes on, so nothing becomes idle.
            try await eventually("the lowered budget refuses", within: .seconds(5)) {
                try await analyze().status == 402
            }
            print("a lowered budget refused after \(ContinuousClock.now - loweredAt)")
            #expect(try await analyze().status == 402)
            let others = try await mesh.gateway.post(
                "/budget/update", #"{"monthly_limit_usd": "1", "user": "alice"}"#, headers: user)
            #expect(others.status == 403)
            #expect(others.text.contains("admin"))

            let raised = try await mesh.gateway.post(
                "/budget/update", #"{"monthly_limit_usd": null}"#, headers: user)
            #expect(raised.status == 200)
            let raisedAt = ContinuousClock.now
            try await eventually("the raised budget serves", within: .seconds(5)) {
                try await analyze().status == 200
            }
            print("a raised budget served after \(ContinuousClock.now - raisedAt)")
            let log = try await mesh.weir(["get", "admin-log"])
            #expect(log.contains("enough") && log.contains("carol"))
        }
    }

    @Test func `preferences are checked against the tier and kept`() async throws {
        try await Mesh.run(Self.options) { mesh in
            let user = mesh.userHeaders("dora", tier: "premium")
            let wrong = try await mesh.gateway.post(
                "/agents/preferences",
                #"{"prefer": {"explanation": "risk", "dance": "risk"}, "optimize": "fame"}"#,
                headers: user)
            #expect(wrong.status == 422)
            let pointers = try wrong.json()["errors"]?.array?.compactMap { $0["pointer"]?.string }
            #expect(pointers == ["/optimize", "/prefer/dance", "/prefer/explanation"])
            let kept = try await mesh.gateway.post(
                "/agents/preferences",
                #"{"prefer": {"explanation": "llama2-7b"}, "max_cost_usd_per_request": "0.5"}"#,
                headers: user)
            #expect(kept.status == 200, "\(kept.text)")
            let read = try await mesh.gateway.get("/agents/preferences", headers: user)
            #expect(try read.json() == kept.json())
            #expect(try read.json()["max_cost_usd_per_request"] == "0.500000")
            let stranger = try await mesh.gateway.get("/agents/preferences")
            #expect(stranger.status == 401)
        }
    }

    @Test func `without the control plane users' endpoints say when to come again`()
        async throws
    {
        try await Mesh.run(Self.options) { mesh in
            let user = mesh.userHeaders("eve", tier: "premium")
            #expect(try await mesh.gateway.get("/agents/preferences", headers: user).status == 200)
            try await mesh.controlPlane.process.killAtOnce()
            try await eventually("the gateway knows") {
                let answer = try await mesh.gateway.get("/agents/preferences", headers: user)
                return answer.status == 503
                    && answer.header("retry-after") == "1"
                    && answer.text.contains("control_plane_lost")
            }
            // What was promised once cannot be looked up: nothing is carried out.
            let calls = try await mesh.agentAttempts("finbert")
            let keyed = try await mesh.analyze(
                AcceptancePolicy.newsAnalysis, user: "eve", headers: ["idempotency-key": "k"])
            #expect(keyed.status == 503)
            #expect(try await mesh.agentAttempts("finbert") == calls)
        }
    }

    @Test func `a tier set by the administrator holds against the token`() async throws {
        try await Mesh.run(Self.options) { mesh in
            #expect(
                try await mesh.analyze(
                    AcceptancePolicy.newsAnalysis, user: "fred", tier: "free"
                ).status == 200)
            let set = try await mesh.weir([
                "user", "set-tier", "fred", "premium", "--reason", "paid",
            ])
            #expect(set.contains("premium") && set.contains("100.000000"))
            let limited = try await mesh.weir(["user", "set-limit", "fred", "42.50"])
            #expect(limited.contains("42.500000"))
            #expect(try await mesh.weir(["user", "get", "fred"]).contains("42.500000"))
            // The gateway holds a binding to free until it is told; the token still says free.
            try await eventually("the gateway knows the tier", within: .seconds(5)) {
                let answer = try await mesh.gateway.post(
                    "/agents/preferences", #"{"exclude": ["gpt4-turbo"]}"#,
                    headers: mesh.userHeaders("fred", tier: "free"))
                return answer.status == 200
            }
        }
    }
}
