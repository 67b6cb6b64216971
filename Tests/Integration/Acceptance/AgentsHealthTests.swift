import Foundation
import Testing
import WeirCore

/// What the gateway says of itself and of the agents, over real processes: an agent that fails
/// shows in `/health`, in `/agents/health` and in `system_health_score`, and so does its recovery.
@Suite(.timeLimit(.minutes(4)), .serialized)
struct AgentsHealthTests {
    private func withMesh(_ test: (Mesh) async throws -> Void) async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(budget: "1")
        try policy.replace(
            "agents.yaml", "breaker: {consecutiveFailures: 5, open: 2s, openMax: 60s}",
            with: "breaker: {consecutiveFailures: 3, open: 4s, openMax: 5s}")
        try await Mesh.run(
            .init(agents: ["finbert", "llama2-7b"], policyFolder: policy.path), test)
    }

    private func agent(_ name: String, _ mesh: Mesh) async throws -> JSONValue {
        let answer = try await mesh.gateway.get(
            "/agents/health", headers: mesh.userHeaders("alice", tier: "acceptance"))
        try #require(answer.status == 200, "\(answer.text)")
        let agents = try answer.json()["agents"]?.array ?? []
        return try #require(agents.first { $0["name"]?.string == name }, "\(answer.text)")
    }

    private func parts(_ mesh: Mesh) async throws -> [String] {
        let health = try await mesh.gateway.get("/health")
        return try health.json()["degraded"]?.array?.compactMap { $0["part"]?.string } ?? []
    }

    @Test func `an agent that fails is seen from outside, and so is its recovery`() async throws {
        try await withMesh { mesh in
            func ask() async throws -> Endpoint.Answer {
                try await mesh.analyze(AcceptancePolicy.sentimentOnly, tier: "acceptance")
            }
            #expect(try await ask().status == 200)
            try await eventually("finbert's success is reported") {
                try await agent("finbert", mesh)["successes"]?.int64 == 1
            }
            let good = try await agent("finbert", mesh)
            #expect(good["state"] == "serving")
            #expect(good["success_rate"] == 1)
            #expect(good["last_error"] == .null)
            #expect((good["p50_ms"]?.double ?? 0) > 0)
            let endpoint = try #require(good["endpoints"]?.array?.first)
            #expect(endpoint["breakers"]?.array?.first?["state"] == "closed")
            // Two of the policy's five agents run here.
            #expect(Set(try await parts(mesh)) == ["agent/gpt4-turbo", "agent/risk", "agent/tft"])
            let score = try await mesh.gatewayAdmin.metrics().sum("system_health_score")
            #expect(score > 0 && score <= 0.4)

            try await mesh.agents.setFault("finbert", "fail", argument: 500)
            for _ in 0..<3 { #expect(try await ask().status == 502) }
            try await eventually("the open circuit is seen") {
                try await agent("finbert", mesh)["state"] == "unavailable"
            }
            let failing = try await agent("finbert", mesh)
            #expect(failing["failures"] == 3)
            #expect(failing["success_rate"]?.double == 0.25)
            #expect(failing["last_error"]?["reason"] == "upstream_error")
            #expect(failing["last_error"]?["at"]?.string != nil)
            let (before, after) = (good["since"]?.string ?? "", failing["since"]?.string ?? "")
            #expect(before < after)
            let open = failing["endpoints"]?.array?.first?["breakers"]?.array?.first
            #expect(open?["state"] == "open")
            #expect(try await parts(mesh).contains("agent/finbert"))
            #expect(try await mesh.gateway.get("/health").status == 200)
            try await eventually("the score falls") {
                try await mesh.gatewayAdmin.metrics().sum("system_health_score") < score
            }

            // Without a token: names and states, and nothing else.
            let names = try await mesh.gateway.get("/agents/health")
            #expect(names.status == 200)
            let entries = try names.json()["agents"]?.array ?? []
            #expect(entries.count == 5)
            #expect(entries.allSatisfy { $0.object?.keys == ["name", "state"] })
            #expect(entries.contains(["name": "finbert", "state": "unavailable"]))
            #expect(
                try await mesh.gateway.get(
                    "/agents/health", headers: ["authorization": "Bearer nonsense"]
                ).status == 401)

            try await mesh.agents.setFault("finbert", "none")
            try await eventually("a probe closes the circuit") { try await ask().status == 200 }
            try await eventually("the recovery is seen") {
                try await agent("finbert", mesh)["state"] == "serving"
            }
        }
    }

    @Test func `a sidecar that dies and a lost control plane are degraded service`() async throws {
        try await withMesh { mesh in
            try await eventually("finbert serves") {
                try await agent("finbert", mesh)["endpoints"]?.array?.first?["instance"] != nil
            }
            try await mesh.part("finbert").process.killAtOnce()
            try await eventually("its silence is seen", within: .seconds(20)) {
                try await agent("finbert", mesh)["endpoints"]?.array?.first?["state"] == "silent"
            }
            #expect(try await agent("finbert", mesh)["state"] == "unavailable")
            #expect(try await agent("llama2-7b", mesh)["state"] == "serving")

            let policy = try await mesh.gateway.get("/health").json()
            #expect((policy["policy_version"]?.int64 ?? 0) > 0)
            #expect((policy["policy_age_ms"]?.int64 ?? 0) > 0)
            #expect(policy["control_plane"]?["reachable"] == true)
            try await mesh.controlPlane.process.killAtOnce()
            try await eventually("the gateway says that it is alone") {
                try await parts(mesh).contains("control_plane")
            }
            // What it was told last it still tells, with its age.
            let answer = try await mesh.gateway.get("/health")
            #expect(answer.status == 200)
            #expect(try answer.json()["status"] == "degraded")
        }
    }

    @Test func `a gateway without a policy cannot serve, and says so`() async throws {
        try await withMesh { mesh in
            let gateway = try mesh.part("gateway")
            #expect(try await gateway.process.terminate() == 0)
            try FileManager.default.removeItem(atPath: mesh.data("gateway"))
            try FileManager.default.createDirectory(
                atPath: mesh.data("gateway"), withIntermediateDirectories: true)
            try await mesh.controlPlane.process.killAtOnce()
            try gateway.startAgain()
            let health = try await eventually("the gateway listens") {
                try await mesh.gateway.get("/health")
            }
            #expect(health.status == 503)
            #expect(try health.json()["status"] == "unavailable")
            #expect(try health.json()["degraded"]?.array?.first?["part"] == "policy")
            #expect(try await mesh.gateway.get("/agents/health").status == 503)
        }
    }
}
