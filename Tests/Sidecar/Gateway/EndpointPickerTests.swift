import Synchronization
import Testing
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarCore
@testable import SidecarGateway

/// Several sidecars of one agent, on paper.
@Suite struct EndpointPickerTests {
    private static func policy(_ change: (inout AgentPolicy) -> Void = { _ in }) throws -> Policy {
        var policy = try GatewayFixture.policy()
        var mood = try #require(policy.agents["mood"])
        change(&mood)
        policy.agents["mood"] = mood
        return policy
    }

    /// Sidecars of "mood" with the incarnations 200, 201 and so on.
    private static func snapshot(_ policy: Policy, versions: [String?]) -> GatewaySnapshot {
        GatewaySnapshot(
            version: PolicyVersion(epoch: 1, number: 17, hash: "ab"), policy: policy,
            incarnation: Incarnation(5),
            endpoints: versions.enumerated().map { index, version in
                Projection.Endpoint(
                    agent: "mood", incarnation: Incarnation(Int64(200 + index)),
                    address: "127.0.0.1:\(9100 + index)",
                    hopKey: HopKey(id: 3, secret: Base64URL.encode(GatewayFixture.hopKey)),
                    version: version)
            })
    }

    /// One step after the other of so many users; by sidecar, how many calls it got.
    private struct Run {
        var attempts: [[AttemptReport]] = []
        var succeeded = 0
        var calls: [Int64: Int] = [:]
    }

    private static func run(
        _ users: Int, _ snapshot: GatewaySnapshot, picker: EndpointPicker = EndpointPicker(),
        ledger: TestLedger = TestLedger(),
        _ react: @escaping @Sendable (Int64) -> TestTransport.Reaction
    ) async throws -> Run {
        let calls = Mutex([Int64: Int]())
        let transport = TestTransport { _, delegation in
            calls.withLock { $0[delegation.audience.rawValue, default: 0] += 1 }
            return react(delegation.audience.rawValue)
        }
        let plan = try GatewayFixture.context(
            "news", ["text": "up"], transport: transport, ledger: ledger, snapshot: snapshot)
        let step = try #require(plan.request.type.steps.first)
        var run = Run()
        for user in 0..<users {
            let caller = Caller(
                user: "user-\(user)", tenant: nil, tier: plan.caller.tier, roles: [])
            let context = RunContext(
                snapshot: snapshot, caller: caller, request: plan.request,
                requestID: plan.requestID, runID: plan.runID, trace: nil,
                deadlineNanoseconds: plan.deadlineNanoseconds, ledger: ledger,
                transport: transport, clock: plan.clock, picker: picker, budget: plan.budget,
                latencies: plan.latencies)
            let start = PlanProgress.Start(step: step, inputs: ["text": "up"])
            let report = await StepRunner(context: context, start: start).run()
            run.attempts.append(report.attempts)
            if case .ok = report.end { run.succeeded += 1 }
        }
        run.calls = calls.withLock { $0 }
        return run
    }

    private static let good = TestTransport.Reaction.answer(TestTransport.mood, cost: 120_000)

    @Test func callsAreSpreadOverSidecars() async throws {
        let snapshot = Self.snapshot(try Self.policy(), versions: [nil, nil, nil])
        let run = try await Self.run(90, snapshot) { _ in Self.good }
        #expect(run.succeeded == 90)
        #expect(run.calls.count == 3 && run.calls.values.allSatisfy { $0 > 10 }, "\(run.calls)")
    }

    @Test func whoCannotBeReachedCostsNothingAndIsAvoided() async throws {
        let snapshot = Self.snapshot(try Self.policy(), versions: [nil, nil, nil])
        let ledger = TestLedger()
        let run = try await Self.run(60, snapshot, ledger: ledger) {
            $0 == 201 ? .notSent : Self.good
        }
        #expect(run.succeeded == 60)
        #expect(run.calls[201] == 1, "\(run.calls)")
        #expect(ledger.state.withLock { $0.consumed } == NanoUSD(60 * 120_000))
        #expect(run.attempts.filter { $0.count == 2 }.count == 1)
    }

    /// Its agent is down: the sidecar says so without having sent anything.
    @Test func aRefusalBeforeProcessingIsTriedElsewhere() async throws {
        let policy = try Self.policy { $0.breaker.consecutiveFailures = 4 }
        let snapshot = Self.snapshot(policy, versions: [nil, nil])
        let picker = EndpointPicker()
        let run = try await Self.run(60, snapshot, picker: picker) {
            $0 == 200 ? .refused(.circuitOpen) : Self.good
        }
        #expect(run.succeeded == 60)
        #expect((1...4).contains(run.calls[200] ?? 0), "its circuit is open here, too")
        // What cannot be made good elsewhere is not tried there.
        let hopeless = try await Self.run(1, snapshot) { _ in .refused(.tooLarge) }
        #expect(hopeless.succeeded == 0 && hopeless.attempts[0].count == 1)
    }

    @Test func whatWasSentIsRepeatedOnlyIfThePolicySaysSo() async throws {
        for (afterSend, succeeded) in [(false, 0), (true, 1)] {
            let policy = try Self.policy { $0.retry.afterSend = afterSend }
            let snapshot = Self.snapshot(policy, versions: [nil, nil])
            let first = Mutex(true)
            let ledger = TestLedger()
            let run = try await Self.run(1, snapshot, ledger: ledger) { _ in
                let isFirst = first.withLock { isFirst in
                    defer { isFirst = false }
                    return isFirst
                }
                return isFirst ? .status(500, cost: 120_000) : Self.good
            }
            #expect(run.succeeded == succeeded)
            #expect(run.attempts[0].count == 1 + succeeded)
            // Each try is a call of its own, and costs.
            #expect(ledger.state.withLock { $0.finals.count } == 1 + succeeded)
        }
    }

    @Test func retriesEndWithTheirBudgetAndNeverLoop() async throws {
        let policy = try Self.policy {
            $0.retry.budgetPercent = 0
            $0.retry.budgetPerSecond = 1
            $0.retry.attemptsMax = 2
        }
        let snapshot = Self.snapshot(policy, versions: [nil, nil, nil, nil])
        // The clock stands still: what a few seconds allow is all there is.
        let run = try await Self.run(40, snapshot) { _ in .refused(.overloaded) }
        #expect(run.succeeded == 0)
        let counts = run.attempts.map(\.count)
        #expect(counts.allSatisfy { $0 <= 2 })
        #expect(counts.filter { $0 == 2 }.count == 7, "\(counts)")
        for attempts in run.attempts { #expect(attempts.last?.outcome == .overloaded) }
    }

    @Test func theLastSidecarIsAlwaysAsked() async throws {
        let policy = try Self.policy { $0.breaker.consecutiveFailures = 1 }
        let snapshot = Self.snapshot(policy, versions: [nil])
        let run = try await Self.run(20, snapshot) { _ in .refused(.circuitOpen) }
        #expect(run.calls[200] == 20, "a gateway never refuses in a sidecar's place")
    }

    @Test func usersKeepTheirVersion() async throws {
        let policy = try Self.policy {
            $0.versions = [.init(name: "stable", weight: 80), .init(name: "canary", weight: 20)]
        }
        let snapshot = Self.snapshot(policy, versions: ["stable", "canary", "stable", "other"])
        let first = try await Self.run(300, snapshot) { _ in Self.good }
        let versions = first.attempts.map { $0.last?.version }
        #expect((40...80).contains(versions.count { $0 == "canary" }))
        #expect(!versions.contains("other"), "no weight, no calls")
        #expect(first.calls[200] ?? 0 > 50 && first.calls[202] ?? 0 > 50, "balanced within one")
        let second = try await Self.run(300, snapshot) { _ in Self.good }
        #expect(second.attempts.map { $0.last?.version } == versions)
    }

    @Test func aVersionThatDoesNotServeIsReplaced() async throws {
        let policy = try Self.policy {
            $0.versions = [.init(name: "stable", weight: 50), .init(name: "canary", weight: 50)]
        }
        let none = Self.snapshot(policy, versions: ["stable"])
        let alone = try await Self.run(40, none) { _ in Self.good }
        #expect(alone.succeeded == 40 && alone.calls == [200: 40])
        let down = Self.snapshot(policy, versions: ["stable", "canary"])
        let run = try await Self.run(60, down) { $0 == 201 ? .notSent : Self.good }
        #expect(run.succeeded == 60)
        #expect(run.calls[201] == 1, "it is avoided, and its users go on with the other")
        let strangers = Self.snapshot(policy, versions: [nil])
        #expect(try await Self.run(5, strangers) { _ in Self.good }.succeeded == 5)
    }

    @Test func aNewSnapshotKeepsWhatIsKnown() throws {
        let policy = try Self.policy { $0.breaker.consecutiveFailures = 1 }
        let mood = try #require(policy.agents["mood"])
        let state = GatewayState()
        func apply(_ versions: [String?]) throws -> GatewaySnapshot {
            let endpoints = Self.snapshot(policy, versions: versions).endpoints["mood"] ?? []
            state.apply(
                Projection(
                    version: PolicyVersion(epoch: 1, number: 17, hash: "ab"), documents: [],
                    endpoints: endpoints.map {
                        Projection.Endpoint(
                            agent: "mood", incarnation: $0.incarnation, address: $0.address,
                            hopKey: HopKey(id: 3, secret: Base64URL.encode($0.hopKey)))
                    }), policy: policy, incarnation: Incarnation(5))
            return try #require(state.snapshot)
        }
        let picker = EndpointPicker()
        let old = try apply([nil])
        let picked = try #require(
            picker.pick(mood, in: old, for: "alice", nowNanoseconds: 0))
        picker.ended(
            picked, .failure(.serverError, retryAfterNanoseconds: nil), nowNanoseconds: 0)
        let new = try apply([nil, nil])
        let next = try #require(picker.pick(mood, in: new, for: "alice", nowNanoseconds: 0))
        #expect(next.endpoint.incarnation == Incarnation(201), "the other's circuit is open")
        #expect(
            picker.statuses(nowNanoseconds: 0)["mood"]?.map(\.endpoint.isServing) == [false, true])
        #expect(picker.pick(mood, in: old, for: "alice", nowNanoseconds: 0) != nil)
        #expect(
            picker.statuses(nowNanoseconds: 0)["mood"]?.count == 2, "an old request changes nothing"
        )
    }
}
