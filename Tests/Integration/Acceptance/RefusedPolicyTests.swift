import Foundation
import Testing
import WeirCore

/// A sidecar that refuses a policy says so everywhere, in its own words, and goes on with the last
/// good one.
@Suite(.timeLimit(.minutes(3)), .serialized)
struct RefusedPolicyTests {
    private let agents = ["finbert", "llama2-7b"]

    /// `weir check` fails when anything is wrong, so its output comes with the failure.
    private func check(_ mesh: Mesh) async throws -> String {
        do {
            return try await mesh.weir(["check"])
        } catch let failure as TestProcess.Failed {
            return failure.description
        }
    }

    /// What `GET /v1/sidecars` says of each sidecar's policy, by agent or role.
    private func policiesNow(_ mesh: Mesh) async throws -> [String: JSONValue] {
        let answer = try await mesh.api.get("/v1/sidecars", headers: mesh.adminHeaders).json()
        return (answer["sidecars"]?.array ?? []).reduce(into: [:]) {
            $0[$1["agent"]?.string ?? $1["role"]?.string ?? "?"] = $1["policy"]
        }
    }

    private func problems(_ policy: JSONValue?) -> String {
        (policy?["refused"]?["problems"]?.array ?? []).compactMap { $0["message"]?.string }
            .joined(separator: "; ")
    }

    @Test func `a policy without the agent of a running sidecar`() async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(budget: "1")
        let options = Mesh.Options(agents: agents + ["risk"], policyFolder: policy.path)
        try await Mesh.run(options) { mesh in
            try policy.removeAgent("risk")
            let refusal = await #expect(throws: TestProcess.Failed.self) {
                try await mesh.apply(policy.path, wait: true)
            }
            let words = "has no agent risk"
            #expect(refusal?.description.contains("was refused") == true)
            #expect(refusal?.description.contains(words) == true)

            // Nobody waits for the others once one has refused.
            let policies = try await eventually("the others run the new policy") {
                let all = try await policiesNow(mesh)
                return all.values.count { $0["state"]?.string == "current" } == 3 ? all : nil
            }
            #expect(policies["risk"]?["state"]?.string == "refused")
            #expect(problems(policies["risk"]).contains(words))
            #expect(policies["risk"]?["refused"]?["version"]?["number"]?.int64 == 2)
            #expect(policies["finbert"]?["state"]?.string == "current")
            #expect(policies["gateway"]?["state"]?.string == "current")
            let listed = try await mesh.weir(["get", "sidecars"])
            let line = listed.split(separator: "\n").first { $0.contains(" risk ") }
            #expect(line?.contains("refused") == true, "\(listed)")
            #expect(line?.contains(words) == true, "\(listed)")
            let checked = try await check(mesh)
            #expect(checked.contains(".2 and keeps the one before: /documents"), "\(checked)")
            #expect(checked.contains(words))

            // The last good one is still in force there, and a restart finds it again.
            let risk = try mesh.part("risk")
            #expect(try await risksPolicyNumber(mesh) == 1)
            #expect(try await mesh.sidecarAdmin("risk").get("/readyz").text.contains("refused"))
            #expect(try await risk.process.terminate() == 0)
            try risk.startAgain()
            try await risk.ready()
            #expect(try await risksPolicyNumber(mesh) == 1)
            #expect(
                try await mesh.analyze(AcceptancePolicy.sentimentOnly, tier: "acceptance").status
                    == 200)
        }
    }

    private func risksPolicyNumber(_ mesh: Mesh) async throws -> Int64? {
        try await mesh.sidecarAdmin("risk").get("/config").json()["policy_version"]?["number"]?
            .int64
    }

    @Test func `the same version with other contents`() async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(budget: "1")
        try await Mesh.run(.init(agents: agents, policyFolder: policy.path)) { mesh in
            func answer() async throws -> JSONValue {
                let answer = try await mesh.analyze(
                    AcceptancePolicy.sentimentOnly, tier: "acceptance")
                try #require(answer.status == 200, "\(answer.text)")
                return try answer.json()
            }
            #expect(try await answer()["cost"]?["total_usd"]?.string == "0.000120")
            try await mesh.controlPlane.process.killAtOnce()
            try policy.replace("prices.yaml", "\"0.000120\"", with: "\"0.000001\"")
            try await forge(policy, as: 1, mesh, folder)
            try mesh.controlPlane.startAgain()
            try await mesh.controlPlane.ready()

            let words = "is applied with other contents"
            for name in agents + ["gateway"] {
                try await eventually("\(name) refuses the forged policy") {
                    problems(try await policiesNow(mesh)[name]).contains(words)
                }
            }
            let listed = try await mesh.weir(["get", "sidecars"])
            #expect(listed.split(separator: "\n").count { $0.contains(words) } == 3, "\(listed)")
            let checked = try await check(mesh)
            #expect(checked.split(separator: "\n").count { $0.contains(words) } == 3)
            let log = try mesh.part("finbert").log
            #expect(log.contains("policy contradicts itself"))
            // Nobody charges the forged price.
            #expect(try await answer()["cost"]?["total_usd"]?.string == "0.000120")
            // The next version ends it.
            try policy.replace("prices.yaml", "\"0.000001\"", with: "\"0.000240\"")
            try await mesh.apply(policy.path, wait: true)
            #expect(try await answer()["cost"]?["total_usd"]?.string == "0.000240")
            let after = try await check(mesh)
            #expect(!after.contains(words), "\(after)")
        }
    }

    /// Writes a policy into Redis under a number that is taken, with a hash that is right for it.
    private func forge(
        _ policy: AcceptancePolicy, as number: Int64, _ mesh: Mesh, _ folder: TemporaryFolder
    ) async throws {
        let compiled = try await policy.compile(to: folder.path("forged.json"))
        let hash = try #require(compiled["version"]?["hash"]?.string)
        let key = "weir:{policy}:bundles"
        let stored = try JSON.parse(try await mesh.redis.run(["HGET", key, String(number)]))
        var bundle = try #require(stored.object)
        var activation = try #require(bundle["activation"]?.object)
        var version = try #require(activation["version"]?.object)
        #expect(version["hash"]?.string != hash)
        version["hash"] = .string(hash)
        activation["version"] = .object(version)
        bundle["activation"] = .object(activation)
        bundle["documents"] = compiled["documents"]
        let text = JSONValue.object(bundle).text
        _ = try await mesh.redis.run(["HSET", key, String(number), text])
        _ = try await mesh.redis.run(["HSET", "weir:{policy}:current", "hash", hash])
    }
}
