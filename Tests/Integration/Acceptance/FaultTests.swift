import Foundation
import Testing
import WeirCore

/// Agents that misbehave, behind the whole mesh: who asks is told in time, the rest of the mesh is
/// kept from it, and the books close to the n$.
@Suite(.timeLimit(.minutes(4)), .serialized)
struct FaultTests {
    private static let price = AcceptancePolicy.fixedPrice

    /// A mesh of finbert and llama with a breaker that opens at three, for long enough that a busy
    /// machine sees it open.
    private func withMesh(_ test: (Mesh) async throws -> Void) async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(budget: "1")
        try policy.replace(
            "agents.yaml", "breaker: {consecutiveFailures: 5, open: 2s, openMax: 60s}",
            with: "breaker: {consecutiveFailures: 3, open: 4s, openMax: 5s}")
        try policy.replace("agents.yaml", "firstByte: 5s", with: "firstByte: 2s")
        try policy.replace("agents.yaml", "firstByte: 10s", with: "firstByte: 2s")
        try await Mesh.run(
            .init(agents: ["finbert", "llama2-7b"], policyFolder: policy.path), test)
    }

    private func sentiment(_ mesh: Mesh) async throws -> Endpoint.Answer {
        try await mesh.analyze(AcceptancePolicy.sentimentOnly, tier: "acceptance")
    }

    /// 0 closed, 1 half-open, 2 open, as the sidecar of an agent shows it.
    private func breaker(_ mesh: Mesh, _ agent: String = "finbert") async throws -> String? {
        try await mesh.sidecarAdmin(agent).get("/metrics").text.split(separator: "\n")
            .first { $0.hasPrefix("circuit_breaker_state{agent=\"\(agent)\"") }?
            .split(separator: " ").last.map(String.init)
    }

    @Test func `errors open the circuit, and a probe closes it`() async throws {
        try await withMesh { mesh in
            #expect(try await sentiment(mesh).status == 200)
            #expect(try await breaker(mesh) == "0")
            try await mesh.agents.setFault("finbert", "fail", argument: 500)
            for _ in 0..<3 {
                let failed = try await sentiment(mesh)
                #expect(failed.status == 502)
                #expect(try failed.json()["reason"]?.string == "upstream_error")
                // It did the work, as far as anybody knows: a price by the request is due.
                #expect(try failed.json()["cost"]?["total_usd"]?.string == Self.price.usd)
            }
            let refused = try await sentiment(mesh)
            #expect(refused.status == 503)
            #expect(try refused.json()["reason"]?.string == "circuit_open")
            #expect(try refused.json()["cost"]?["total_usd"]?.string == "0.000000")
            #expect(refused.header("retry-after") != nil)
            #expect(try await breaker(mesh) == "2")
            #expect(try await mesh.agentAttempts("finbert") == 4)

            // The probe is under way for long enough to be seen.
            try await mesh.agents.setFault("finbert", "slow", argument: 1_000)
            let probe = Task {
                try await eventually("a probe goes through", every: .milliseconds(50)) {
                    try await sentiment(mesh).status == 200
                }
            }
            try await eventually("the circuit is half open") { try await breaker(mesh) == "1" }
            try await probe.value
            #expect(try await breaker(mesh) == "0")
            #expect(try await mesh.agentAttempts("finbert") == 5)
            let books = try await mesh.settledBooks(of: "alice")
            #expect(books.consumed == NanoUSD(5 * Self.price.rawValue))
        }
    }

    /// What a step says of itself, by its name.
    private func step(_ name: String, _ answer: Endpoint.Answer) throws -> JSONValue {
        let steps = try answer.json()["steps"]?.array ?? []
        return try #require(steps.first { $0["name"]?.string == name }, "\(answer.text)")
    }

    private func amount(_ value: JSONValue?) throws -> NanoUSD {
        try #require(value?.string.flatMap { NanoUSD(usd: $0) })
    }

    /// An analysis whose second step meets a fault of llama: the step's status and reason, and that
    /// it costs the ceiling.
    private func explanationFails(
        _ mesh: Mesh, _ fault: String, argument: Int? = nil, status: Int, reason: String
    ) async throws {
        try await mesh.agents.setFault("llama2-7b", fault, argument: argument, times: 1)
        let answer = try await mesh.analyze(AcceptancePolicy.newsAnalysis, user: fault)
        #expect(answer.status == status, "\(fault): \(answer.text)")
        #expect(try answer.json()["reason"]?.string == reason)
        #expect(try answer.json()["step"]?.string == "explanation")
        #expect(try step("sentiment", answer)["status"]?.string == "ok")
        let failed = try step("explanation", answer)
        #expect(failed["status"]?.string == "failed")
        #expect(failed["problem"]?["reason"]?.string == reason)
        #expect(failed["cost_source"]?.string == "ceiling")
        // Without usage it is what 400 tokens cost, and the prompt.
        #expect(try amount(failed["cost_usd"]) > NanoUSD(400 * Standalone.outputPrice))
        let total = try amount(try answer.json()["cost"]?["total_usd"])
        #expect(try total == Self.price + amount(failed["cost_usd"]))
        // Each analysis has a user of its own, so that its cost can be read off the books.
        let books = try await mesh.settledBooks(of: fault)
        #expect(books.consumed == total, "\(fault)")
    }

    @Test func `stalls and deaths end in time and cost the worst case`() async throws {
        try await withMesh { mesh in
            try await explanationFails(mesh, "stall", status: 504, reason: "deadline")
            try await explanationFails(
                mesh, "die", argument: 40, status: 502, reason: "upstream_error")
            // The breaker counts failures in a row, and these are two.
            #expect(try await mesh.analyze(AcceptancePolicy.newsAnalysis).status == 200)
            try await explanationFails(
                mesh, "fail", argument: 503, status: 502, reason: "upstream_error")
            #expect(try await breaker(mesh, "llama2-7b") == "0")
        }
    }

    @Test func `429 with Retry-After keeps everybody away for so long`() async throws {
        try await withMesh { mesh in
            try await mesh.agents.setFault("finbert", "429", argument: 3, times: 1)
            #expect(try await sentiment(mesh).status == 502)
            let start = ContinuousClock.now
            #expect(try await breaker(mesh) == "2")
            let refused = try await sentiment(mesh)
            #expect(refused.status == 503)
            #expect(try refused.json()["reason"]?.string == "circuit_open")
            #expect(try await mesh.agentAttempts("finbert") == 1)
            try await eventually("the three seconds are over") {
                try await sentiment(mesh).status == 200
            }
            #expect(ContinuousClock.now - start > .seconds(2))
            #expect(try await mesh.agentAttempts("finbert") == 2)
            #expect(try await breaker(mesh) == "0")
            let books = try await mesh.settledBooks(of: "alice")
            #expect(books.consumed == NanoUSD(2 * Self.price.rawValue))
        }
    }

    @Test func `an answer without usage costs the ceiling`() async throws {
        try await withMesh { mesh in
            try await mesh.agents.setFault("llama2-7b", "no-usage", times: 1)
            let blind = try await mesh.analyze(AcceptancePolicy.newsAnalysis)
            try #require(blind.status == 200, "\(blind.text)")
            let explained = try step("explanation", blind)
            #expect(explained["status"]?.string == "ok")
            #expect(explained["cost_source"]?.string == "ceiling")
            let seen = try await mesh.analyze(AcceptancePolicy.newsAnalysis)
            let metered = try step("explanation", seen)
            #expect(metered["cost_source"]?.string == "reported")
            #expect(try amount(explained["cost_usd"]) > amount(metered["cost_usd"]))
            let books = try await mesh.settledBooks(of: "alice")
            let total = try [blind, seen].map { try amount($0.json()["cost"]?["total_usd"]) }
                .reduce(.zero, +)
            #expect(books.consumed == total)
            let usage = try await mesh.api.get("/v1/usage?by=agent", headers: mesh.adminHeaders)
            #expect(try amount(usage.json()["total_usd"]) == total)
        }
    }

    @Test func `new time limits hold for the next request`() async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(budget: "1")
        let options = Mesh.Options(agents: ["finbert", "llama2-7b"], policyFolder: policy.path)
        try await Mesh.run(options) { mesh in
            try await mesh.agents.setFault("finbert", "slow", argument: 600)
            #expect(try await sentiment(mesh).status == 200)
            try policy.replace("agents.yaml", "firstByte: 5s", with: "firstByte: 200ms")
            try await mesh.apply(policy.path, wait: true)
            let late = try await sentiment(mesh)
            #expect(late.status == 504)
            #expect(try late.json()["reason"]?.string == "deadline")
            try policy.replace("agents.yaml", "firstByte: 200ms", with: "firstByte: 5s")
            try await mesh.apply(policy.path, wait: true)
            #expect(try await sentiment(mesh).status == 200)
            let books = try await mesh.settledBooks(of: "alice")
            #expect(books.consumed == NanoUSD(3 * Self.price.rawValue))
        }
    }
}
