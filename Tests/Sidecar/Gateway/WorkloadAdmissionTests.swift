import Synchronization
import Testing
import WeirCore
import WeirPolicy

@testable import SidecarCore
@testable import SidecarGateway

@Suite(.timeLimit(.minutes(1))) struct WorkloadAdmissionTests {
    private let clock = TestClock()

    private var policy: Policy {
        var policy = Policy()
        for (name, priority) in [("free", 0), ("premium", 10), ("enterprise", 20)] {
            var tier = TierPolicy(name: name, monthlyBudget: NanoUSD(1), agents: [])
            tier.priority = priority
            policy.tiers[name] = tier
        }
        return policy
    }

    private func caller(
        _ tier: String, _ user: String = "u", atOnce: Int? = nil, observes: Bool = false
    ) throws -> Caller {
        var tier = try #require(policy.tiers[tier])
        tier.observe = observes
        tier.concurrentRequestsMax = atOnce
        return Caller(user: user, tenant: nil, tier: tier, roles: [])
    }

    private func enter(
        _ admission: WorkloadAdmission, _ caller: Caller
    ) async -> Result<WorkloadPlace, GatewayRefusal> {
        do throws(GatewayRefusal) {
            return .success(try await admission.enter(caller, of: policy, clock))
        } catch {
            return .failure(error)
        }
    }

    private func place(
        _ admission: WorkloadAdmission, _ tier: String
    ) async throws -> WorkloadPlace { try await enter(admission, caller(tier)).get() }

    /// A request that has come as far as the queue.
    private func queued(
        _ admission: WorkloadAdmission, _ tier: String
    ) async throws -> Task<Result<WorkloadPlace, GatewayRefusal>, Never> {
        let before = admission.levels.queued[tier, default: 0]
        let caller = try caller(tier)
        let task = Task { await enter(admission, caller) }
        while admission.levels.queued[tier, default: 0] == before { await Task.yield() }
        return task
    }

    private func reason(_ result: Result<WorkloadPlace, GatewayRefusal>) -> Reason? {
        guard case .failure(let refusal) = result else { return nil }
        return refusal.reason
    }

    @Test func aTierMayRefuseWithoutTheControlPlane() async throws {
        let isLost = Mutex(true)
        let admission = WorkloadAdmission(max: 3) { isLost.withLock { $0 } }
        var refused = try caller("free")
        refused.tier.whenControlPlaneIsLost = .refuse
        // So few that what is refused without the control plane must not count.
        refused.tier.rateLimit = AgentPolicy.RateLimit(requestsPerSecond: 0.00001, burst: 1)
        guard case .failure(let refusal) = await enter(admission, refused) else {
            Issue.record("it was let in")
            return
        }
        #expect(refusal.reason == .controlPlaneLost)
        #expect(refusal.reason.status == 503)
        #expect(refusal.retryAfterSeconds == 2)
        #expect(admission.levels == .init())
        // Others go on inside of what they have.
        try await place(admission, "premium").leave()
        var observing = refused
        observing.user = "v"
        observing.tier.observe = true
        let observed = try await enter(admission, observing).get()
        #expect(observed.observed == .controlPlaneLost)
        observed.leave()
        isLost.withLock { $0 = false }
        try await enter(admission, refused).get().leave()
    }

    @Test func theHigherTierGoesFirst() async throws {
        let admission = WorkloadAdmission(max: 3)
        let running = [
            try await place(admission, "free"), try await place(admission, "free"),
            try await place(admission, "free"),
        ]
        let free = try await queued(admission, "free")
        let premium = try await queued(admission, "premium")
        running[0].leave()
        let first = try await premium.value.get()
        #expect(admission.levels.queued == ["free": 1])
        // A place is given back once, whoever says so how often.
        running[0].leave()
        #expect(admission.levels.queued == ["free": 1])
        first.leave()
        try await free.value.get().leave()
        running[1].leave()
        running[2].leave()
        #expect(admission.levels == .init())
    }

    @Test func whereTheQueueIsFullTheLowestTierIsShed() async throws {
        let admission = WorkloadAdmission(max: 1)
        let running = try await place(admission, "free")
        let free = try await queued(admission, "free")
        let premium = try await queued(admission, "premium")
        let shed = await free.value
        #expect(reason(shed) == .overloaded)
        guard case .failure(let refusal) = shed else { return }
        #expect(refusal.retryAfterSeconds == 1)
        let another = try caller("free")
        #expect(reason(await enter(admission, another)) == .overloaded)
        #expect(
            admission.levels.shed == [
                .init(tier: "free", cause: .displaced): 1, .init(tier: "free", cause: .full): 1,
            ])
        running.leave()
        try await premium.value.get().leave()
    }

    @Test func aFloodOfALowerTierLeavesPlacesToHigherOnes() async throws {
        let admission = WorkloadAdmission(max: 20)
        var places: [WorkloadPlace] = []
        for _ in 0..<16 { places.append(try await place(admission, "free")) }
        let waiting = try await queued(admission, "free")
        for _ in 0..<2 { places.append(try await place(admission, "premium")) }
        for _ in 0..<2 { places.append(try await place(admission, "enterprise")) }
        #expect(admission.levels.running == 20)
        for place in places { place.leave() }
        try await waiting.value.get().leave()
        #expect(admission.levels.running == 0)
    }

    @Test func theWaitIsBounded() async throws {
        let admission = WorkloadAdmission(max: 1)
        let running = try await place(admission, "free")
        let late = try await queued(admission, "premium")
        clock.passDeadline()
        #expect(reason(await late.value) == .overloaded)
        #expect(admission.levels.shed == [.init(tier: "premium", cause: .timeout): 1])
        running.leave()
        try await place(admission, "free").leave()
    }

    @Test func whoGoesAwayLeavesTheQueue() async throws {
        let admission = WorkloadAdmission(max: 1)
        let running = try await place(admission, "free")
        let gone = try await queued(admission, "free")
        gone.cancel()
        #expect(reason(await gone.value) == .cancelled)
        #expect(admission.levels.queued.isEmpty && admission.levels.shed.isEmpty)
        running.leave()
    }

    @Test func aUsersOwnLimitCountsThoseThatWait() async throws {
        let admission = WorkloadAdmission(max: 2)
        let own = try caller("free", "alice", atOnce: 1)
        let first = try await enter(admission, own).get()
        #expect(reason(await enter(admission, own)) == .concurrency)
        first.leave()
        try await enter(admission, own).get().leave()
        #expect(admission.levels.shed.isEmpty)
    }

    @Test func aTierThatObservesHasNoLimitOfItsOwn() async throws {
        let admission = WorkloadAdmission(max: 2)
        let watched = try caller("free", "alice", atOnce: 1, observes: true)
        let first = try await enter(admission, watched).get()
        #expect(first.observed == nil)
        let second = try await enter(admission, watched).get()
        #expect(second.observed == .concurrency)
        // What this gateway can bear is no policy: it waits like everybody.
        let third = try await queued(admission, "premium")
        second.leave()
        try await third.value.get().leave()
        first.leave()
        #expect(admission.levels.running == 0)
    }

    @Test func whatNobodyKnowsYetIsBoundedToo() throws {
        let admission = WorkloadAdmission(max: 1)
        for _ in 0..<3 { try admission.enter() }
        #expect(throws: GatewayRefusal.self) { try admission.enter() }
        #expect(admission.levels.shed == [.init(tier: "-", cause: .unidentified): 1])
        admission.leave()
        try admission.enter()
        #expect(admission.requestsInHand == 3)
    }

    @Test func theLevelsAreMetrics() async throws {
        let admission = WorkloadAdmission(max: 1)
        let registry = Metrics()
        admission.show(on: registry)
        let running = try await place(admission, "premium")
        let waiting = try await queued(admission, "premium")
        let free = try caller("free")
        _ = await enter(admission, free)
        let text = String(decoding: registry.exposition(), as: UTF8.self)
        for line in [
            "weir_gateway_requests_running 1", #"weir_gateway_requests_queued{tier="premium"} 1"#,
            #"weir_gateway_shed_total{tier="free",cause="full"} 1"#,
        ] {
            #expect(text.contains(line))
        }
        running.leave()
        try await waiting.value.get().leave()
    }
}
