import SidecarCore
import Synchronization
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarGateway

/// Keeps what is written; a client that goes away after so many writes.
private final class TestWriter: AnswerWriter {
    private let written = Mutex<[UInt8]>([])
    private let left: Mutex<Int>

    init(writesMax: Int = .max) { left = Mutex(writesMax) }

    var text: String { String(decoding: written.withLock { $0 }, as: UTF8.self) }

    func write(_ bytes: [UInt8]) async throws(CancellationError) {
        let isGone = left.withLock { left in
            left -= 1
            return left < 0
        }
        if isGone { throw CancellationError() }
        written.withLock { $0 += bytes }
    }

    func addTrailer(_ field: GatewayField) { Issue.record("no trailer was announced") }
}

private struct Event: Equatable {
    let name: String
    let data: JSONValue

    /// Strict: what a client of the format reads, and nothing else.
    static func read(_ text: String) throws -> [Event] {
        #expect(text.hasSuffix("\n\n"))
        return try text.split(separator: "\n\n").compactMap { block in
            if block.hasPrefix(":") { return nil }
            let lines = block.split(separator: "\n")
            try #require(lines.count == 2, "\(block)")
            try #require(lines[0].hasPrefix("event: ") && lines[1].hasPrefix("data: "))
            return Event(
                name: String(lines[0].dropFirst(7)),
                data: try JSON.parse(String(lines[1].dropFirst(6))))
        }
    }
}

@Suite(.timeLimit(.minutes(1))) struct EventStreamTests {
    private final class Counted: GatewayMetrics {
        let ends = Mutex<[String]>([])
        let fallbacks = Mutex<[StepReport.Fallback]>([])

        func analysisEnded(type: String, tier: String, status: String, nanoseconds: UInt64) {
            ends.withLock { $0.append("\(type) \(tier) \(status)") }
        }

        func stepsEnded(_ steps: [StepReport]) {
            fallbacks.withLock { $0 += steps.compactMap(\.fallback) }
        }

        func observed(_ reasons: [Reason], tier: String) {}
        var vitals: GatewayVitals { GatewayVitals() }
    }

    private let metrics = Counted()
    private let ledger = TestLedger()

    private func answer(
        _ transport: TestTransport, data: String = #"{"text": "up"}"#,
        accept: String = "text/event-stream", clock: any GatewayClock = TestClock()
    ) async throws -> (GatewayAnswer, GatewayService) {
        let snapshot = try GatewayFixture.snapshot()
        let binding = SubjectBinding(
            user: "alice", tenant: nil, tier: "gold", roles: [], accounts: [], preferences: nil,
            timeToLiveMilliseconds: 1_000)
        let service = GatewayService(
            configuration: GatewayConfiguration(
                verifier: try #require(TokenVerifier(keys: [TokenVerifierTests.key]))),
            dependencies: GatewayDependencies(
                snapshot: { snapshot }, bind: { _ in .bound(binding) },
                ledger: { [ledger] _, _, _ in ledger }, ask: { _, _ in .unavailable },
                idempotency: { _ in .unavailable },
                controlPlane: { ControlPlaneView(isReachable: true, silentMilliseconds: 0) },
                sight: MeshSight(), metrics: metrics))
        let token = TokenVerifierTests.token(payload: TokenVerifierTests.good)
        let request = GatewayRequest(
            id: GatewayServiceTests.id, method: "POST", path: "/analyze",
            fields: [
                GatewayField("content-type", "application/json"), GatewayField("accept", accept),
                GatewayField("authorization", "Bearer " + token),
            ], body: Array(#"{"analysis_type": "news", "data": \#(data)}"#.utf8))
        let worker = GatewayWorker(transport: transport, clock: clock) { _ in }
        return (await service.respond(to: request, on: worker), service)
    }

    private func events(_ answer: GatewayAnswer) async throws -> [Event] {
        guard case .stream(let write) = answer.body else {
            Issue.record("no stream: \(answer)")
            return []
        }
        let writer = TestWriter()
        try await write(writer)
        return try Event.read(writer.text)
    }

    private static func chunk(_ words: String, finish: String? = nil) -> String {
        let finish = finish.map { "\"\($0)\"" } ?? "null"
        return #"data: {"choices":[{"delta":{"content":"\#(words)"},"finish_reason":\#(finish)}]}"#
            + "\n\n"
    }

    @Test func aRunIsToldStepByStep() async throws {
        let transport = TestTransport { call, delegation in
            guard call.agent == "writer" else {
                return await TestTransport.healthy.react(call, delegation)
            }
            #expect(call.headers.contains(.init(name: "accept", value: "text/event-stream")))
            #expect((try? JSON.parse(call.body))?["stream"] == true)
            return .events(
                [Self.chunk("Up"), Self.chunk(" it goes.", finish: "stop"), "data: [DONE]\n\n"],
                cost: 500_000)
        }
        let (answer, _) = try await answer(transport)
        #expect(answer.status == 200)
        #expect(answer.fields.contains(GatewayField("content-type", "text/event-stream")))
        let events = try await events(answer)
        let names = events.map(\.name).filter { $0 != "step.delta" }
        #expect(
            names == [
                "step.started", "step.completed", "step.started", "step.completed", "done",
            ])
        let deltas = events.filter { $0.name == "step.delta" }
        #expect(deltas.compactMap { $0.data["text"]?.string }.joined() == "Up it goes.")
        #expect(deltas.allSatisfy { $0.data["name"] == "prose" && $0.data["agent"] == "writer" })
        #expect(deltas.allSatisfy { $0.data["attempt"] == 1 })
        let done = try #require(events.last?.data)
        #expect(done["status"] == "complete")
        #expect(
            done["steps"]?.array?.last?["result"]
                == ["text": "Up it goes.", "finish_reason": "stop"])
        #expect(done["steps"]?.array?.last?["cost_usd"] == "0.000500")
        #expect(events[1].data == done["steps"]?.array?.first)
        #expect(metrics.ends.withLock { $0 } == ["news gold complete"])
    }

    @Test func aStreamThatBreaksOffBeginsAnewWithTheNextAgent() async throws {
        let transport = TestTransport { call, delegation in
            switch call.agent {
            case "writer": .events([Self.chunk("Half a")], cost: 9_000)
            case "scribe": .events([Self.chunk("Whole.", finish: "stop")], cost: 5_000)
            default: await TestTransport.healthy.react(call, delegation)
            }
        }
        let events = try await events(try await answer(transport).0)
        let deltas = events.filter { $0.name == "step.delta" }.map(\.data)
        #expect(deltas.map { $0["text"] } == ["Half a", "Whole."])
        #expect(deltas.map { $0["attempt"] } == [1, 2])
        let step = try #require(events.last?.data["steps"]?.array?.last)
        #expect(step["result"]?["text"] == "Whole.")
        #expect(step["fallback"] == ["from": "writer", "reason": "upstream_error"])
        #expect(
            metrics.fallbacks.withLock { $0 } == [
                StepReport.Fallback(from: "writer", reason: .upstreamError)
            ])
    }

    @Test func anAgentThatDoesNotStreamIsReadWhole() async throws {
        let events = try await events(try await answer(TestTransport.healthy).0)
        #expect(!events.contains { $0.name == "step.delta" })
        #expect(events.last?.data["steps"]?.array?.last?["result"]?["text"] == "Up.")
    }

    @Test func aFailureIsTheLastEvent() async throws {
        let (answer, _) = try await answer(TestTransport { _, _ in .status(500, cost: 7) })
        let events = try await events(answer)
        #expect(events.map(\.name) == ["step.started", "step.failed", "error"])
        #expect(events[1].data["problem"]?["reason"] == "upstream_error")
        let problem = try #require(events.last?.data)
        #expect(problem["status"] == 502)
        #expect(problem["reason"] == "upstream_error")
        #expect(problem["step"] == "mood")
        #expect(metrics.ends.withLock { $0 } == ["news gold upstream_error"])
    }

    @Test func refusalsBeforeTheRunAreNoStream() async throws {
        let (answer, service) = try await answer(TestTransport.healthy, data: "{}")
        #expect(answer.status == 422)
        #expect(service.analysesInHand == 0)
    }

    @Test func aClientThatGoesCancelsTheRun() async throws {
        let began = AsyncStream.makeStream(of: Void.self)
        let transport = TestTransport { _, _ in
            began.continuation.yield()
            return .hang
        }
        let (answer, service) = try await answer(transport)
        guard case .stream(let write) = answer.body else {
            Issue.record("no stream")
            return
        }
        // Its first write fails; the agent hangs until it is cancelled.
        await #expect(throws: CancellationError.self) { try await write(TestWriter(writesMax: 0)) }
        #expect(ledger.state.withLock { $0.open.count } == 1)
        _ = service
    }

    @Test func whatNobodyTookWasCancelled() async throws {
        var answer: GatewayAnswer? = try await answer(TestTransport.healthy).0
        #expect(metrics.ends.withLock { $0.isEmpty })
        #expect(answer != nil)
        answer = nil
        #expect(metrics.ends.withLock { $0 } == ["news gold cancelled"])
        // The place of the user's only request is free again.
        let again = try await self.answer(TestTransport.healthy).0
        #expect(again.status == 200)
    }

    @Test(arguments: [
        ("text/event-stream", true), ("TEXT/EVENT-STREAM; q=0.5", true),
        ("application/json, text/event-stream", true), ("*/*", false), ("", false),
        ("application/json", false), ("text/event-stream;q=0", false),
        ("application/json, text/event-stream;q=0.9", false),
        ("application/json;q=0.5, text/event-stream", true),
    ])
    func theAcceptFieldDecides(accept: String, isStream: Bool) {
        let request = GatewayRequest(
            id: "r", method: "POST", path: "/", fields: [GatewayField("accept", accept)], body: [])
        #expect(request.acceptsEvents == isStream)
    }

    @Test func wordsThatWaitArePutTogether() async throws {
        let events = RunEvents()
        let clock = TestClock()
        func delta(_ text: String, attempt: Int = 1) -> RunEvent {
            .stepDelta(step: "s", agent: "a", attempt: attempt, text: text)
        }
        for event in [delta("a"), delta("b"), delta("c", attempt: 2), .stepStarted("t")] {
            events.send(event)
        }
        let first = await events.next(withinNanoseconds: 1, clock)
        #expect(first == [delta("ab"), delta("c", attempt: 2), .stepStarted("t")])
        clock.passDeadline()
        #expect(await events.next(withinNanoseconds: 1, clock) == [])
        events.end()
        #expect(await events.next(withinNanoseconds: 1, clock) == nil)
    }

    @Test func silenceIsFilledWithComments() async throws {
        let writer = TestWriter()
        let transport = TestTransport { call, delegation in
            // The first agent says nothing until the client has heard that somebody is there.
            while !writer.text.contains(": \n\n") { await Task.yield() }
            return await TestTransport.healthy.react(call, delegation)
        }
        let (answer, _) = try await answer(transport, clock: QuietClock())
        guard case .stream(let write) = answer.body else {
            Issue.record("no stream")
            return
        }
        try await write(writer)
        #expect(try Event.read(writer.text).last?.name == "done")
    }
}

/// A heartbeat is always due, a deadline never comes.
private struct QuietClock: GatewayClock {
    var nowNanoseconds: UInt64 { 1_000_000_000 }
    var now: UnixTime { TestClock.unix }

    // tidy: a method of the clock under test
    func sleep(untilNanoseconds deadline: UInt64) async throws {
        if deadline == nowNanoseconds + GatewayLimits.heartbeatNanoseconds {
            await Task.yield()
        } else {
            while !Task.isCancelled { await Task.yield() }
            throw CancellationError()
        }
    }
}
