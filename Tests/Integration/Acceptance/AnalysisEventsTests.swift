import Foundation
import Testing
import WeirCore

/// An analysis as a stream of events, and deadlines, over real processes.
@Suite(.timeLimit(.minutes(2)), .serialized)
struct AnalysisEventsTests {
    private struct Event {
        let name: String
        let data: JSONValue
    }

    /// Reads what `curl -N` wrote.
    private func events(_ text: String) throws -> [Event] {
        try text.components(separatedBy: "\n\n").compactMap { block in
            let lines = block.split(separator: "\n")
            guard lines.count == 2, lines[0].hasPrefix("event: "), lines[1].hasPrefix("data: ")
            else { return nil }
            return Event(
                name: String(lines[0].dropFirst(7)),
                data: try JSON.parse(String(lines[1].dropFirst(6))))
        }
    }

    private func curl(_ mesh: Mesh, _ body: String, tier: String) async throws -> String {
        let token = mesh.userHeaders("eve", tier: tier)["authorization"] ?? ""
        let result = try await Tools.run(
            try Tools.path("curl"),
            [
                "-sN", "--max-time", "30", "http://127.0.0.1:\(mesh.gatewayPort)/analyze",
                "-H", "Accept: text/event-stream", "-H", "Authorization: \(token)",
                "-H", "Content-Type: application/json", "-d", body,
            ])
        #expect(result.status == 0, "\(result.output)")
        return result.output
    }

    @Test func `steps, words and the whole answer`() async throws {
        try await Mesh.run(.init(agents: ["finbert", "llama2-7b", "gpt4-turbo"])) { mesh in
            // Its words come over a second, and not in one piece.
            try await mesh.agents.setFault("gpt4-turbo", "slow", argument: 1_000, times: 1)
            let events = try events(
                try await curl(mesh, AcceptancePolicy.newsAnalysis, tier: "enterprise"))
            let names = events.map(\.name)
            #expect(
                names.filter { $0 != "step.delta" } == [
                    "step.started", "step.completed", "step.started", "step.completed", "done",
                ])
            let words = events.filter { $0.name == "step.delta" }
                .compactMap { $0.data["text"]?.string }
            let done = try #require(events.last?.data)
            let explanation = try #require(done["steps"]?.array?.last)
            #expect(words.count > 1)
            #expect(words.joined() == explanation["result"]?["text"]?.string)
            #expect(explanation["agent"]?.string == "gpt4-turbo")
            #expect(explanation["cost_source"]?.string == "reported")
            let total = try #require(
                done["cost"]?["total_usd"]?.string.flatMap { NanoUSD(usd: $0) })
            #expect(try await mesh.settledBooks(of: "eve").consumed == total)

            // A stream that dies goes to the next agent, and the client is told to begin anew.
            try await mesh.agents.setFault("gpt4-turbo", "die", argument: 900, times: 1)
            let second = try self.events(
                try await curl(mesh, AcceptancePolicy.newsAnalysis, tier: "enterprise"))
            let step = try #require(second.last?.data["steps"]?.array?.last)
            #expect(step["agent"]?.string == "llama2-7b", "\(step.text)")
            #expect(step["fallback"]?["from"]?.string == "gpt4-turbo")
            let attempts = Set(
                second.filter { $0.name == "step.delta" }
                    .compactMap { $0.data["attempt"]?.int64 })
            #expect(attempts.contains(2))

            try await mesh.agents.setFault("finbert", "fail", argument: 500, times: 1)
            let failed = try self.events(
                try await curl(mesh, AcceptancePolicy.newsAnalysis, tier: "enterprise"))
            #expect(failed.map(\.name) == ["step.started", "step.failed", "error"])
            #expect(failed.last?.data["reason"]?.string == "upstream_error")
            let metrics = try await mesh.gatewayAdmin.get("/metrics").text
            #expect(
                metrics.contains(
                    #"weir_fallbacks_total{from="gpt4-turbo",to="llama2-7b""#), "\(metrics)")
        }
    }

    /// Slow agents: what is required decides between a partial answer and none.
    @Test func `the deadline covers all steps`() async throws {
        try await Mesh.run(.init(agents: ["finbert", "llama2-7b", "risk"])) { mesh in
            let body = """
                {"analysis_type": "portfolio_analysis", "data": {"positions":
                  [{"symbol": "AAPL", "quantity": 1, "price": 200}]},
                 "options": {"timeout_ms": 700}}
                """
            try await mesh.agents.setFault("llama2-7b", "slow", argument: 5_000, times: 1)
            let partial = try await mesh.analyze(body, user: "paula", tier: "premium")
            #expect(partial.status == 200, "\(partial.text)")
            #expect(try partial.json()["status"]?.string == "partial")
            let summary = try #require(try partial.json()["steps"]?.array?.last)
            #expect(summary["problem"]?["reason"]?.string == "deadline")
            #expect(summary["cost_usd"]?.string != "0.000000")

            try await mesh.agents.setFault("risk", "slow", argument: 5_000, times: 1)
            let late = try await mesh.analyze(body, user: "paula", tier: "premium")
            #expect(late.status == 504, "\(late.text)")
            #expect(try late.json()["reason"]?.string == "deadline")
            // What was cancelled is charged, and nothing stays set aside.
            let books = try await mesh.settledBooks(of: "paula")
            #expect(books.consumed > .zero)
        }
    }
}
