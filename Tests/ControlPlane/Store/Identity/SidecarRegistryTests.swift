import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import ControlPlaneStore

@Suite(.timeLimit(.minutes(1))) struct SidecarRegistryTests {
    private func health(_ state: SidecarHealth.State) -> SidecarHealth {
        SidecarHealth(state: state, reasons: ["because"], requestsInFlight: 3, journalBytes: 9)
    }

    @Test func gatewaysFindSidecarsThatServe() async throws {
        let mesh = try await LedgerMesh()
        let registry = SidecarRegistry(redis: mesh.redis)
        let sidecar = try await mesh.join(.agent, agent: "finbert", endpoint: "127.0.0.1:7001")
        _ = try await mesh.join(.gateway)
        let endpoint = Projection.Endpoint(
            agent: "finbert", incarnation: sidecar.incarnation, address: "127.0.0.1:7001",
            hopKey: try #require(sidecar.hopKey))
        #expect(try await registry.endpoints() == [endpoint])
        #expect(try await registry.heartbeat(health(.draining), by: sidecar.incarnation))
        #expect(try await registry.endpoints().isEmpty)
        #expect(try await registry.heartbeat(health(.degraded), by: sidecar.incarnation))
        #expect(try await registry.endpoints() == [endpoint])
        // Silence, while others are heard: the last report is too old.
        let old =
            try await mesh.redis.time().milliseconds
            - StoreLimits.endpointFreshMilliseconds - 1
        try await mesh.redis.command(["HSET", StoreKeys.hearing, "since", String(old)])
        try await mesh.redis.command([
            "ZADD", StoreKeys.live, String(old), sidecar.incarnation.description,
        ])
        #expect(try await registry.endpoints().isEmpty)
        #expect(try await registry.list().count == 2)
        #expect(try await registry.heartbeat(health(.serving), by: Incarnation(5)) == false)
    }

    /// Nobody could report for a minute: that takes no agent away, neither while it lasts nor
    /// before everybody has had the time to report again.
    @Test func aSilenceOfAllSaysNothing() async throws {
        let mesh = try await LedgerMesh()
        let registry = SidecarRegistry(redis: mesh.redis)
        let gone = try await mesh.join(.agent, agent: "risk", endpoint: "127.0.0.1:7002")
        let sidecar = try await mesh.join(.agent, agent: "finbert", endpoint: "127.0.0.1:7001")
        let gateway = try await mesh.join(.gateway)
        let heard = try await mesh.redis.time().milliseconds - 60_000
        let longBefore = heard - StoreLimits.endpointFreshMilliseconds - 1
        for (member, seen) in [(gone, longBefore), (sidecar, heard), (gateway, heard)] {
            try await mesh.redis.command([
                "ZADD", StoreKeys.live, String(seen), member.incarnation.description,
            ])
        }
        try await mesh.redis.command([
            "HSET", StoreKeys.hearing, "last", String(heard), "since", String(longBefore),
        ])
        func known() async throws -> [Incarnation] {
            try await registry.endpoints().map(\.incarnation)
        }
        #expect(try await known() == [sidecar.incarnation])
        try await registry.heartbeat(health(.serving), by: gateway.incarnation)
        #expect(try await known() == [sidecar.incarnation])
        try await registry.heartbeat(health(.draining), by: sidecar.incarnation)
        #expect(try await known().isEmpty)
        try await registry.heartbeat(health(.serving), by: sidecar.incarnation)
        #expect(try await known() == [sidecar.incarnation])
        // Heard of others for long enough, and not of this one.
        try await mesh.redis.command([
            "HSET", StoreKeys.hearing, "since", String(heard), "before", "0",
        ])
        try await mesh.redis.command([
            "ZADD", StoreKeys.live, String(heard), sidecar.incarnation.description,
        ])
        #expect(try await known().isEmpty)
    }

    /// The clock of Redis went back by an hour, as by a primary that is set differently, shortly
    /// after a silence of all: who reports stays, who was gone stays gone.
    @Test func aClockThatGoesBackTakesNobodyAway() async throws {
        let mesh = try await LedgerMesh()
        let registry = SidecarRegistry(redis: mesh.redis)
        let gone = try await mesh.join(.agent, agent: "risk", endpoint: "127.0.0.1:7002")
        let sidecar = try await mesh.join(.agent, agent: "finbert", endpoint: "127.0.0.1:7001")
        let gateway = try await mesh.join(.gateway)
        let ahead = try await mesh.redis.time().milliseconds + 3_600_000
        for (member, ago) in [(gone, 600_000), (sidecar, 400), (gateway, 200)] {
            try await mesh.redis.command([
                "ZADD", StoreKeys.live, String(ahead - Int64(ago)),
                member.incarnation.description,
            ])
        }
        try await mesh.redis.command([
            "HSET", StoreKeys.hearing, "last", String(ahead - 200), "since",
            String(ahead - 2_000), "before", String(ahead - 10_000),
        ])
        for member in [gateway, sidecar] {
            try await registry.heartbeat(health(.serving), by: member.incarnation)
            #expect(try await registry.endpoints().map(\.incarnation) == [sidecar.incarnation])
        }
        let seen = try #require(try await registry.status(of: gone.incarnation)).seenAt
        #expect(seen < UnixTime(milliseconds: ahead - 3_600_000))
    }

    @Test func gatewaysAreToldWhatEverybodyReported() async throws {
        let mesh = try await LedgerMesh()
        let registry = SidecarRegistry(redis: mesh.redis)
        let sidecar = try await mesh.join(.agent, agent: "finbert", endpoint: "127.0.0.1:7001")
        let other = try await mesh.join(.agent, agent: "risk", endpoint: "127.0.0.1:7002")
        let endpoint = AgentVitals.Endpoint(
            address: "a:1", breaker: .open, since: UnixTime(seconds: 1))
        var told = health(.degraded)
        told.since = UnixTime(seconds: 7)
        told.agent = AgentVitals(
            endpoints: Array(repeating: endpoint, count: 100), isHealthy: false,
            calls: CallSummary(), waiting: 2, lastError: nil)
        #expect(try await registry.heartbeat(told, by: sidecar.incarnation))
        // Silent for longer than it is still told of.
        let old = try await mesh.redis.time().milliseconds - MeshLimits.stateMilliseconds - 1
        try await mesh.redis.command([
            "ZADD", StoreKeys.live, String(old), other.incarnation.description,
        ])
        let view = MeshStateView(
            sidecars: registry, redis: mesh.redis, freshness: .seconds(600))
        let state = try JSON.decode(
            MeshState.self, from: Array(try await view.current().text.utf8))
        #expect(state.members.map(\.incarnation) == [sidecar.incarnation])
        let member = try #require(state.members.first)
        #expect(member.isConnected && member.agent == "finbert")
        #expect(member.health?.agent?.isHealthy == false)
        #expect(member.health?.since == UnixTime(seconds: 7))
        #expect(member.health?.agent?.endpoints.count == MeshLimits.vitalEndpointsMax)
        // What was read is good for a while, for everybody.
        #expect(try await registry.heartbeat(health(.serving), by: sidecar.incarnation))
        #expect(try await view.current() == JSON.encodeValue(state))
    }

    @Test func aSuccessorTakesItsPredecessorsPlace() async throws {
        let mesh = try await LedgerMesh()
        let registry = SidecarRegistry(redis: mesh.redis)
        let first = try await mesh.join(.agent, agent: "risk", endpoint: "127.0.0.1:1")
        let second = try await mesh.ledger.join(
            JoinRequest(
                credential: "", role: .agent, agent: "risk", endpoint: "127.0.0.1:2",
                instance: "pod", predecessor: try LedgerMesh.proof(of: first)), replicas: [])
        #expect(try await registry.endpoints().map(\.incarnation) == [second.incarnation])
        #expect(try await registry.status(of: first.incarnation) == nil)
    }

    @Test func acksAreKeptAndAForeignHashIsAnAlarm() async throws {
        let mesh = try await LedgerMesh()
        let registry = SidecarRegistry(redis: mesh.redis)
        let sidecar = try await mesh.join(.agent, agent: "tft", endpoint: "127.0.0.1:1").incarnation
        let active = PolicyVersion(epoch: 1, number: 4, hash: "aa")
        let nack = PolicyAck(
            version: active, projectionHash: "p", applied: false,
            problems: [Problem(path: "/documents/0", message: "no")])
        #expect(try await registry.acknowledge(nack, by: sidecar, active: active) == nil)
        try await registry.heartbeat(health(.serving), by: sidecar)
        let status = try #require(try await registry.list().first)
        #expect(status.ack == nack && status.alarm == nil && status.health == health(.serving))
        #expect(status.agent == "tft" && status.instance == "test")
        var foreign = nack
        foreign.version.hash = "bb"
        #expect(try await registry.acknowledge(foreign, by: sidecar, active: active) != nil)
        #expect(try await registry.status(of: sidecar)?.alarm != nil)
    }
}

@Suite(.timeLimit(.minutes(1))) struct SessionTests {
    @Test func sessionsOutliveTheProcessAndNothingElseOpens() async throws {
        let mesh = try await LedgerMesh()
        let token = mesh.sessions.token(for: Incarnation(42))
        let other = try await Sessions.load(from: mesh.redis)
        #expect(other.incarnation(ofToken: token) == Incarnation(42))
        let forged = token.dropLast() + (token.hasSuffix("A") ? "E" : "A")
        #expect(other.incarnation(ofToken: forged) == nil)
        #expect(other.incarnation(ofToken: token.dropLast()) == nil)
        #expect(other.incarnation(ofToken: "") == nil)
        #expect(Sessions(secret: [1]).incarnation(ofToken: token) == nil)
    }

    private func request(_ credential: String, _ role: Role, _ agent: String?) -> JoinRequest {
        JoinRequest(
            credential: credential, role: role, agent: agent, endpoint: nil, instance: "x",
            predecessor: nil)
    }

    @Test func joinTokensAreUsedOnceByWhomTheyAreFor() async throws {
        let mesh = try await LedgerMesh()
        let tokens = JoinTokens(redis: mesh.redis, meshToken: nil)
        let token = try await tokens.create(
            role: .agent, agent: "tft", validMilliseconds: 60_000)
        for wrong in [
            request(token, .agent, "risk"), request(token, .gateway, nil),
            request("wjt_x", .agent, "tft"), request(token, .agent, nil),
        ] {
            await #expect(throws: MeshRefusal.self) { try await tokens.admit(wrong) }
        }
        try await tokens.admit(request(token, .agent, "tft"))
        await #expect(throws: MeshRefusal.self) {
            try await tokens.admit(request(token, .agent, "tft"))
        }
        let shared = JoinTokens(redis: mesh.redis, meshToken: "demo")
        try await shared.admit(request("demo", .gateway, nil))
        await #expect(throws: MeshRefusal.self) {
            try await shared.admit(request("demo2", .gateway, nil))
        }
    }

    @Test func aRequestThatComesTwiceIsCarriedOutOnce() async throws {
        let mesh = try await LedgerMesh()
        let store = IdempotencyStore(redis: mesh.redis)
        let answer = StoredAnswer(status: 200, contentType: "application/json", body: "{\"é\":1}")
        let claim = IdempotencyRequest.Action.claim(milliseconds: 60_000)
        var request = IdempotencyRequest(
            user: "ann", key: "k", bodyHash: "aa", claim: "1", action: claim)
        #expect(try await store.handle(request).state == .new)
        request.claim = "2"
        #expect(try await store.handle(request).state == .inFlight)
        request.bodyHash = "bb"
        #expect(try await store.handle(request).state == .mismatch)
        request.bodyHash = "aa"
        request.action = .complete(answer)
        #expect(try await store.handle(request).answer == answer)
        request.action = claim
        let replay = try await store.handle(request)
        #expect(replay.state == .stored && replay.answer == answer)
        request.user = "bob"
        #expect(try await store.handle(request).state == .new)
    }

    @Test func aClaimEndsByItselfAndOnlyItsOwnerGivesItBack() async throws {
        let mesh = try await LedgerMesh()
        let store = IdempotencyStore(redis: mesh.redis)
        func send(_ claim: String, _ action: IdempotencyRequest.Action) async throws
            -> IdempotencyResponse.State
        {
            try await store.handle(
                IdempotencyRequest(
                    user: "ann", key: "k", bodyHash: "aa", claim: claim, action: action)
            ).state
        }
        #expect(try await send("1", .claim(milliseconds: 60_000)) == .new)
        #expect(try await send("2", .release) == .released)
        #expect(try await send("2", .claim(milliseconds: 60_000)) == .inFlight)
        #expect(try await send("1", .release) == .released)
        // As if its gateway had died: nobody gives this one back.
        #expect(try await send("3", .claim(milliseconds: 1)) == .new)
        try await eventually("the claim ends") {
            try await send("4", .claim(milliseconds: 60_000)) == .new
        }
        #expect(try await send("3", .claim(milliseconds: 60_000)) == .inFlight)
    }
}
