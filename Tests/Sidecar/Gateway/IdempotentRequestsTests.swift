import Synchronization
import Testing
import WeirCore
import WeirMeshProtocol

@testable import SidecarGateway

/// The gateway's side of idempotency keys, with the control plane's rows in memory.
@Suite(.timeLimit(.minutes(1))) struct IdempotentRequestsTests {
    private final class Rows: Sendable {
        struct Row {
            var bodyHash: String
            var claim: String
            var answer: StoredAnswer?
        }
        let rows = Mutex<[String: Row]>([:])
        let isAway = Mutex(false)

        func tell(_ request: IdempotencyRequest) -> MeshOutcome<IdempotencyResponse> {
            guard !isAway.withLock({ $0 }) else { return .unavailable }
            let name = request.user + " " + request.key
            return rows.withLock { rows in
                if let row = rows[name], row.bodyHash != request.bodyHash {
                    return .answered(IdempotencyResponse(state: .mismatch, answer: nil))
                }
                switch request.action {
                case .claim:
                    if let answer = rows[name]?.answer {
                        return .answered(IdempotencyResponse(state: .stored, answer: answer))
                    }
                    if let row = rows[name], row.claim != request.claim {
                        return .answered(IdempotencyResponse(state: .inFlight, answer: nil))
                    }
                    rows[name] = Row(bodyHash: request.bodyHash, claim: request.claim)
                    return .answered(IdempotencyResponse(state: .new, answer: nil))
                case .complete(let answer):
                    rows[name]?.answer = answer
                    return .answered(IdempotencyResponse(state: .stored, answer: answer))
                case .release:
                    if rows[name]?.claim == request.claim { rows[name] = nil }
                    return .answered(IdempotencyResponse(state: .released, answer: nil))
                }
            }
        }
    }

    private final class Metrics: GatewayMetrics {
        let statuses = Mutex<[String]>([])
        func analysisEnded(type: String, tier: String, status: String, nanoseconds: UInt64) {
            statuses.withLock { $0.append(status) }
        }

        func observed(_ reasons: [Reason], tier: String) {}
        func stepsEnded(_ steps: [StepReport]) {}
        var vitals: GatewayVitals { GatewayVitals() }
    }

    private let rows = Rows()
    private let metrics = Metrics()
    private let ledger = TestLedger(requestsMax: 100)
    private let body = #"{"analysis_type": "news", "data": {"text": "up"}}"#

    private func analyze(
        _ body: String, id: String, keys: [String] = ["key-1"], accept: String? = nil,
        transport: TestTransport = .healthy, ledger: TestLedger? = nil
    ) async throws -> GatewayAnswer {
        let (rows, ledger) = (rows, ledger ?? self.ledger)
        let snapshot = try GatewayFixture.snapshot()
        let binding = SubjectBinding(
            user: "alice", tenant: nil, tier: "gold", roles: [], accounts: [], preferences: nil,
            timeToLiveMilliseconds: 1_000)
        let service = GatewayService(
            configuration: GatewayConfiguration(
                verifier: try #require(TokenVerifier(keys: [TokenVerifierTests.key]))),
            dependencies: GatewayDependencies(
                snapshot: { snapshot }, bind: { _ in .bound(binding) },
                ledger: { _, _, _ in ledger }, ask: { _, _ in .unavailable },
                idempotency: { rows.tell($0) },
                controlPlane: { ControlPlaneView(isReachable: true, silentMilliseconds: 0) },
                metrics: metrics))
        let token = TokenVerifierTests.token(payload: TokenVerifierTests.good)
        var fields = [
            GatewayField("authorization", "Bearer " + token),
            GatewayField("content-type", "application/json"),
        ]
        fields += keys.map { GatewayField("idempotency-key", $0) }
        if let accept { fields.append(GatewayField("accept", accept)) }
        return await service.respond(
            to: GatewayRequest(
                id: id, method: "POST", path: "/analyze", fields: fields, body: Array(body.utf8)),
            on: GatewayWorker(transport: transport, clock: TestClock()) { work in
                Task { await work() }
            })
    }

    private func text(_ answer: GatewayAnswer) -> String {
        guard case .bytes(let bytes) = answer.body else { return "" }
        return String(decoding: bytes, as: UTF8.self)
    }

    private func value(_ answer: GatewayAnswer, _ name: String) -> String? {
        answer.fields.first { $0.name == name }?.value
    }

    @Test func theSameAgainCostsNothing() async throws {
        let first = try await analyze(body, id: "req_1")
        #expect(first.status == 200)
        #expect(value(first, "weir-idempotent-replayed") == nil)
        let (consumed, requests) = ledger.state.withLock { ($0.consumed, $0.requests) }
        #expect(consumed > .zero && requests == 1)
        // Another spelling of the same document.
        let again = try await analyze(
            #"{"data": {"text": "up"},  "analysis_type": "news"}"#, id: "req_2")
        #expect(again.status == 200)
        #expect(text(again) == text(first))
        #expect(value(again, "weir-idempotent-replayed") == "true")
        #expect(value(again, "weir-cost-usd") == "0.000000")
        #expect(value(again, "weir-decision") == "admitted")
        #expect(ledger.state.withLock { $0.consumed } == consumed)
        #expect(ledger.state.withLock { $0.requests } == 1)
        #expect(metrics.statuses.withLock { $0 } == ["complete", "replayed"])
    }

    @Test func anotherBodyUnderTheKeyIsRefused() async throws {
        _ = try await analyze(body, id: "req_1")
        let other = try await analyze(
            #"{"analysis_type": "news", "data": {"text": "down"}}"#, id: "req_2")
        #expect(other.status == 422)
        #expect(ledger.state.withLock { $0.requests } == 1)
    }

    @Test func whatIsInFlightIsNotCarriedOutTwice() async throws {
        let (answers, next) = AsyncStream.makeStream(of: GatewayAnswer.self)
        let transport = TestTransport { call, _ in
            if call.agent == "mood" {
                // While the first is under way the same comes again.
                if let second = try? await analyze(body, id: "req_2") { next.yield(second) }
                next.finish()
                return .answer(TestTransport.mood, cost: 120_000)
            }
            return .answer(TestTransport.prose, cost: 500_000)
        }
        let first = try await analyze(body, id: "req_1", transport: transport)
        #expect(first.status == 200)
        var second: GatewayAnswer?
        for await answer in answers { second = answer }
        #expect(second?.status == 409)
        #expect(second.map { value($0, "retry-after") } == "1")
        #expect(ledger.state.withLock { $0.requests } == 1)
    }

    /// A refusal is no end: the same request may be admitted later.
    @Test func refusalsGiveTheKeyBack() async throws {
        let empty = TestLedger(requestsMax: 0)
        #expect(try await analyze(body, id: "req_1", ledger: empty).status == 429)
        let poor = TestLedger(limit: .zero)
        #expect(try await analyze(body, id: "req_2", ledger: poor).status == 402)
        #expect(try await analyze(body, id: "req_3").status == 200)
    }

    /// What an agent failed at has an end, and may have cost something.
    @Test func aFailureOfAnAgentIsReplayed() async throws {
        let failing = TestTransport { _, _ in .status(500, cost: 120_000) }
        let first = try await analyze(body, id: "req_1", transport: failing)
        #expect(first.status == 502)
        let again = try await analyze(body, id: "req_2")
        #expect(again.status == 502)
        #expect(text(again) == text(first))
        #expect(try await analyze(body, id: "req_3", keys: ["key-2"]).status == 200)
    }

    @Test func withoutTheControlPlaneNothingIsCarriedOut() async throws {
        rows.isAway.withLock { $0 = true }
        let answer = try await analyze(body, id: "req_1")
        #expect(answer.status == 503)
        #expect(text(answer).contains("control_plane_lost"))
        #expect(ledger.state.withLock { $0.requests } == 0)
        #expect(try await analyze(body, id: "req_2", keys: []).status == 200)
    }

    @Test(arguments: [
        ["a", "b"], [""], ["with space"], [String(repeating: "k", count: 256)], ["schlüssel"],
    ])
    func aKeyThatIsNoneIsRefused(keys: [String]) async throws {
        #expect(try await analyze(body, id: "req_1", keys: keys).status == 400)
        #expect(ledger.state.withLock { $0.requests } == 0)
    }

    @Test func aStreamCannotBeReplayed() async throws {
        let answer = try await analyze(body, id: "req_1", accept: "text/event-stream")
        #expect(answer.status == 422)
        #expect(text(answer).contains("/headers/accept"))
    }

    @Test func anAnswerThatIsTooLargeIsReplayedAsAProblem() async throws {
        let long = String(repeating: "x", count: MeshLimits.storedAnswerBytesMax)
        let transport = TestTransport { call, _ in
            call.agent == "mood"
                ? .answer(TestTransport.mood, cost: 120_000)
                : .answer(#"{"choices": [{"message": {"content": "\#(long)"}}]}"#, cost: 1)
        }
        #expect(try await analyze(body, id: "req_1", transport: transport).status == 200)
        let again = try await analyze(body, id: "req_2")
        #expect(again.status == 413)
        #expect(value(again, "weir-idempotent-replayed") == "true")
        #expect(ledger.state.withLock { $0.requests } == 1)
    }
}
