import Foundation
import Testing
import WeirCore

/// `weir cost reconcile` on a mesh of real processes: right books are called right while money is
/// spent, and what somebody changed is found and named.
@Suite(.timeLimit(.minutes(3)), .serialized)
struct ReconcileTests {
    private func reconcile(_ mesh: Mesh, wait: Int) async throws -> (status: Int32, body: JSONValue)
    {
        let result = try await Tools.run(
            Products.path("weir"),
            [
                "--server", "http://127.0.0.1:\(mesh.apiPort)", "cost", "reconcile", "--wait",
                String(wait), "--all", "-o", "json",
            ],
            environment: ["WEIR_ADMIN_TOKEN": Mesh.adminToken])
        return (result.status, (try? JSON.parse(result.output)) ?? .string(result.output))
    }

    private func account(_ name: String, _ body: JSONValue) -> JSONValue? {
        body["accounts"]?.array?.first { $0["account"]?.string?.hasSuffix("/" + name) ?? false }
    }

    @Test func `users, a tenant's Budget and the tests of agents agree; changes are found`()
        async throws
    {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(budget: "1", maxLease: "0.1")
        try policy.add(
            "tier-budget.yaml",
            """
            apiVersion: weir.mesh/v1
            kind: Budget
            metadata:
              name: all-of-acceptance
            spec:
              scope: tier
              id: acceptance
              monthlyLimit: "5"
            """)
        let options = Mesh.Options(
            agents: ["finbert", "llama2-7b"], latency: "5", policyFolder: policy.path)
        try await Mesh.run(options) { mesh in
            for user in ["alice", "bob", "alice"] {
                let answer = try await mesh.analyze(
                    AcceptancePolicy.sentimentOnly, user: user, tier: "acceptance")
                try #require(answer.status == 200)
            }
            let tested = try await mesh.gateway.post(
                "/agents/test", #"{"agent": "finbert"}"#,
                headers: [
                    "authorization": "Bearer "
                        + TestToken.mint(
                            user: "olga", tier: "premium", key: Mesh.userKey,
                            claims: ["roles": ["operator"]])
                ])
            try #require(tested.status == 200, "\(tested.text)")

            // What is neither settled nor recorded yet is no difference: wait for all of it.
            let price = AcceptancePolicy.fixedPrice.rawValue
            let expected = ["alice": 2 * price, "bob": price, "acceptance": 3 * price]
            var good = try await reconcile(mesh, wait: 0)
            try await eventually("everything is settled and recorded", within: .seconds(40)) {
                good = try await reconcile(mesh, wait: 0)
                let all = expected.allSatisfy { name, amount in
                    account(name, good.body)?["recorded_usd"]?.string == NanoUSD(amount).usd
                }
                let hasTest = good.body["accounts"]?.array?.contains {
                    $0["account"]?.string?.hasPrefix("usd/mesh/") ?? false && $0["records"] == 1
                }
                return good.status == 0 && all && hasTest ?? false
            }
            // The Budget's account has what its users have, and not what the mesh paid.
            #expect(
                account("acceptance", good.body)?["consumed_usd"]?.string
                    == NanoUSD(3 * price).usd)
            let tests = try #require(
                good.body["accounts"]?.array?.first {
                    $0["account"]?.string?.hasPrefix("usd/mesh/") ?? false
                })
            #expect(tests["state"] == "agrees" && tests["records"] == 1)

            try await tamper(mesh)
        }
    }

    private func tamper(_ mesh: Mesh) async throws {
        let archive = mesh.data("control-plane") + "/archive.sqlite3"
        let changed = try await Tools.run(
            try Tools.path("sqlite3"),
            [
                "-cmd", ".timeout 5000", archive,
                "UPDATE records SET cost = cost - 1 WHERE subject = 'bob'",
            ])
        try #require(changed.status == 0, "\(changed.output)")
        let record = try await reconcile(mesh, wait: 0)
        #expect(record.status == 1)
        #expect(account("bob", record.body)?["state"] == "differs")
        #expect(account("bob", record.body)?["difference_usd"]?.string == "0.000000001")
        #expect(account("alice", record.body)?["state"] == "agrees")

        let keys = try await mesh.redis.keys("weir:{usd/user/month/alice}:2*")
        let key = try #require(keys.first { !$0.contains(":leases") && !$0.contains(":holders") })
        _ = try await mesh.redis.run(["HINCRBY", key, "consumed", "1000000000"])
        let both = try await reconcile(mesh, wait: 0)
        #expect(both.status == 1)
        #expect(account("alice", both.body)?["difference_usd"]?.string == "1.000000")
        let cause = account("alice", both.body)?["causes"]?.array?.first
        #expect(cause?["cause"] == "contradiction")
    }
}
