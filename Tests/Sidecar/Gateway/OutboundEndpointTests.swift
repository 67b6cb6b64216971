import SidecarCore
import Synchronization
import Testing
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarGateway

/// Calls of agents at the gateway, over sidecars in memory. `mood`, whose sidecar has incarnation
/// 100 there, may call writer for $0.05.
@Suite(.timeLimit(.minutes(1))) struct OutboundEndpointTests {
    private static let messages = #""messages": [{"role": "user", "content": "Up?"}]"#
    private static let completion =
        #"{"choices": [{"message": {"content": "Up."}}], "usage": {"prompt_tokens": 9}}"#
    private static let limit = NanoUSD(50_000_000)

    private func gateway(
        mayCall agents: [String] = ["writer"],
        bind: @escaping @Sendable (SubjectRequest) -> CallerBinding? = { _ in nil }
    ) throws -> ChatGateway {
        try ChatGateway(
            change: {
                $0.agents["mood"]?.outbound = .init(agents: agents, maxCostPerRequest: Self.limit)
            }, bind: bind)
    }

    private func request(
        _ path: String, body: String = "{\(messages)}", method: String = "POST",
        _ change: (inout OutboundCall) -> Void = { _ in }
    ) -> GatewayRequest {
        var call = OutboundCall(
            keyID: 3, issuer: Incarnation(100), number: 1, amount: Self.limit,
            run: Identifier(high: 8, low: 9), subject: "alice", tenant: "", tier: "gold",
            knownBy: .user, requestType: "news", agent: "mood", path: path, depth: 1,
            remainingMilliseconds: 1_000)
        change(&call)
        return GatewayRequest(
            id: GatewayServiceTests.id, method: method, path: OutboundCall.pathPrefix + path,
            fields: [
                GatewayField("content-type", "application/json"),
                GatewayField(
                    "authorization",
                    "Weir-Run " + Sealed.seal(call.payload, key: GatewayFixture.hopKey)),
            ], body: Array(body.utf8))
    }

    private func reason(_ answer: GatewayAnswer) throws -> String? {
        let body = try JSON.parse(answer.bytes)
        return body["reason"]?.string ?? body["error"]?["code"]?.string
    }

    @Test func aCallIsOneChildOfTheSameRunAndNoRequestOfTheUser() async throws {
        let ledger = TestLedger(requestsMax: 10)
        let transport = TestTransport { call, delegation in
            #expect(call.body == Array("{\(Self.messages)}".utf8) || delegation.agent == "writer")
            #expect(delegation.run == Identifier(high: 8, low: 9) && delegation.depth == 1)
            #expect(delegation.subject == "alice" && delegation.requestType == "news")
            return .answer(Self.completion, cost: 500_000)
        }
        let gateway = try gateway()
        let answer = await gateway.respond(
            to: request("/agents/writer"), ledger: ledger, transport: transport)
        #expect(answer.status == 200 && answer.bytes == Array(Self.completion.utf8))
        #expect(answer.field("weir-cost-usd") == "0.000500")
        #expect(answer.field("weir-agent") == "writer")
        let state = ledger.state.withLock { $0 }
        #expect(state.requests == 0 && state.open.isEmpty)
        #expect(state.consumed == NanoUSD(500_000))
        #expect(gateway.metrics.seen.withLock { $0 }.isEmpty, "no request of a user is counted")
    }

    @Test func modelsAreAgentsAndOnlyThoseOfThePolicyAreFallenBackTo() async throws {
        let called = Mutex<[String]>([])
        let failing = TestTransport { call, _ in
            called.withLock { $0.append(call.agent) }
            return .status(500, cost: 0)
        }
        let chat = "{\"model\": \"grand\", \(Self.messages)}"
        let alone = try await gateway().respond(
            to: request("/v1/chat/completions", body: chat), transport: failing)
        #expect(alone.status == 502 && called.withLock { $0 } == ["writer"])
        #expect(alone.field("weir-cost-usd") == "0.000000")
        called.withLock { $0 = [] }
        _ = try await gateway(mayCall: ["writer", "scribe"]).respond(
            to: request("/v1/chat/completions", body: chat), transport: failing)
        #expect(called.withLock { $0 } == ["writer", "scribe"])
    }

    @Test func aStreamSaysItsCostBehindItsEnd() async throws {
        let transport = TestTransport { _, _ in
            .events(["data: {\"choices\": []}\n\n", "data: [DONE]\n\n"], cost: 400)
        }
        let chat = "{\"model\": \"writer\", \"stream\": true, \(Self.messages)}"
        let answer = try await gateway().respond(
            to: request("/v1/chat/completions", body: chat), transport: transport)
        #expect(answer.status == 200 && answer.field("weir-cost-usd") == nil)
        let written = try await answer.written()
        #expect(written.text.hasSuffix("data: [DONE]\n\n"))
        #expect(written.trailers.first { $0.name == "weir-cost-usd" }?.value == "0.0000004")
    }

    @Test func whatMayNotBeCalledIsNotCalledAndCostsNothing() async throws {
        let transport = TestTransport { call, _ in
            Issue.record("\(call.agent) was called")
            return .notSent
        }
        let gateway = try gateway(mayCall: ["writer", "reserve"])
        let cases: [(String, String?, Int, String)] = [
            ("/agents/scribe", nil, 403, "agent_not_allowed"),
            ("/agents/reserve", nil, 403, "agent_not_allowed"),
            ("/agents/nobody", nil, 404, "unknown_agent"),
            ("/v1/chat/completions", "{\"model\": \"scribe\"}", 403, "agent_not_allowed"),
            ("/v1/chat/completions", "{\"model\": \"nothing\"}", 404, "model_not_found"),
            ("/v1/chat/completions", "{}", 422, "invalid"),
        ]
        for (number, (path, body, status, expected)) in cases.enumerated() {
            let answer = await gateway.respond(
                to: request(path, body: body ?? "{\(Self.messages)}") {
                    $0.number = UInt64(number + 1)
                }, transport: transport)
            #expect(answer.status == status, "\(path) \(body ?? "")")
            #expect(try reason(answer) == expected)
            #expect(answer.field("weir-cost-usd") == "0.000000")
        }
    }

    @Test func aCallThatMayCostMoreThanIsLeftIsRefused() async throws {
        let answer = try await gateway().respond(
            to: request("/agents/writer") { $0.amount = NanoUSD(1) })
        #expect(answer.status == 402 && answer.field("weir-cost-usd") == "0.000000")
        #expect(try reason(answer) == "budget_exhausted")
    }

    @Test func theSameAccountsPayAsForTheRequest() async throws {
        let asked = Mutex<[SubjectRequest]>([])
        let gateway = try gateway(bind: { request in
            asked.withLock { $0.append(request) }
            return nil
        })
        let hash = String(repeating: "0a", count: 32)
        let byKey = await gateway.respond(
            to: request("/agents/writer") { $0.knownBy = .apiKey(hash: hash) })
        #expect(byKey.status == 200)
        let byToken = await gateway.respond(to: request("/agents/writer") { $0.number = 2 })
        #expect(byToken.status == 200)
        #expect(asked.withLock { $0.map(\.apiKeyHash) } == [hash, nil])
        #expect(asked.withLock { $0.last?.claims?.subject } == "alice")
        // A key that is somebody else's by now pays for nobody.
        let other = await gateway.respond(
            to: request("/agents/writer") {
                $0.number = 3
                $0.subject = "bob"
            })
        #expect(other.status == 403)
        let revoked = try await self.gateway(bind: { _ in .refused(.unauthenticated, "revoked") })
            .respond(to: request("/agents/writer"))
        #expect(revoked.status == 401)
    }

    @Test func anAgentSeesTheModelsThatItMayCall() async throws {
        let answer = try await gateway().respond(
            to: request("/v1/models", body: "", method: "GET"))
        let names = try JSON.parse(answer.bytes)["data"]?.array?.compactMap { $0["id"]?.string }
        #expect(names == ["writer", "big", "grand", "lab/big"])
    }

    @Test func usersReachNoneOfIt() async throws {
        for (method, path) in [
            ("POST", "/outbound/agents/writer"), ("POST", "/outbound/v1/chat/completions"),
            ("GET", "/outbound/v1/models"),
        ] {
            let gateway = try gateway()
            let answer = await gateway.respond(
                to: gateway.request(method, path, body: "{}"), transport: TestTransport.healthy)
            #expect(answer.status == 403, "\(path)")
        }
    }
}
