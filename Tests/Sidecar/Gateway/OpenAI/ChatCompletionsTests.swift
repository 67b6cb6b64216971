import SidecarCore
import Synchronization
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarGateway

/// `/v1/chat/completions` and `/v1/models` over sidecars in memory.
@Suite(.timeLimit(.minutes(1))) struct ChatCompletionsTests {
    private static let messages = #""messages": [{"role": "user", "content": "Up?"}]"#
    private static let completion =
        #"{"choices": [{"message": {"content": "Up."}}], "usage": {"prompt_tokens": 9}}"#
    private static let chunk = #"data: {"choices": [{"delta": {"content": "Up."}}]}"# + "\n\n"
    private static let usage = #"data: {"choices": [], "usage": {"prompt_tokens": 9}}"# + "\n\n"
    private static let done = "data: [DONE]\n\n"

    private let gateway: ChatGateway

    init() throws { gateway = try ChatGateway() }

    private func chat(_ fields: String, token: String? = ChatGateway.token) -> GatewayRequest {
        gateway.request(
            "POST", "/v1/chat/completions", body: "{\(fields), \(Self.messages)}", token: token)
    }

    private func error(_ answer: GatewayAnswer) throws -> JSONValue {
        try #require(try JSON.parse(answer.bytes)["error"])
    }

    // MARK: Whole answers

    @Test func anAnswerPassesAsItCameAndSaysWhatItCost() async throws {
        let ledger = TestLedger(requestsMax: 10)
        let bodies = Mutex<[JSONValue]>([])
        let transport = TestTransport { call, delegation in
            bodies.withLock { $0.append((try? JSON.parse(call.body)) ?? .null) }
            #expect(delegation.requestType == "chat_completions")
            #expect(delegation.agent == "writer" && delegation.subject == "alice")
            return .answer(Self.completion, cost: 500_000)
        }
        let answer = await gateway.respond(
            to: chat(#""model": "writer", "seed": 7, "max_tokens": 40"#), ledger: ledger,
            transport: transport)
        #expect(answer.status == 200)
        #expect(answer.bytes == Array(Self.completion.utf8))
        for (name, expected) in [
            ("content-type", "application/json"), ("weir-decision", "admitted"),
            ("weir-agent", "writer"), ("weir-model", "big"), ("weir-cost-usd", "0.000500"),
            ("weir-budget-remaining-usd", "99.999500"), ("weir-policy-version", "17"),
            ("ratelimit", #""daily";r=9;t=34800"#),
        ] {
            #expect(answer.field(name) == expected, "\(name)")
        }
        // What the client stated holds, so nothing is said of it.
        #expect(answer.field("weir-max-tokens") == nil)
        #expect(answer.field("weir-budget-warning") == nil)
        let body = try #require(bodies.withLock { $0.first })
        #expect(body["model"] == "big" && body["seed"] == 7 && body["max_tokens"] == 40)
        #expect(ledger.state.withLock { $0.requests } == 1)
        #expect(ledger.state.withLock { $0.open }.isEmpty)
        #expect(gateway.metrics.seen.withLock { $0 } == ["chat_completions gold complete"])
    }

    @Test func theVerySameRequestIsServedFromWhatIsKept() async throws {
        let gateway = try ChatGateway { policy in
            policy.agents["writer"]?.cache = AgentPolicy.Cache(ttlMilliseconds: 60_000)
        }
        let calls = Mutex(0)
        let transport = TestTransport { _, _ in
            calls.withLock { $0 += 1 }
            return .answer(Self.completion, cost: 500_000)
        }
        let ledger = TestLedger()
        func ask(_ request: String) async -> GatewayAnswer {
            await gateway.respond(to: chat(request), ledger: ledger, transport: transport)
        }
        let first = await ask(#""model": "writer", "seed": 7"#)
        #expect(first.field("weir-cache") == nil && first.field("weir-cost-usd") == "0.000500")
        // By another name, in another order.
        let again = await ask(#""seed": 7, "model": "grand""#)
        #expect(again.field("weir-cache") == "hit" && again.field("weir-cost-usd") == "0.000000")
        #expect(again.bytes == first.bytes && again.field("weir-model") == "big")
        #expect(again.field("weir-decision") == "admitted")
        #expect(calls.withLock { $0 } == 1)
        let other = await ask(#""model": "writer", "seed": 8"#)
        #expect(other.field("weir-cache") == nil && calls.withLock { $0 } == 2)
        #expect(ledger.state.withLock { $0.consumed } == NanoUSD(1_000_000))
        // Each of them is a request of the user's day.
        #expect(ledger.state.withLock { $0.requests } == 3)
    }

    @Test func failuresAndObservedAnswersAreNotKept() async throws {
        let gateway = try ChatGateway { policy in
            policy.agents["writer"]?.cache = AgentPolicy.Cache(ttlMilliseconds: 60_000)
            policy.agents["writer"]?.fallbacks = []
        }
        for reaction in [
            TestTransport.Reaction.status(400, cost: 0), .status(500, cost: 0),
            .observed(Self.completion, .rateLimited, cost: 1),
        ] {
            for _ in 0..<2 {
                let answer = await gateway.respond(
                    to: chat(#""model": "writer""#),
                    transport: TestTransport { _, _ in reaction })
                #expect(answer.field("weir-cache") == nil)
            }
        }
    }

    /// By the agent, a model and an alias; what the tier takes away of the output is said.
    @Test(arguments: ["writer", "big", "grand"])
    func aModelHasSeveralNames(name: String) async throws {
        let sent = Mutex<JSONValue>(.null)
        let transport = TestTransport { call, _ in
            sent.withLock { $0 = (try? JSON.parse(call.body)) ?? .null }
            return .answer(Self.completion, cost: 1)
        }
        let answer = await gateway.respond(
            to: chat("\"model\": \"\(name)\", \"max_completion_tokens\": 5000"),
            transport: transport)
        #expect(answer.status == 200)
        #expect(answer.field("weir-max-tokens") == "300")
        #expect(sent.withLock { $0["model"] } == "big")
        #expect(sent.withLock { $0["max_completion_tokens"] } == 300)
    }

    @Test func whatTheProviderSaysOfTheRequestIsTheClients() async throws {
        let calls = Mutex(0)
        let transport = TestTransport { _, _ in
            calls.withLock { $0 += 1 }
            return .status(422, cost: 0)
        }
        let answer = await gateway.respond(to: chat(#""model": "writer""#), transport: transport)
        #expect(answer.status == 422 && answer.bytes == Array("{}".utf8))
        #expect(calls.withLock { $0 } == 1)
        #expect(gateway.metrics.seen.withLock { $0 } == ["chat_completions gold invalid"])
    }

    // MARK: Fallback and downgrade

    @Test func aFallbackIsAskedForItsOwnModelAndAllOfItIsPaid() async throws {
        let ledger = TestLedger()
        let sent = Mutex<[String]>([])
        let transport = TestTransport { call, _ in
            let model = (try? JSON.parse(call.body))?["model"]?.string ?? "-"
            sent.withLock { $0.append("\(call.agent) \(model)") }
            return call.agent == "writer"
                ? .status(500, cost: 9_000) : .answer(Self.completion, cost: 1_000)
        }
        let answer = await gateway.respond(
            to: chat(#""model": "big""#), ledger: ledger, transport: transport)
        #expect(answer.status == 200)
        #expect(sent.withLock { $0 } == ["writer big", "scribe small"])
        #expect(answer.field("weir-decision") == "fallback")
        #expect(answer.field("weir-agent") == "scribe" && answer.field("weir-model") == "small")
        #expect(answer.field("weir-cost-usd") == "0.000010")
        #expect(ledger.state.withLock { $0.children } == 2)
        #expect(ledger.state.withLock { $0.consumed } == NanoUSD(10_000))
    }

    @Test func aStreamThatDiesBeforeItsFirstByteFallsBack() async throws {
        let transport = TestTransport { call, _ in
            call.agent == "writer" ? .broken([]) : .events([Self.chunk, Self.done], cost: 7)
        }
        let answer = await gateway.respond(
            to: chat(#""model": "big", "stream": true"#), transport: transport)
        let written = try await answer.written()
        #expect(written.text == Self.chunk + Self.done)
        #expect(answer.field("weir-decision") == "fallback")
    }

    @Test func aSpentBudgetPrefersTheCheaperAgent() async throws {
        let ledger = TestLedger(limit: NanoUSD(10_000_000_000))
        let call = try await ledger.delegate(
            CallBound(amount: NanoUSD(8_500_000_000), least: .zero), to: Incarnation(1))
        ledger.callFinal(call, consumed: NanoUSD(8_500_000_000), tokens: nil)
        let transport = TestTransport { call, _ in .answer(Self.completion, cost: 1) }
        let answer = await gateway.respond(
            to: chat(#""model": "big""#), ledger: ledger, transport: transport)
        #expect(answer.field("weir-decision") == "downgraded")
        #expect(answer.field("weir-agent") == "scribe" && answer.field("weir-model") == "small")
    }

    @Test func whatIsOnlyObservedIsAnAnswer() async throws {
        let transport = TestTransport { _, _ in
            .observed(Self.completion, .rateLimited, cost: 3)
        }
        let answer = await gateway.respond(to: chat(#""model": "scribe""#), transport: transport)
        #expect(answer.status == 200 && answer.field("weir-cost-usd") == "0.000000003")
    }

    // MARK: Streams

    @Test(arguments: [true, false])
    func aStreamPassesAndItsCostIsATrailer(wantsUsage: Bool) async throws {
        let ledger = TestLedger()
        let sent = Mutex<JSONValue>(.null)
        let transport = TestTransport { call, _ in
            sent.withLock { $0 = (try? JSON.parse(call.body)) ?? .null }
            return .events([Self.chunk, Self.usage, Self.done], cost: 700)
        }
        let november = try #require(Period("2026-11"))
        ledger.state.withLock {
            $0.warnings = [(AccountKey.Scope.user, 83), (.tenant, 101)].map {
                BudgetWarning(
                    account: AccountKey(unit: .usd, scope: $0, period: november, id: "x"),
                    spentPercent: $1)
            }
        }
        let options = wantsUsage ? #", "stream_options": {"include_usage": true}"# : ""
        let answer = await gateway.respond(
            to: chat(#""model": "writer", "stream": true"# + options), ledger: ledger,
            transport: transport)
        #expect(answer.field("content-type") == "text/event-stream; charset=utf-8")
        #expect(answer.field("weir-cost-usd") == nil)
        #expect(answer.field("weir-budget-warning") == "user/month 83%, tenant/month 101%")
        #expect(gateway.metrics.seen.withLock { $0 }.isEmpty)
        // The place at the gateway is held until the stream has ended.
        #expect(gateway.running == 1)
        let written = try await answer.written()
        #expect(written.text == Self.chunk + (wantsUsage ? Self.usage : "") + Self.done)
        #expect(
            written.trailers == [
                GatewayField("weir-cost-usd", "0.0000007"),
                GatewayField("weir-budget-remaining-usd", "99.9999993"),
            ])
        #expect(sent.withLock { $0["stream_options"]?["include_usage"] } == true)
        #expect(ledger.state.withLock { $0.consumed } == NanoUSD(700))
        #expect(gateway.metrics.seen.withLock { $0 } == ["chat_completions gold complete"])
        #expect(gateway.running == 0)
    }

    @Test func aStreamThatBreaksOffSaysSoAndStaysOpenInTheLedger() async throws {
        let ledger = TestLedger()
        let transport = TestTransport { _, _ in .broken([Self.chunk]) }
        let answer = await gateway.respond(
            to: chat(#""model": "scribe", "stream": true"#), ledger: ledger, transport: transport)
        let written = try await answer.written()
        let rest = try #require(written.text.split(separator: "data: ").last)
        let problem = try JSON.parse(String(rest))["error"]
        #expect(problem?["code"] == "upstream_error" && problem?["type"] == "server_error")
        #expect(ledger.state.withLock { $0.lost }.count == 1)
        // The whole reservation, until the control plane knows better.
        let open = ledger.state.withLock { $0.open.values.reduce(.zero, +) }
        #expect(written.trailers.first == GatewayField("weir-cost-usd", open.usd))
        #expect(gateway.metrics.seen.withLock { $0 } == ["chat_completions gold upstream_error"])
    }

    @Test func aClientThatLeavesEndsTheCallOnce() async throws {
        let ledger = TestLedger()
        let transport = TestTransport { _, _ in .events([Self.chunk, Self.done], cost: 1) }
        do {
            let answer = await gateway.respond(
                to: chat(#""model": "scribe", "stream": true"#), ledger: ledger,
                transport: transport)
            await #expect(throws: CancellationError.self) { try await answer.written(piecesMax: 0) }
            #expect(ledger.state.withLock { $0.lost }.count == 1)
            #expect(gateway.running == 0)
        }
        #expect(ledger.state.withLock { $0.lost }.count == 1)
        #expect(gateway.metrics.seen.withLock { $0 } == ["chat_completions gold cancelled"])
    }

    /// The client is gone before anything of the stream was asked for.
    @Test func aStreamThatNobodyReadsIsGivenBack() async throws {
        let ledger = TestLedger()
        let transport = TestTransport { _, _ in .events([Self.chunk, Self.done], cost: 1) }
        do {
            _ = await gateway.respond(
                to: chat(#""model": "scribe", "stream": true"#), ledger: ledger,
                transport: transport)
        }
        #expect(ledger.state.withLock { $0.lost }.count == 1)
        #expect(gateway.running == 0)
        #expect(gateway.metrics.seen.withLock { $0 } == ["chat_completions gold cancelled"])
    }

    // MARK: Refusals

    @Test(arguments: [
        (#""model": "nobody""#, 404, "model_not_found", "model"),
        (#""model": "mood""#, 404, "model_not_found", "model"),
        (#""model": "reserve""#, 403, "agent_not_allowed", "model"),
        (#""seed": 1"#, 422, "invalid", "model"),
        (#""model": "writer", "max_tokens": 0"#, 422, "invalid", "max_tokens"),
        (#""model": "writer", "audio": {}"#, 403, "unmetered_path", "audio"),
        (#""model": "writer", "model": "writer""#, 400, "duplicate_key", nil),
    ])
    func aBadRequestCostsNothing(
        fields: String, status: Int, code: String, parameter: String?
    ) async throws {
        let ledger = TestLedger(requestsMax: 1)
        let answer = await gateway.respond(to: chat(fields), ledger: ledger)
        let error = try error(answer)
        #expect(answer.status == status)
        #expect(error["code"]?.string == code)
        #expect(error["param"]?.string == parameter)
        #expect(error["message"]?.string?.isEmpty == false)
        #expect(answer.field("x-should-retry") == "false")
        #expect(ledger.state.withLock { $0.requests == 0 && $0.children == 0 })
    }

    @Test func whoIsNotKnownIsRefusedInTheFormOfTheAPI() async throws {
        let answer = await gateway.respond(to: chat(#""model": "writer""#, token: "sk-wrong"))
        #expect(answer.status == 401 && answer.field("www-authenticate") == "Bearer")
        let error = try error(answer)
        #expect(error["code"] == "invalid_api_key" && error["type"] == "authentication_error")
        let nowhere = await gateway.respond(
            to: gateway.request("POST", "/v1/embeddings", body: "{}"))
        #expect(nowhere.status == 404)
        #expect(try self.error(nowhere)["code"] == "unknown_route")
        let method = await gateway.respond(to: gateway.request("GET", "/v1/chat/completions"))
        #expect(method.status == 405 && method.field("allow") == "POST")
        #expect(try self.error(method)["code"] == "method")
    }

    @Test func refusalsForMoneyAndRequestsSayWhen() async throws {
        let poor = await gateway.respond(
            to: chat(#""model": "scribe""#), ledger: TestLedger(limit: NanoUSD(10)))
        #expect(poor.status == 402 && poor.field("x-should-retry") == "false")
        let money = try error(poor)
        #expect(money["type"] == "insufficient_quota" && money["code"] == "budget_exhausted")
        #expect(money["resets_at"] == "2026-12-01T00:00:00Z")
        let often = await gateway.respond(
            to: chat(#""model": "scribe""#), ledger: TestLedger(requestsMax: 0))
        #expect(often.status == 429 && often.field("x-should-retry") == "false")
        #expect(often.field("retry-after") == "34800")
        #expect(try error(often)["code"] == "quota_exhausted")
    }

    @Test func anAgentThatIsOutIsWorthAnotherTry() async throws {
        let transport = TestTransport { _, _ in .refused(.circuitOpen) }
        let answer = await gateway.respond(to: chat(#""model": "big""#), transport: transport)
        #expect(answer.status == 503 && answer.field("retry-after") == "1")
        #expect(answer.field("x-should-retry") == nil)
        #expect(answer.field("weir-cost-usd") == "0.000000")
        #expect(try error(answer)["type"] == "server_error")
    }

    // MARK: Models

    @Test func modelsAreWhatTheCallerMayName() async throws {
        let answer = await gateway.respond(to: gateway.request("GET", "/v1/models"))
        #expect(answer.status == 200)
        let json = try JSON.parse(answer.bytes)
        let models = try #require(json["data"]?.array)
        #expect(json["object"] == "list")
        #expect(
            models.compactMap { $0["id"]?.string } == [
                "scribe", "small", "writer", "big", "grand", "lab/big",
            ])
        #expect(
            models.last == [
                "id": "lab/big", "object": "model", "created": 0, "owned_by": "writer",
                "root": "big",
            ])
    }

    @Test(arguments: [
        ("big", 200), ("grand", 200), ("lab/big", 200), ("lab%2Fbig", 200), ("nobody", 404),
        ("mood", 404), ("reserve", 403), ("%zz", 400),
    ])
    func oneModel(name: String, status: Int) async throws {
        let answer = await gateway.respond(to: gateway.request("GET", "/v1/models/\(name)"))
        #expect(answer.status == status)
        if status == 200 {
            #expect(try JSON.parse(answer.bytes)["owned_by"] == "writer")
        } else {
            #expect(try error(answer)["message"]?.string?.isEmpty == false)
        }
    }
}
