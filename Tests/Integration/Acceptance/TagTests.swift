import Foundation
import Testing
import WeirCore

/// Tags of requests over real processes: whose they are, what they may spend together, and what
/// they are charged.
@Suite(.timeLimit(.minutes(3)), .serialized)
struct TagTests {
    private static let price = AcceptancePolicy.fixedPrice.rawValue

    private func withMesh(_ test: (Mesh) async throws -> Void) async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(
            budget: "10", maxLease: "1", more: "requestTags: [launch, \"team:search\"]")
        // For three calls, whoever makes them.
        try policy.add(
            "tag-budget.yaml",
            """
            apiVersion: weir.mesh/v1
            kind: Budget
            metadata:
              name: launch
            spec:
              scope: tag
              id: launch
              monthlyLimit: "\(NanoUSD(3 * Self.price).usd)"
            """)
        let options = Mesh.Options(
            agents: ["finbert", "llama2-7b"], latency: "5", policyFolder: policy.path)
        try await Mesh.run(options, test)
    }

    private func analyze(
        _ mesh: Mesh, _ user: String, tags: String?
    ) async throws -> Endpoint.Answer {
        try await mesh.analyze(
            AcceptancePolicy.sentimentOnly, user: user, tier: "acceptance",
            headers: tags.map { ["weir-tags": $0] } ?? [:])
    }

    @Test func `a tag's budget holds over all users, and its cost is charged back`() async throws {
        try await withMesh { mesh in
            // At once, so that two of them compete for the last of it.
            var statuses: [Int] = []
            try await eventually("three are served", within: .seconds(40)) {
                async let alice = analyze(mesh, "alice", tags: "launch, team:search")
                async let bob = analyze(mesh, "bob", tags: "launch")
                statuses += [try await alice.status, try await bob.status]
                return statuses.count { $0 == 200 } >= 3
            }
            #expect(statuses.count { $0 == 200 } == 3, "\(statuses)")
            #expect(statuses.allSatisfy { [200, 402, 503].contains($0) }, "\(statuses)")
            var last: Endpoint.Answer?
            try await eventually("the tag is exhausted", within: .seconds(20)) {
                last = try await analyze(mesh, "carol", tags: "launch")
                return last?.status == 402
            }
            #expect(last?.text.contains("usd/tag/") == true)
            // Who does not have the tag is not touched.
            #expect(try await analyze(mesh, "carol", tags: nil).status == 200)
            let other = try await analyze(mesh, "carol", tags: "team:search")
            #expect(other.status == 200, "\(other.text)")
            try await checkBooks(mesh)
        }
    }

    private func checkBooks(_ mesh: Mesh) async throws {
        var words = JSONValue.null
        try await eventually("everything is settled and recorded", within: .seconds(40)) {
            let all = ["cost", "reconcile", "--wait", "0", "--all", "-o", "json"]
            let result = try await Tools.run(
                Products.path("weir"), ["--server", "http://127.0.0.1:\(mesh.apiPort)"] + all,
                environment: ["WEIR_ADMIN_TOKEN": Mesh.adminToken])
            words = (try? JSON.parse(result.output)) ?? .null
            let tag = words["accounts"]?.array?.first {
                $0["account"]?.string?.hasPrefix("usd/tag/") ?? false
            }
            return result.status == 0 && tag?["recorded_usd"]?.string == NanoUSD(3 * Self.price).usd
                && tag?["state"] == "agrees"
        }
        let text = try await mesh.weir(["get", "usage", "--by", "tag", "-o", "json"])
        let usage = try JSON.parse(text)
        let costs = Dictionary(
            uniqueKeysWithValues: (usage["usage"]?.array ?? []).map {
                ($0["tag"]?.string ?? "?", $0["cost_usd"]?.string ?? "")
            })
        #expect(costs["launch"] == NanoUSD(3 * Self.price).usd, "\(text)")
        #expect(costs[""] == NanoUSD(Self.price).usd, "\(text)")
        #expect(usage["total_usd"]?.string == NanoUSD(5 * Self.price).usd, "\(text)")
        let teams = try await mesh.weir(["get", "usage", "--by", "team", "-o", "json"])
        let searched = try JSON.parse(teams)["usage"]?.array?.first { $0["team"] == "search" }
        #expect(searched?["cost_usd"]?.string == costs["team:search"], "\(teams)")
        let audit = try await mesh.weir(["audit", "list", "--tag", "team:search", "-o", "json"])
        let records = try JSON.parse(audit)["records"]?.array ?? []
        #expect(!records.isEmpty)
        #expect(records.allSatisfy { $0["tags"]?.array?.contains("team:search") ?? false })
    }

    @Test func `a request has its key's tags, and no others than its tier allows`() async throws {
        try await withMesh { mesh in
            let made = try await mesh.weir([
                "key", "create", "--user", "robot", "--tier", "acceptance", "--tag", "nightly",
                "--tag", "team:ops", "-o", "json",
            ])
            let key = try #require(try JSON.parse(made)["key"]?.string)
            var headers = ["authorization": "Bearer " + key]
            let served = try await mesh.gateway.post(
                "/analyze", AcceptancePolicy.sentimentOnly, headers: headers)
            #expect(served.status == 200, "\(served.text)")
            headers["weir-tags"] = "nightly, team:search"
            let more = try await mesh.gateway.post(
                "/analyze", AcceptancePolicy.sentimentOnly, headers: headers)
            #expect(more.status == 200, "\(more.text)")
            let foreign = try await analyze(mesh, "alice", tags: "nightly")
            #expect(foreign.status == 403 && foreign.text.contains("tag nightly"))
            #expect(try await analyze(mesh, "alice", tags: "a b").status == 422)
            try await eventually("the records are there", within: .seconds(40)) {
                let audit = try await mesh.weir([
                    "audit", "list", "--tag", "nightly", "-o", "json",
                ])
                let tags = (try JSON.parse(audit)["records"]?.array ?? []).compactMap {
                    $0["tags"]?.array?.compactMap(\.string).joined(separator: ",")
                }
                return Set(tags) == ["nightly,team:ops", "nightly,team:ops,team:search"]
            }
        }
    }
}
