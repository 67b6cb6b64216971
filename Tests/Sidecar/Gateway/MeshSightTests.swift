import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarGateway

/// What a gateway makes of what the control plane tells it of the agents.
@Suite struct MeshSightTests {
    private static let second: UInt64 = 1_000_000_000

    /// The fixture's endpoints are 100 (mood), 101 (risk), 102 (scribe) and 103 (writer).
    private func member(
        _ agent: String, _ incarnation: Int64, breaker: AgentVitals.Breaker = .closed,
        state: SidecarHealth.State = .serving, isHealthy: Bool? = nil, silent: Int64 = 100
    ) -> MeshState.Member {
        let vitals = AgentVitals(
            endpoints: [
                .init(address: "10.0.0.1:1", breaker: breaker, since: UnixTime(seconds: 3))
            ], isHealthy: isHealthy, calls: CallSummary(), waiting: 0, lastError: nil)
        return MeshState.Member(
            incarnation: Incarnation(incarnation), role: .agent, agent: agent,
            endpoint: "10.0.0.9:\(incarnation)", instance: "pod-\(incarnation)",
            silentMilliseconds: silent, policy: nil, hasRefusedPolicy: false,
            health: SidecarHealth(
                state: state, reasons: [], requestsInFlight: 0, journalBytes: 0, agent: vitals))
    }

    private func look(
        _ sight: MeshSight, _ members: [MeshState.Member], at tick: UInt64,
        _ snapshot: GatewaySnapshot? = nil
    ) throws {
        sight.received(
            MeshState(at: UnixTime(seconds: 0), members: members, omitted: 0),
            nowNanoseconds: tick * Self.second)
        sight.look(
            try snapshot ?? GatewayFixture.snapshot(), nowNanoseconds: tick * Self.second,
            at: UnixTime(seconds: Int64(tick)))
    }

    private func agent(_ sight: MeshSight, _ name: String) throws -> MeshSight.Agent {
        try #require(sight.agents.first { $0.view.name == name })
    }

    @Test func withoutNewsEveryEndpointIsTakenToServe() throws {
        let sight = MeshSight()
        #expect(sight.score == 0)
        sight.look(
            try GatewayFixture.snapshot(without: ["mood"]), nowNanoseconds: Self.second,
            at: UnixTime(seconds: 1))
        #expect(sight.score == 0.75)
        #expect(try agent(sight, "mood").view.state == .unavailable)
        #expect(try agent(sight, "mood").view.reasons == ["no_endpoint"])
        #expect(try agent(sight, "risk").view.state == .serving)
    }

    @Test func anOpenBreakerTakesItsShareForAsLongAsItIsOpen() throws {
        let sight = MeshSight()
        try look(sight, [member("mood", 100)], at: 1)
        #expect(sight.score == 1)
        for tick in 2...4 as ClosedRange<UInt64> {
            try look(sight, [member("mood", 100, breaker: .open)], at: tick)
        }
        let mood = try agent(sight, "mood")
        #expect(mood.view.state == .unavailable)
        #expect(mood.since == UnixTime(seconds: 2))
        #expect(mood.availability == 0.25)
        // Three agents serve, and one served a quarter of the time.
        #expect(sight.score == 3.25 / 4)
        // This gateway's own address of the sidecar, not the one that it announced.
        #expect(mood.view.reasons == ["127.0.0.1:9000: the circuit to 10.0.0.1:1 is open"])
        try look(sight, [member("mood", 100)], at: 66)
        #expect(try agent(sight, "mood").availability == 1)
        #expect(try agent(sight, "mood").since == UnixTime(seconds: 66))
        #expect(sight.score == 1)
    }

    @Test func oneOfSeveralEndpointsIsItsShare() throws {
        let sight = MeshSight()
        try look(
            sight,
            [
                member("mood", 100), member("mood", 7, silent: 10_000),
                member("mood", 8, breaker: .halfOpen), member("mood", 9, isHealthy: false),
                // It leaves on purpose, and does not count.
                member("mood", 10, state: .draining),
            ], at: 1)
        let view = try agent(sight, "mood").view
        #expect(view.servingShare == 0.25)
        #expect(view.state == .degraded)
        #expect(
            view.endpoints.map(\.state) == [.serving, .silent, .degraded, .degraded, .draining])
    }

    @Test func weightsAreThoseOfThePolicy() throws {
        var policy = try GatewayFixture.policy()
        policy.agents["mood"]?.healthWeight = 5
        policy.agents["writer"]?.healthWeight = 0
        let snapshot = try GatewayFixture.snapshot(policy, without: ["mood", "writer"])
        let sight = MeshSight()
        try look(sight, [], at: 1, snapshot)
        #expect(sight.score == 2.0 / 7)
    }

    @Test func anAgentThatLeavesThePolicyIsForgotten() throws {
        let sight = MeshSight()
        try look(sight, [member("mood", 100)], at: 1)
        var policy = try GatewayFixture.policy()
        policy.agents["mood"] = nil
        try look(sight, [member("mood", 100)], at: 2, try GatewayFixture.snapshot(policy))
        #expect(sight.agents.map(\.view.name) == ["risk", "scribe", "writer"])
    }

    // MARK: /health

    private func health(
        _ sight: MeshSight, snapshot: GatewaySnapshot?, reachable: Bool = true,
        _ change: (inout ProcessView) -> Void = { _ in }
    ) throws -> (status: Int, body: JSONValue) {
        var process = ProcessView()
        process.policyAgeMilliseconds = 90
        change(&process)
        let answer = GatewayHealth(
            snapshot: snapshot,
            controlPlane: ControlPlaneView(isReachable: reachable, silentMilliseconds: 70),
            process: process, agents: sight.agents
        ).answer()
        guard case .bytes(let bytes) = answer.body else { return (0, .null) }
        return (answer.status, try JSON.parse(bytes))
    }

    @Test func healthNamesWhatDoesNotWork() throws {
        let sight = MeshSight()
        let snapshot = try GatewayFixture.snapshot()
        try look(sight, [member("mood", 100)], at: 1)
        let good = try health(sight, snapshot: snapshot)
        #expect(good.status == 200)
        #expect(good.body["status"] == "ok")
        #expect(good.body["policy_age_ms"] == 90)
        #expect(good.body["system_health_score"] == 1)
        try look(sight, [member("mood", 100, breaker: .open)], at: 2)
        let poor = try health(sight, snapshot: snapshot, reachable: false) {
            $0.policyProblems = 2
        }
        #expect(poor.status == 200)
        #expect(poor.body["status"] == "degraded")
        #expect(
            poor.body["degraded"] == [
                ["part": "control_plane", "reason": "silent for 70 ms"],
                ["part": "policy", "reason": "a newer one was refused (2 problems)"],
                [
                    "part": "agent/mood",
                    "reason": "0 of 1 endpoints serve, since 1970-01-01T00:00:02Z",
                ],
            ])
        // Addresses are for those with a token.
        #expect(!poor.body.text.contains("127.0.0.1") && !poor.body.text.contains("10.0.0"))
    }

    @Test func whoCanServeNobodySays503() throws {
        let sight = MeshSight()
        let snapshot = try GatewayFixture.snapshot()
        for (change, part) in [
            ({ $0.isDraining = true }, "gateway"), ({ $0.journalHasFailed = true }, "journal"),
        ] as [((inout ProcessView) -> Void, String)] {
            let answer = try health(sight, snapshot: snapshot, change)
            #expect(answer.status == 503)
            #expect(answer.body["status"] == "unavailable")
            #expect(answer.body["degraded"]?.array?.first?["part"]?.string == part)
        }
        #expect(try health(sight, snapshot: nil).status == 503)
        let nobody = try GatewayFixture.snapshot(without: ["mood", "risk", "scribe", "writer"])
        #expect(try health(sight, snapshot: nobody).status == 503)
    }
}
