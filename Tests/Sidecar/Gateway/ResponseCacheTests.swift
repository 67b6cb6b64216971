import Synchronization
import Testing
import WeirCore
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarCore
@testable import SidecarGateway

@Suite struct ResponseCacheTests {
    private static let second: UInt64 = 1_000_000_000

    private static func limits(entries: Int = 10, bytes: Int = 1 << 20) -> AgentPolicy.Cache {
        var limits = AgentPolicy.Cache(ttlMilliseconds: 5_000)
        limits.entriesMax = entries
        limits.bytesMax = bytes
        return limits
    }

    private static func key(_ name: String) -> CacheShelf.Key {
        CacheShelf.Key(
            owner: "user/alice", model: "m",
            policy: PolicyVersion(epoch: 1, number: 1, hash: "h"), digest: Array(name.utf8))
    }

    private static func answer(_ text: String, padding: Int = 0) -> CachedAnswer {
        CachedAnswer(
            contentType: "application/json",
            body: Array(text.utf8) + [UInt8](repeating: 32, count: padding), model: "m",
            cost: NanoUSD(7))
    }

    @Test func anAnswerEndsWithItsTimeAndTheFirstOneIsKept() {
        var shelf = CacheShelf()
        shelf.put(Self.answer("1"), for: Self.key("a"), Self.limits(), room: .max / 2, now: 0)
        shelf.put(Self.answer("2"), for: Self.key("a"), Self.limits(), room: .max / 2, now: 1)
        #expect(shelf.answer(for: Self.key("a"), now: 0) == Self.answer("1"))
        #expect(shelf.answer(for: Self.key("b"), now: 0) == nil)
        #expect(shelf.answer(for: Self.key("a"), now: 5 * Self.second - 1) != nil)
        #expect(shelf.answer(for: Self.key("a"), now: 5 * Self.second) == nil)
        // What has ended leaves when something comes.
        shelf.put(
            Self.answer("3"), for: Self.key("c"), Self.limits(), room: .max / 2,
            now: 6 * Self.second)
        #expect(shelf.count == 1 && shelf.bytes == Self.answer("3").byteCount)
    }

    @Test func theOldestLeaveForNewOnes() {
        var shelf = CacheShelf()
        for number in 0..<1_000 {
            shelf.put(
                Self.answer("x"), for: Self.key("\(number)"), Self.limits(entries: 3),
                room: .max / 2, now: UInt64(number))
            #expect(shelf.count <= 3)
        }
        #expect(shelf.bytes == 3 * Self.answer("x").byteCount)
        #expect(shelf.answer(for: Self.key("996"), now: 1_000) == nil)
        #expect(shelf.answer(for: Self.key("997"), now: 1_000) != nil)
    }

    @Test func bytesAreBoundedByThePolicyAndByTheGateway() {
        var shelf = CacheShelf()
        let big = Self.answer("b", padding: 1_000)
        let limits = Self.limits(bytes: 2 * big.byteCount)
        for name in ["a", "b", "c"] {
            shelf.put(big, for: Self.key(name), limits, room: .max / 2, now: 0)
        }
        #expect(shelf.count == 2 && shelf.bytes == 2 * big.byteCount)
        let huge = Self.answer("h", padding: 5_000)
        shelf.put(huge, for: Self.key("h"), limits, room: .max / 2, now: 0)
        #expect(shelf.count == 2)
        // The other agents leave nothing: this one lives on what it has.
        shelf.put(big, for: Self.key("d"), limits, room: 0, now: 0)
        #expect(shelf.count == 2 && shelf.answer(for: Self.key("d"), now: 0) != nil)
        var empty = CacheShelf()
        empty.put(big, for: Self.key("a"), limits, room: big.byteCount - 1, now: 0)
        #expect(empty.count == 0)
    }

    // MARK: Whose it is

    private static func prepared(
        _ body: String, scope: AgentPolicy.Cache.Scope, isStream: Bool = false
    ) throws -> AgentCaller.Prepared {
        var agent = try #require(try GatewayFixture.policy().agents["writer"])
        agent.cache = AgentPolicy.Cache(ttlMilliseconds: 5_000, scope: scope)
        var bound = AttemptBound(
            worstCase: .zero, model: "big", price: ModelPrice(model: "big"), inputTokensMax: 1,
            outputTokensMax: 1, nanosecondsMax: 1)
        bound.isStream = isStream
        return AgentCaller.Prepared(agent: agent, bound: bound, body: Array(body.utf8))
    }

    private static func caller(_ user: String, _ tenant: String?) throws -> Caller {
        Caller(
            user: user, tenant: tenant, tier: try GatewayFixture.tier(), roles: [],
            preferences: Preferences())
    }

    @Test(
        arguments: [
            // The same request, spelt otherwise.
            (#"{"b":[1,2],"a":"x"}"#, "alice", "acme", 17, [true, true]),
            (#"{"a":"x","b":[2,1]}"#, "alice", "acme", 17, [false, false]),
            (#"{"a":"x","b":[1,2]}"#, "bob", "acme", 17, [false, true]),
            (#"{"a":"x","b":[1,2]}"#, "bob", "other", 17, [false, false]),
            (#"{"a":"x","b":[1,2]}"#, "bob", nil, 17, [false, false]),
            // Of no tenant: by the user's scope it is hers, by the tenant's it is another's.
            (#"{"a":"x","b":[1,2]}"#, "alice", nil, 17, [true, false]),
            (#"{"a":"x","b":[1,2]}"#, "alice", "acme", 18, [false, false]),
        ] as [(String, String, String?, Int64, [Bool])])
    func onlyTheVerySameRequestGetsIt(
        _ body: String, _ user: String, _ tenant: String?, _ policy: Int64, _ expected: [Bool]
    ) throws {
        for (scope, isHit) in zip([AgentPolicy.Cache.Scope.user, .tenant], expected) {
            let cache = ResponseCache(Metrics())
            cache.keep(
                Self.answer("kept"), to: try Self.prepared(#"{"a":"x","b":[1,2]}"#, scope: scope),
                of: try Self.caller("alice", "acme"),
                policy: PolicyVersion(epoch: 1, number: 17, hash: "h"), now: 0)
            let found = cache.answer(
                to: try Self.prepared(body, scope: scope), of: try Self.caller(user, tenant),
                policy: PolicyVersion(epoch: 1, number: policy, hash: "h"), now: 1)
            #expect((found != nil) == isHit, "\(scope)")
        }
    }

    @Test func streamsAndWhatIsNoJSONAreNotKept() throws {
        let version = PolicyVersion(epoch: 1, number: 17, hash: "h")
        let alice = try Self.caller("alice", nil)
        let cache = ResponseCache(Metrics())
        for prepared in [
            try Self.prepared("{}", scope: .user, isStream: true),
            try Self.prepared("no json", scope: .user),
        ] {
            cache.keep(Self.answer("x"), to: prepared, of: alice, policy: version, now: 0)
            #expect(cache.answer(to: prepared, of: alice, policy: version, now: 0) == nil)
        }
        // The largest answer is far below what all may take.
        let huge = Self.answer("x", padding: GatewayLimits.cachedAnswerBytesMax)
        let prepared = try Self.prepared("{}", scope: .user)
        cache.keep(huge, to: prepared, of: alice, policy: version, now: 0)
        #expect(cache.answer(to: prepared, of: alice, policy: version, now: 0) == nil)
    }

    @Test func aStepIsServedFromWhatIsKeptAndCostsNothing() async throws {
        var policy = try GatewayFixture.policy()
        policy.agents["mood"]?.cache = AgentPolicy.Cache(ttlMilliseconds: 60_000)
        let snapshot = try GatewayFixture.snapshot(policy)
        let registry = Metrics()
        let cache = ResponseCache(registry)
        let calls = Mutex<[String]>([])
        let transport = TestTransport { call, delegation in
            calls.withLock { $0.append(call.agent) }
            return await TestTransport.healthy.react(call, delegation)
        }
        var reports: [AnalysisReport] = []
        for _ in 0..<2 {
            var context = try GatewayFixture.context(
                "news", ["text": "up"], transport: transport, snapshot: snapshot)
            context.cache = cache
            reports.append(await AnalysisRun(context: context).run())
        }
        #expect(calls.withLock { $0.filter { $0 == "mood" }.count } == 1)
        #expect(calls.withLock { $0.filter { $0 != "mood" }.count } == 2)
        let steps = reports.map { $0.steps.first { $0.name == "mood" } }
        #expect(steps.map { $0?.attempts.first?.isCached } == [false, true])
        #expect(steps[0]?.end == steps[1]?.end)
        #expect(steps.map { $0?.cost } == [NanoUSD(120_000), .zero])
        let text = String(decoding: registry.exposition(), as: UTF8.self)
        for line in [
            #"weir_cache_lookups_total{agent="mood",result="hit"} 1"#,
            #"weir_cache_lookups_total{agent="mood",result="miss"} 1"#,
            #"weir_cache_saved_usd_total{agent="mood"} 0.00012"#,
            #"weir_cache_bytes{agent="mood"} "#,
        ] {
            #expect(text.contains(line), "\(text)")
        }
    }
}
