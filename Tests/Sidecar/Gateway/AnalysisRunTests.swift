import Synchronization
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarGateway

@Suite(.timeLimit(.minutes(1))) struct AnalysisRunTests {
    private let news: JSONValue = ["text": "up"]

    @Test func runsAPlanAndAddsUpItsCost() async throws {
        let ledger = TestLedger()
        let context = try GatewayFixture.context(
            "news", news, transport: TestTransport.healthy, ledger: ledger)
        let report = await AnalysisRun(context: context).run()
        #expect(report.status == .complete)
        #expect(report.totalCost == NanoUSD(620_000))
        #expect(report.steps.map(\.name) == ["mood", "prose"])
        #expect(
            report.steps[0].end
                == .ok([
                    "label": "positive", "score": 0.9.json,
                    "scores": ["positive": 0.9.json, "neutral": 0.1.json],
                ]))
        #expect(report.steps[1].end == .ok(["text": "Up.", "finish_reason": "stop"]))
        #expect(report.steps.map(\.source) == [.reported, .reported])
        #expect(ledger.state.withLock { $0.open }.isEmpty)
        #expect(ledger.state.withLock { $0.consumed } == NanoUSD(620_000))
    }

    @Test func delegationsSayWhoAndHowMuch() async throws {
        let seen = Mutex<[Delegation]>([])
        let transport = TestTransport { call, delegation in
            seen.withLock { $0.append(delegation) }
            return await TestTransport.healthy.react(call, delegation)
        }
        let context = try GatewayFixture.context("news", news, transport: transport)
        _ = await AnalysisRun(context: context).run()
        let delegations = seen.withLock { $0 }
        let mood = try #require(delegations.first)
        #expect(mood.issuer == Incarnation(5))
        #expect(mood.audience == context.snapshot.endpoints["mood"]?.first?.incarnation)
        #expect(mood.amount == NanoUSD(120_000))
        #expect(mood.subject == "alice")
        #expect(mood.tier == "gold")
        #expect(mood.requestType == "news")
        #expect(mood.agent == "mood")
        #expect(mood.path == "/mood")
        #expect(mood.remainingMilliseconds == 1_000)
        #expect(Set(delegations.map(\.key)).count == 2)
    }

    /// What an agent may spend on calls of its own is set aside in the request's limit, told with
    /// its delegation, and given back as far as its sidecar says that it was not spent.
    @Test func callsOfAnAgentAreOnTheRequestsBill() async throws {
        var policy = try GatewayFixture.policy()
        policy.agents["mood"]?.outbound = .init(
            agents: ["scribe"], maxCostPerRequest: NanoUSD(50_000_000))
        let snapshot = try GatewayFixture.snapshot(policy)
        let ledger = TestLedger()
        let given = Mutex<[NanoUSD]>([])
        let transport = TestTransport { call, delegation in
            given.withLock { $0.append(delegation.outbound) }
            guard call.agent == "mood" else { return .answer(TestTransport.prose, cost: 500_000) }
            #expect(delegation.knownBy == .user)
            return .called(TestTransport.mood, cost: 120_000, calls: 700)
        }
        let report = await AnalysisRun(
            context: try GatewayFixture.context(
                "news", ["text": "Up."], transport: transport, ledger: ledger, snapshot: snapshot,
                maxCost: NanoUSD(10_000_000))
        ).run()
        // Less than the policy allows, because the request has no more.
        #expect(given.withLock { $0 } == [NanoUSD(10_000_000 - 120_000), .zero])
        #expect(report.totalCost == NanoUSD(120_000 + 700 + 500_000))
        let attempt = try #require(report.steps.first?.json["attempts"]?.array?.first)
        #expect(attempt["cost_usd"] == "0.000120" && attempt["calls_cost_usd"] == "0.0000007")
        // Calls are charged by themselves, not with the call that they were made for.
        #expect(ledger.state.withLock { $0.consumed } == NanoUSD(620_000))
    }

    @Test func callsOfAnAgentThatDidNotSettleCountInWhole() async throws {
        var policy = try GatewayFixture.policy()
        policy.agents["mood"]?.outbound = .init(
            agents: ["scribe"], maxCostPerRequest: NanoUSD(50_000_000))
        let transport = TestTransport { call, _ in
            call.agent == "mood" ? .lost : .answer(TestTransport.prose, cost: 500_000)
        }
        let report = await AnalysisRun(
            context: try GatewayFixture.context(
                "news", ["text": "Up."], transport: transport,
                snapshot: try GatewayFixture.snapshot(policy))
        ).run()
        #expect(report.totalCost == NanoUSD(120_000 + 50_000_000))
    }

    @Test func aFallbackIsAnotherChild() async throws {
        let ledger = TestLedger()
        let transport = TestTransport { call, delegation in
            call.agent == "writer"
                ? .status(500, cost: 9_000) : await TestTransport.healthy.react(call, delegation)
        }
        let context = try GatewayFixture.context("news", news, transport: transport, ledger: ledger)
        let report = await AnalysisRun(context: context).run()
        #expect(report.status == .complete)
        let prose = report.steps[1]
        #expect(prose.attempts.map(\.agent) == ["writer", "scribe"])
        #expect(prose.attempts.map(\.outcome) == [.upstreamError, .admitted])
        #expect(prose.fallback == StepReport.Fallback(from: "writer", reason: .upstreamError))
        // The failed attempt is charged too.
        #expect(prose.cost == NanoUSD(509_000))
        #expect(ledger.state.withLock { $0.children } == 3)
    }

    @Test func aFallbackMeetsTheBudgetAgain() async throws {
        // Enough for mood and one call of scribe; writer's worst case does not fit.
        let ledger = TestLedger(limit: NanoUSD(1_000_000))
        let context = try GatewayFixture.context(
            "news", news, transport: TestTransport.healthy, ledger: ledger)
        let report = await AnalysisRun(context: context).run()
        #expect(report.status == .complete)
        #expect(report.steps[1].attempts.map(\.outcome) == [.budgetExhausted, .admitted])
        #expect(report.steps[1].attempts.map(\.cost) == [.zero, NanoUSD(500_000)])
    }

    @Test func moneyIsTheReasonOnlyIfNothingWorseHappened() async throws {
        let ledger = TestLedger(limit: NanoUSD(120_000))
        let poor = try GatewayFixture.context(
            "news", news, transport: TestTransport.healthy, ledger: ledger)
        let report = await AnalysisRun(context: poor).run()
        #expect(report.status == .failed(step: "prose", .budgetExhausted))
        #expect(report.steps[1].ledgerRefusal?.account?.id == "alice")
        #expect(report.totalCost == NanoUSD(120_000))

        let failing = TestTransport { call, delegation in
            call.agent == "scribe"
                ? .refused(.circuitOpen) : await TestTransport.healthy.react(call, delegation)
        }
        let context = try GatewayFixture.context(
            "news", news, transport: failing, ledger: TestLedger(limit: NanoUSD(1_000_000)))
        let other = await AnalysisRun(context: context).run()
        #expect(other.status == .failed(step: "prose", .circuitOpen))
    }

    @Test func maxCostHoldsForTheWholeRequest() async throws {
        let context = try GatewayFixture.context(
            "news", news, transport: TestTransport.healthy, maxCost: NanoUSD(130_000))
        let report = await AnalysisRun(context: context).run()
        #expect(report.status == .failed(step: "prose", .budgetExhausted))
        #expect(report.steps[1].problemDetail?.contains("max_cost_usd") == true)
        #expect(report.totalCost == NanoUSD(120_000))
    }

    /// Without a settlement that counts, the child stays open and shows its worst case.
    @Test(arguments: [
        TestTransport.Reaction.unsettled(TestTransport.mood), .forged(TestTransport.mood), .lost,
    ])
    func unsettledChildrenStayOpen(reaction: TestTransport.Reaction) async throws {
        let ledger = TestLedger()
        let transport = TestTransport { call, delegation in
            call.agent == "mood" ? reaction : await TestTransport.healthy.react(call, delegation)
        }
        let context = try GatewayFixture.context("news", news, transport: transport, ledger: ledger)
        let report = await AnalysisRun(context: context).run()
        #expect(report.steps[0].cost == NanoUSD(120_000))
        #expect(report.steps[0].source == .ceiling)
        let state = ledger.state.withLock { $0 }
        #expect(state.open.values.map(\.rawValue) == [120_000])
        // The control plane is asked for its final, and only for its.
        #expect(state.lost.map(\.child) == Array(state.open.keys))
        let audience = context.snapshot.endpoints["mood"]?.first?.incarnation
        #expect(state.lost.first.flatMap { state.audiences[$0] } == audience)
    }

    @Test func whatWasNotSentCostsNothing() async throws {
        let ledger = TestLedger()
        let transport = TestTransport { _, _ in .notSent }
        let context = try GatewayFixture.context("news", news, transport: transport, ledger: ledger)
        let report = await AnalysisRun(context: context).run()
        #expect(report.status == .failed(step: "mood", .upstreamError))
        #expect(report.totalCost == .zero)
        #expect(ledger.state.withLock { $0.open }.isEmpty)
        #expect(ledger.state.withLock { $0.consumed } == .zero)
    }

    @Test func anAgentWithoutASidecarIsNoEndpoint() async throws {
        let context = try GatewayFixture.context(
            "news", news, transport: TestTransport.healthy,
            snapshot: try GatewayFixture.snapshot(without: ["writer", "scribe"]))
        let report = await AnalysisRun(context: context).run()
        #expect(report.status == .failed(step: "prose", .noEndpoint))
        #expect(report.steps[1].attempts.map(\.agent) == ["writer", "scribe"])
    }

    @Test func anOptionalFailureIsPartial() async throws {
        let transport = TestTransport { call, delegation in
            call.agent == "mood"
                ? .status(503, cost: 0) : await TestTransport.healthy.react(call, delegation)
        }
        let context = try GatewayFixture.context(
            "wide", ["text": "up", "positions": [1]], transport: transport)
        let report = await AnalysisRun(context: context).run()
        #expect(report.status == .partial)
        #expect(report.steps.map(\.name) == ["risk", "mood", "summary"])
        #expect(report.steps[1].end == .failed(.upstreamError))
        // A line of the prompt that names an absent input is left out, and here that is all of it.
        if case .ok = report.steps[2].end {} else { Issue.record("\(report.steps[2])") }
    }

    @Test func theDeadlineCancelsWhatRunsAndChargesIt() async throws {
        let clock = TestClock()
        let ledger = TestLedger()
        let transport = TestTransport { call, delegation in
            guard call.agent == "writer" else {
                return await TestTransport.healthy.react(call, delegation)
            }
            clock.passDeadline()
            return .hang
        }
        let context = try GatewayFixture.context(
            "news", news, transport: transport, ledger: ledger, clock: clock)
        let report = await AnalysisRun(context: context).run()
        #expect(report.status == .failed(step: nil, .deadline))
        #expect(report.steps[1].end == .failed(.deadline))
        #expect(report.steps[1].source == .ceiling)
        #expect(report.steps[1].cost > .zero)
        #expect(ledger.state.withLock { $0.open.count } == 1)
    }

    @Test func aFailedRequiredStepCancelsItsSiblings() async throws {
        let transport = TestTransport { call, _ in
            call.agent == "risk" ? .status(500, cost: 1) : .hang
        }
        let context = try GatewayFixture.context(
            "wide", ["text": "up", "positions": [1]], transport: transport)
        let report = await AnalysisRun(context: context).run()
        #expect(report.status == .failed(step: "risk", .upstreamError))
        #expect(report.steps[1].end == .cancelled)
        #expect(report.steps[1].cost == NanoUSD(120_000))
    }

    /// `wide` without required steps.
    private func optional(_ transport: any AgentTransport, clock: TestClock = TestClock())
        async throws -> AnalysisReport
    {
        var policy = try GatewayFixture.policy()
        var type = try #require(policy.requestTypes["wide"])
        type.steps[0].required = false
        policy.requestTypes["wide"] = type
        let context = try GatewayFixture.context(
            "wide", ["text": "up", "positions": [1]], transport: transport, clock: clock,
            snapshot: try GatewayFixture.snapshot(policy))
        return await AnalysisRun(context: context).run()
    }

    @Test func aRequestThatGaveNothingHasFailed() async throws {
        let failed = try await optional(TestTransport { _, _ in .status(500, cost: 0) })
        #expect(failed.status == .failed(step: "risk", .upstreamError))
        let clock = TestClock()
        let late = try await optional(
            TestTransport { _, _ in
                clock.passDeadline()
                return .hang
            }, clock: clock)
        // Either the run saw that its time was over, or one of its steps did.
        guard case .failed(_, .deadline) = late.status else {
            Issue.record("\(late.status)")
            return
        }
        let partial = try await optional(
            TestTransport { call, delegation in
                call.agent == "risk"
                    ? .status(500, cost: 0) : await TestTransport.healthy.react(call, delegation)
            })
        #expect(partial.status == .partial)
    }

    @Test func anAnswerThatBreaksTheResultSchemaFallsBack() async throws {
        var policy = try GatewayFixture.policy()
        var type = try #require(policy.requestTypes["news"])
        type.steps[1].output = .json
        type.steps[1].resultSchema = type.inputSchema
        policy.requestTypes["news"] = type
        let transport = TestTransport { call, delegation in
            guard call.agent != "mood" else {
                return await TestTransport.healthy.react(call, delegation)
            }
            let text = call.agent == "writer" ? #"{\"other\": 1}"# : #"{\"text\": \"x\"}"#
            return .answer(#"{"choices": [{"message": {"content": "\#(text)"}}]}"#, cost: 500_000)
        }
        let context = try GatewayFixture.context(
            "news", news, transport: transport, snapshot: try GatewayFixture.snapshot(policy))
        let report = await AnalysisRun(context: context).run()
        #expect(report.status == .complete)
        #expect(report.steps[1].end == .ok(["text": "x"]))
        #expect(report.steps[1].fallback?.reason == .upstreamProtocol)
        // Both wrote, so both cost.
        #expect(report.steps[1].cost == NanoUSD(1_000_000))
    }

    @Test func callersMayChooseAmongTheAgents() async throws {
        let context = try GatewayFixture.context(
            "news", news, transport: TestTransport.healthy,
            agents: ["prose": .init(agent: "scribe", model: "small")])
        let report = await AnalysisRun(context: context).run()
        #expect(report.steps[1].attempts.map(\.agent) == ["scribe"])
        #expect(
            report.steps[1].downgrade == .init(from: "writer", reason: "requested"))
        #expect(report.steps[1].fallback == nil)
    }

    @Test func callersMayChooseAModel() async throws {
        var policy = try GatewayFixture.policy()
        policy.agents["writer"]?.models.append(.init(id: "small-too", aliases: []))
        policy.prices["small-too"] = policy.prices["small"]
        let bodies = Mutex<[JSONValue]>([])
        let transport = TestTransport { call, delegation in
            if call.agent == "writer", let body = try? JSON.parse(call.body) {
                bodies.withLock { $0.append(body) }
            }
            return await TestTransport.healthy.react(call, delegation)
        }
        let context = try GatewayFixture.context(
            "news", news, transport: transport, snapshot: try GatewayFixture.snapshot(policy),
            agents: ["prose": .init(agent: "writer", model: "small-too")])
        let report = await AnalysisRun(context: context).run()
        #expect(bodies.withLock { $0.map { $0["model"] } } == ["small-too"])
        #expect(report.steps[1].attempts.map(\.model) == ["small-too"])
    }

    @Test func preferencesDecideWithinThePlan() async throws {
        var preferences = Preferences()
        preferences.agentsByStep = ["prose": "scribe"]
        let preferred = try GatewayFixture.context(
            "news", news, transport: TestTransport.healthy, preferences: preferences)
        let first = await AnalysisRun(context: preferred).run()
        #expect(first.steps[1].attempts.map(\.agent) == ["scribe"])
        #expect(first.steps[1].downgrade == .init(from: "writer", reason: "preferred"))

        preferences = Preferences()
        preferences.excludedAgents = ["scribe"]
        let failing = TestTransport { call, delegation in
            call.agent == "writer"
                ? .status(500, cost: 0) : await TestTransport.healthy.react(call, delegation)
        }
        let excluded = try GatewayFixture.context(
            "news", news, transport: failing, preferences: preferences)
        let second = await AnalysisRun(context: excluded).run()
        #expect(second.status == .failed(step: "prose", .upstreamError))
        #expect(second.steps[1].attempts.map(\.agent) == ["writer"])

        preferences.excludedAgents = ["mood"]
        let skipped = try GatewayFixture.context(
            "wide", ["text": "up", "positions": [1]], transport: TestTransport.healthy,
            preferences: preferences)
        let third = await AnalysisRun(context: skipped).run()
        #expect(third.status == .complete)
        #expect(third.steps[1].end == .skipped(.excluded))
    }

    @Test func theQuickestGoesFirstForWhoAskedForIt() async throws {
        let latencies = AgentLatencies()
        let policy = try GatewayFixture.policy()
        latencies.succeeded(try #require(policy.agents["writer"]), nanoseconds: 9_000)
        latencies.succeeded(try #require(policy.agents["scribe"]), nanoseconds: 1_000)
        var preferences = Preferences()
        preferences.optimize = .latency
        let context = try GatewayFixture.context(
            "news", news, transport: TestTransport.healthy, preferences: preferences,
            latencies: latencies)
        let report = await AnalysisRun(context: context).run()
        #expect(report.steps[1].attempts.map(\.agent) == ["scribe"])
        #expect(report.steps[1].downgrade?.reason == "optimize_latency")
        // Every call that succeeded is measured, whoever asked for it.
        #expect(latencies.all["mood"] != nil)
    }
}

extension Double {
    fileprivate var json: JSONValue { JSONNumber(self).map { .number($0) } ?? .null }
}
