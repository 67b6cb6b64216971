import Synchronization
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarGateway

/// `POST /agents/test` over sidecars in memory.
@Suite struct AgentTestEndpointTests {
    private struct NoMetrics: GatewayMetrics {
        func analysisEnded(type: String, tier: String, status: String, nanoseconds: UInt64) {}
        func observed(_ reasons: [Reason], tier: String) {}
        func stepsEnded(_ steps: [StepReport]) {}
        var vitals: GatewayVitals { GatewayVitals() }
    }

    private func test(
        _ body: String, roles: [String] = ["operator"], ledger: TestLedger = TestLedger(),
        transport: TestTransport = .healthy
    ) async throws -> (status: Int, body: JSONValue) {
        let snapshot = try GatewayFixture.snapshot(without: ["scribe"])
        func binding(_ user: String, _ accounts: [SubjectBinding.Account]) -> CallerBinding {
            .bound(
                SubjectBinding(
                    user: user, tenant: nil, tier: "gold", roles: roles, accounts: accounts,
                    preferences: nil, timeToLiveMilliseconds: 1_000))
        }
        let account = SubjectBinding.Account(
            unit: .usd, scope: .mesh, period: .month, id: "tests", limit: NanoUSD(1_000_000))
        let operators = binding("olga", [])
        let mesh = binding("mesh", [account])
        let service = GatewayService(
            configuration: GatewayConfiguration(
                verifier: try #require(TokenVerifier(keys: [TokenVerifierTests.key]))),
            dependencies: GatewayDependencies(
                snapshot: { snapshot }, bind: { $0.isMesh == true ? mesh : operators },
                ledger: { binding, _, _ in
                    // Whoever asks, the mesh pays.
                    #expect(binding.user == "mesh")
                    return ledger
                },
                ask: { _, _ in .unavailable }, idempotency: { _ in .unavailable },
                controlPlane: { ControlPlaneView(isReachable: true, silentMilliseconds: 0) },
                metrics: NoMetrics()))
        let token = TokenVerifierTests.token(payload: TokenVerifierTests.good)
        let answer = await service.respond(
            to: GatewayRequest(
                id: "req_01ARZ3NDEKTSV4RRFFQ69G5FAV", method: "POST", path: "/agents/test",
                fields: [
                    GatewayField("authorization", "Bearer " + token),
                    GatewayField("content-type", "application/json"),
                ], body: Array(body.utf8)),
            on: GatewayWorker(transport: transport, clock: TestClock()) { _ in })
        guard case .bytes(let bytes) = answer.body else { return (answer.status, .null) }
        return (answer.status, try JSON.parse(bytes))
    }

    @Test func aCallIsMadeAndTheMeshPays() async throws {
        let ledger = TestLedger()
        let answer = try await test(#"{"agent": "writer"}"#, ledger: ledger)
        #expect(answer.status == 200, "\(answer.body.text)")
        #expect(answer.body["outcome"] == "ok")
        #expect(answer.body["cost_usd"] == "0.000500")
        #expect(answer.body["cost_source"] == "reported")
        #expect(answer.body["paid_by"] == "usd/mesh/2026-11/tests")
        #expect(answer.body["answer"]?["choices"]?.array?.count == 1)
        #expect(ledger.state.withLock { $0.consumed } == NanoUSD(500_000))
        #expect(ledger.state.withLock { $0.requests } == 0)
    }

    @Test func everyProtocolHasACheapInput() async throws {
        for (name, part) in [("mood", "inputs"), ("risk", "positions"), ("writer", "max_tokens")] {
            let transport = TestTransport { call, delegation in
                #expect((try? JSON.parse(call.body))?[part] != nil)
                return await TestTransport.healthy.react(call, delegation)
            }
            let answer = try await test(
                JSONValue.object(["agent": .string(name)]).text, transport: transport)
            #expect(answer.body["outcome"] == "ok", "\(answer.body.text)")
        }
        let own = TestTransport { call, _ in
            #expect(String(decoding: call.body, as: UTF8.self) == #"{"positions":[]}"#)
            return .answer("{}", cost: 10_000_000)
        }
        let answer = try await test(
            #"{"agent": "risk", "input": {"positions": []}}"#, transport: own)
        #expect(answer.body["outcome"] == "ok")
    }

    @Test func whatTheAgentDoesIsTheAnswerAndNotTheStatus() async throws {
        let failing = TestTransport { _, _ in .status(500, cost: 10_000_000) }
        let failed = try await test(#"{"agent": "risk"}"#, transport: failing)
        #expect(failed.status == 200)
        #expect(failed.body["outcome"] == "upstream_error")
        #expect(failed.body["cost_usd"] == "0.010000")
        let open = TestTransport { _, _ in .refused(.circuitOpen) }
        let refused = try await test(#"{"agent": "risk"}"#, transport: open)
        #expect(refused.body["outcome"] == "circuit_open")
        #expect(refused.body["cost_usd"] == "0.000000")
    }

    @Test func refusals() async throws {
        #expect(try await test(#"{"agent": "risk"}"#, roles: []).status == 403)
        #expect(try await test(#"{"agent": "ghost"}"#).status == 404)
        #expect(try await test(#"{"agent": "scribe"}"#).status == 503)
        let spent = try await test(#"{"agent": "risk"}"#, ledger: TestLedger(limit: .zero))
        #expect(spent.status == 402)
        let wrong = try await test(#"{"agent": 5, "input": [], "times": 1000}"#)
        #expect(wrong.status == 422)
        #expect(
            wrong.body["errors"]?.array?.compactMap { $0["pointer"]?.string } == [
                "/times", "/agent", "/input",
            ])
    }
}
