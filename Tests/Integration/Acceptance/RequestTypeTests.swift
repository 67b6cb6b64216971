import Testing
import WeirCore

/// Every request type of every tier over real processes: in fair weather, and with each agent
/// failing in turn. One mesh for all of them.
@Suite(.timeLimit(.minutes(3)), .serialized)
struct RequestTypeTests {
    /// A mesh whose breakers and rates stay out of it, because each case is about one request.
    private func withMesh(_ test: (Mesh) async throws -> Void) async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.replace(
            "agents.yaml", "consecutiveFailures: 5", with: "consecutiveFailures: 10000")
        try policy.replace(
            "agents.yaml", "  path: /forecast\n",
            with: "  path: /forecast\n  breaker: {consecutiveFailures: 10000}\n")
        try policy.replace(
            "agents.yaml", "  path: /analyze\n",
            with: "  path: /analyze\n  breaker: {consecutiveFailures: 10000}\n")
        try policy.replace(
            "agents.yaml", "requestsPerSecond: 10, burst: 20",
            with: "requestsPerSecond: 1000, burst: 1000")
        try await Mesh.run(.init(policyFolder: policy.path), test)
    }

    private func send(_ test: RequestTypeCase, _ mesh: Mesh) async throws -> Endpoint.Answer {
        // The rates of one user are not what this is about.
        try await mesh.analyze(
            test.body, user: "\(test.type)-\(test.tier)".replacing("_", with: "-"),
            tier: test.tier)
    }

    private func steps(_ answer: Endpoint.Answer) throws -> [String: JSONValue] {
        try (answer.json()["steps"]?.array ?? []).reduce(into: [:]) {
            $0[$1["name"]?.string ?? "?"] = $1
        }
    }

    @Test func `each type of each tier, with every agent failing in turn`() async throws {
        try await withMesh { mesh in
            for test in RequestTypeCase.all { try await inFairWeather(test, mesh) }
            for agent in SampleAgentsProcess.names {
                try await mesh.agents.setFault(agent, "fail", argument: 500)
                for test in RequestTypeCase.all {
                    let outcome = test.failures[agent] ?? .complete
                    try await check(outcome, test, failing: agent, mesh)
                }
                try await mesh.agents.setFault(agent, "none")
            }
            // Whatever failed: the books close, and nothing is left set aside.
            for test in RequestTypeCase.all {
                let user = "\(test.type)-\(test.tier)".replacing("_", with: "-")
                let books = try await mesh.settledBooks(of: user)
                #expect(books.consumed > .zero, "\(test)")
            }
        }
    }

    private func inFairWeather(_ test: RequestTypeCase, _ mesh: Mesh) async throws {
        let answer = try await send(test, mesh)
        try #require(answer.status == 200, "\(test): \(answer.text)")
        #expect(try answer.json()["status"]?.string == "complete", "\(test): \(answer.text)")
        #expect(answer.header("weir-decision") == "admitted")
        let list = try answer.json()["steps"]?.array ?? []
        #expect(list.map { $0["name"]?.string } == test.steps.map(\.name), "\(test)")
        for (step, expected) in zip(list, test.steps) {
            let skipped = expected.agent == "-"
            #expect(step["status"]?.string == (skipped ? "skipped" : "ok"), "\(test): \(step.text)")
            #expect(step["agent"]?.string == (skipped ? nil : expected.agent), "\(test)")
            #expect((step["result"] == nil) == skipped)
        }
    }

    private func check(
        _ outcome: RequestTypeCase.Outcome, _ test: RequestTypeCase, failing agent: String,
        _ mesh: Mesh
    ) async throws {
        let answer = try await send(test, mesh)
        let json = try answer.json()
        let steps = try steps(answer)
        let what = "\(test) without \(agent): \(answer.text)"
        switch outcome {
        case .complete:
            #expect(answer.status == 200, "\(what)")
            #expect(json["status"]?.string == "complete", "\(what)")
            #expect(answer.header("weir-decision") == "admitted", "\(what)")
        case .fallback(let names):
            #expect(answer.status == 200, "\(what)")
            #expect(json["status"]?.string == "complete" || agent == "llama2-7b", "\(what)")
            #expect(answer.header("weir-decision") == "fallback", "\(what)")
            for name in names {
                #expect(steps[name]?["fallback"]?["from"]?.string == agent, "\(what)")
                #expect(steps[name]?["fallback"]?["reason"]?.string == "upstream_error")
                #expect(steps[name]?["attempts"]?.array?.count == 2, "\(what)")
            }
        case .partial(let names):
            #expect(answer.status == 200, "\(what)")
            #expect(json["status"]?.string == "partial", "\(what)")
            let notDone = test.steps.map(\.name).filter { steps[$0]?["status"]?.string != "ok" }
            #expect(Set(notDone) == Set(names), "\(what)")
        case .failed(let name):
            #expect(answer.status == 502, "\(what)")
            #expect(json["reason"]?.string == "upstream_error", "\(what)")
            #expect(json["step"]?.string == name, "\(what)")
            #expect(json["cost"]?["total_usd"] != nil, "\(what)")
        }
    }

    /// The wrong and the missing, each with its place in the body.
    @Test func `bodies are checked against the type's schema`() async throws {
        try await Mesh.run(.init(agents: ["finbert"])) { mesh in
            let cases: [(type: String, data: String, pointers: [String])] = [
                (
                    "news_analysis", #"{"symbols": [1, ""]}"#,
                    ["/data/text", "/data/symbols/0", "/data/symbols/1"]
                ),
                (
                    "options_recommendation",
                    #"{"symbol": "A", "outlook": "up", "risk_tolerance": "none", "extra": 1}"#,
                    ["/data/outlook", "/data/risk_tolerance", "/data/extra"]
                ),
                (
                    "price_prediction",
                    #"{"symbol": "A", "horizon_days": 0, "history": [{"t": "today", "close": 0}]}"#,
                    [
                        "/data/history", "/data/history/0/t", "/data/history/0/close",
                        "/data/horizon_days",
                    ]
                ),
                (
                    "portfolio_analysis", #"{"positions": [{"symbol": "A"}], "news": []}"#,
                    ["/data/positions/0/quantity", "/data/positions/0/price", "/data/news"]
                ),
                ("comprehensive_analysis", #"{"symbol": "A"}"#, ["/data/text"]),
            ]
            for (type, data, pointers) in cases {
                let answer = try await mesh.analyze(
                    #"{"analysis_type": "\#(type)", "data": \#(data)}"#, tier: "premium")
                #expect(answer.status == 422, "\(type): \(answer.text)")
                let errors = try answer.json()["errors"]?.array ?? []
                #expect(
                    Set(errors.compactMap { $0["pointer"]?.string }) == Set(pointers),
                    "\(type): \(answer.text)")
            }
            #expect(try await mesh.agentAttempts("finbert") == 0)
        }
    }
}
