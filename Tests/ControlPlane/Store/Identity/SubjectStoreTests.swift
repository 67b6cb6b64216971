import Testing
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import ControlPlaneStore

@Suite(.timeLimit(.minutes(1))) struct SubjectStoreTests {
    private static let policy: Policy = {
        var policy = Policy()
        var free = TierPolicy(name: "free", monthlyBudget: NanoUSD(1_000), agents: [])
        free.dailyRequests = 40
        free.requestsPerMinute = 30
        free.tokensPerMinute = 9_000
        var premium = TierPolicy(name: "premium", monthlyBudget: NanoUSD(5_000), agents: [])
        premium.priority = 10
        policy.tiers = ["free": free, "premium": premium]
        policy.budgets = [
            "acme": BudgetPolicy(
                name: "acme", scope: .tenant, id: "acme", monthlyLimit: NanoUSD(9_000)),
            "all-free": BudgetPolicy(
                name: "all-free", scope: .tier, id: "free", monthlyLimit: NanoUSD(70_000)),
            "mesh": BudgetPolicy(
                name: "mesh", scope: .mesh, id: "tests", monthlyLimit: NanoUSD(100)),
        ]
        return policy
    }()

    private static let root = ChangeAuthor(name: "root", reason: "she asked")

    private func resolve(
        _ store: SubjectStore, _ user: String, tier: String? = nil, tenant: String? = nil
    ) async throws -> SubjectBinding {
        try await store.resolve(
            SubjectRequest(
                claims: SubjectRequest.Claims(
                    subject: user, tier: tier, tenant: tenant, roles: ["user"]),
                apiKeyHash: nil),
            policy: Self.policy, policyNumber: 1)
    }

    @Test func theFirstSightBindsAndOnlyAnAdministratorChangesIt() async throws {
        let mesh = try await LedgerMesh()
        let store = SubjectStore(redis: mesh.redis, ledger: mesh.ledger)
        let first = try await resolve(store, "ann", tier: "free", tenant: "acme")
        #expect(first.tier == "free" && first.tenant == "acme" && first.roles == ["user"])
        #expect(
            first.accounts.map { "\($0.unit)/\($0.scope)/\($0.period)/\($0.id)=\($0.limit)" } == [
                "usd/user/month/ann=1000", "requests/user/day/ann=40",
                "requests/user/minute/ann=30", "tokens/user/minute/ann=9000",
                "usd/tenant/month/acme=9000", "usd/tier/month/free=70000",
            ])
        #expect(try await resolve(store, "ann", tier: "premium").tier == "free")
        try await store.setTier(
            try #require(Self.policy.tiers["premium"]), tenant: nil, of: "ann", by: Self.root,
            policy: Self.policy, policyNumber: 1)
        // At once, and not only when somebody asks who she is.
        let month = AccountKey(
            unit: .usd, scope: .user, period: Period(.month, at: try await mesh.redis.time()),
            id: "ann")
        #expect(try await mesh.ledger.states(of: [month]).first??.limit == NanoUSD(5_000))
        let changed = try await resolve(store, "ann", tier: "free")
        #expect(changed.tier == "premium" && changed.tenant == nil)
        #expect(changed.accounts.map(\.limit) == [NanoUSD(5_000)])
        #expect(try await resolve(store, "bob").tier == "free")
        await #expect(throws: MeshRefusal.self) { try await resolve(store, "eve", tier: "gold") }
        await #expect(throws: MeshRefusal.self) { try await resolve(store, "") }
    }

    private static func acquire(
        _ number: Int64, _ unit: AccountKey.Unit, _ kind: Period.Kind, of user: String,
        by holder: Incarnation, at now: UnixTime
    ) -> LeaseAcquire {
        LeaseAcquire(
            lease: LeaseID(incarnation: holder, number: number),
            account: AccountKey(unit: unit, scope: .user, period: Period(kind, at: now), id: user),
            need: NanoUSD(1), want: NanoUSD(3), closedBelow: 0, policyNumber: 1)
    }

    private func open(
        _ store: SubjectStore, _ user: String, tier: String, _ acquire: [LeaseAcquire],
        by holder: Incarnation
    ) async throws -> SubjectAnswer {
        try await store.resolve(
            SubjectRequest(
                claims: SubjectRequest.Claims(
                    subject: user, tier: tier, tenant: nil, roles: ["user"]),
                apiKeyHash: nil),
            opening: SubjectStore.Opening(acquire: acquire, holder: holder, mayObserve: false),
            policy: Self.policy, policyNumber: 1)
    }

    @Test func theFirstSightBringsLeasesOfWhatItFinds() async throws {
        let mesh = try await LedgerMesh()
        let store = SubjectStore(redis: mesh.redis, ledger: mesh.ledger)
        let holder = try await mesh.join().incarnation
        let now = try await mesh.redis.time()
        let asked = [
            Self.acquire(1, .usd, .month, of: "ann", by: holder, at: now),
            Self.acquire(2, .requests, .day, of: "ann", by: holder, at: now),
        ]
        let first = try await open(store, "ann", tier: "free", asked, by: holder)
        #expect(first.binding.tier == "free")
        // Nothing is spent yet, so the whole share: a twentieth.
        let grants = try #require(first.leases?.grants)
        #expect(grants.map(\.status) == [.granted, .granted])
        #expect(grants.map(\.granted) == [NanoUSD(50), NanoUSD(2)])
        // Asked again after a lost answer: the same.
        let again = try await open(store, "ann", tier: "free", asked, by: holder)
        #expect(again.leases?.grants.map(\.granted) == grants.map(\.granted))
        let states = try await mesh.ledger.states(of: asked.map(\.account))
        #expect(states.map { $0?.held } == [NanoUSD(50), NanoUSD(2)])
        // The index has them, for whoever writes the holder off.
        let index = try await mesh.redis.read("HGETALL", StoreKeys.accounts(holder)).fields
        #expect(Set(index.map { $0.0 }) == Set(asked.map(\.account.description)))
    }

    @Test func whatTheBoundTierDoesNotHaveIsRefusedAndTheRestServes() async throws {
        let mesh = try await LedgerMesh()
        let store = SubjectStore(redis: mesh.redis, ledger: mesh.ledger)
        let holder = try await mesh.join().incarnation
        let now = try await mesh.redis.time()
        _ = try await resolve(store, "ann", tier: "premium")
        let answer = try await open(
            store, "ann", tier: "free",
            [
                Self.acquire(1, .requests, .day, of: "ann", by: holder, at: now),
                Self.acquire(2, .usd, .month, of: "ann", by: holder, at: now),
            ], by: holder)
        #expect(answer.binding.tier == "premium")
        #expect(answer.leases?.grants.map(\.status) == [.unknownAccount, .granted])
        // Nobody asks for leases in another's name.
        let stranger = Self.acquire(3, .usd, .month, of: "ann", by: Incarnation(999), at: now)
        let refused = try await open(store, "ann", tier: "free", [stranger], by: holder)
        #expect(refused.leases?.grants.map(\.status) == [.unavailable])
    }

    @Test func manyFirstSightsAtOnceBindOnce() async throws {
        let mesh = try await LedgerMesh()
        let store = SubjectStore(redis: mesh.redis, ledger: mesh.ledger)
        let holder = try await mesh.join().incarnation
        let tiers = try await withThrowingTaskGroup(of: String.self) { group in
            for number in 0..<40 {
                group.addTask {
                    try await open(
                        store, "ann", tier: number % 2 == 0 ? "free" : "premium", [], by: holder
                    ).binding.tier
                }
            }
            return try await group.reduce(into: Set<String>()) { $0.insert($1) }
        }
        #expect(tiers.count == 1)
        let limit = try await store.stored("ann")?.limitByPolicy
        #expect(limit == (tiers == ["free"] ? NanoUSD(1_000) : NanoUSD(5_000)))
    }

    /// Tags with a Budget, beside the rest of the policy.
    private static func tagged(_ budgets: String...) -> Policy {
        var policy = policy
        policy.tiers["free"]?.requestTags = .some(["launch", "b1", "b2", "b3", "b4", "b5"])
        for tag in budgets {
            policy.budgets[tag] = BudgetPolicy(
                name: tag, scope: .tag, id: tag, monthlyLimit: NanoUSD(600))
        }
        return policy
    }

    private func resolve(
        _ store: SubjectStore, own: [String], asked: [String], _ policy: Policy
    ) async throws -> SubjectBinding {
        try await store.resolve(
            SubjectRequest(
                claims: .init(
                    subject: "ann", tier: "free", tenant: "acme", roles: [],
                    tags: Tags(own) ?? .none),
                apiKeyHash: nil, tags: Tags(asked) ?? .none), policy: policy, policyNumber: 1)
    }

    @Test func tagsWithABudgetPayBesideTheRest() async throws {
        let mesh = try await LedgerMesh()
        let store = SubjectStore(redis: mesh.redis, ledger: mesh.ledger)
        let policy = Self.tagged("launch", "team:b", "other")
        let binding = try await resolve(
            store, own: ["team:b", "plain"], asked: ["launch", "b1"], policy)
        #expect(binding.tags == ["b1", "launch", "plain", "team:b"])
        #expect(
            binding.accounts.filter { $0.scope == .tag }.map { "\($0.id)=\($0.limit)" } == [
                "launch=600", "team:b=600",
            ])
        #expect(binding.accounts.count { $0.unit == .usd } == 5)
        // Its limit is stated, so that it can be leased of.
        let now = try await mesh.redis.time()
        let account = try #require(binding.accounts.last).key(at: now)
        #expect(account.description.hasPrefix("usd/tag/") && account.id == "team:b")
        let holder = try await mesh.join().incarnation
        #expect(try await mesh.acquire(1, of: account, by: holder, need: 30).status == .granted)
        #expect(try await mesh.acquire(2, of: account, by: holder, need: 571).status == .contended)
        let untagged = try await resolve(store, own: [], asked: [], policy)
        #expect(untagged.tags == nil && !untagged.accounts.contains { $0.scope == .tag })
    }

    @Test func aTagThatTheTierDoesNotAllowIsRefusedUnlessItIsTheTokensOwn() async throws {
        let mesh = try await LedgerMesh()
        let store = SubjectStore(redis: mesh.redis, ledger: mesh.ledger)
        func refusal(
            own: [String], asked: [String], _ policy: Policy
        ) async throws -> (reason: String, detail: String)? {
            do {
                _ = try await resolve(store, own: own, asked: asked, policy)
                return nil
            } catch let refusal as MeshRefusal {
                return (refusal.reason, refusal.detail)
            }
        }
        let policy = Self.tagged("b1", "b2", "b3", "b4", "b5")
        let forbidden = try await refusal(own: [], asked: ["launch", "secret"], policy)
        #expect(forbidden?.reason == "forbidden")
        #expect(forbidden?.detail.contains("tag secret") == true)
        #expect(try await refusal(own: ["secret"], asked: ["secret"], policy) == nil)
        #expect(
            try await refusal(own: [], asked: ["launch"], Self.policy)?.reason == "forbidden")
        #expect(try await refusal(own: [], asked: ["b1", "b2", "b3", "b4"], policy) == nil)
        let many = try await refusal(own: ["b1"], asked: ["b2", "b3", "b4", "b5"], policy)
        #expect(many?.reason == "invalid" && many?.detail.contains("at most 4") == true)
        let own = (1...8).map { "own\($0)" }
        let long = try await refusal(own: own, asked: ["launch"], policy)
        #expect(long?.reason == "invalid" && long?.detail.contains("8 tags") == true)
    }

    @Test func anAPIKeysTagsAreOnEveryRequest() async throws {
        let mesh = try await LedgerMesh()
        let store = SubjectStore(redis: mesh.redis, ledger: mesh.ledger)
        var terms = APIKeyTerms(user: "robot")
        (terms.tier, terms.tags) = ("free", ["team:b"])
        let key = try await store.createAPIKey(terms, by: Self.root).key
        let binding = try await store.resolve(
            SubjectRequest(claims: nil, apiKeyHash: key.hash),
            policy: Self.tagged("team:b"), policyNumber: 1)
        #expect(binding.tags == ["team:b"])
        #expect(binding.accounts.last?.scope == .tag)
    }

    @Test func aResolvedSubjectCanBeLeasedFor() async throws {
        let mesh = try await LedgerMesh()
        let store = SubjectStore(redis: mesh.redis, ledger: mesh.ledger)
        let binding = try await resolve(store, "ann", tier: "free")
        let now = try await mesh.redis.time()
        let holder = try await mesh.join().incarnation
        for (number, account) in binding.accounts.enumerated() {
            // A minute has half of it or more to go, or begins within that.
            let isMinute = account.period == .minute
            let time = isMinute ? UnixTime(seconds: now.seconds + 30) : now
            let grant = try await mesh.acquire(
                Int64(number), of: account.key(at: time), by: holder, need: 1, want: 1 << 40)
            // min(limit ÷ 20, $1); of a minute more.
            #expect(grant.status == .granted)
            #expect(grant.granted == NanoUSD(account.limit.rawValue / (isMinute ? 10 : 20)))
        }
    }

    @Test func theMeshPaysFromItsOwnBudgetAndNobodyHasItsName() async throws {
        let mesh = try await LedgerMesh()
        let store = SubjectStore(redis: mesh.redis, ledger: mesh.ledger)
        let request = SubjectRequest(claims: nil, apiKeyHash: nil, isMesh: true)
        let binding = try await store.resolve(request, policy: Self.policy, policyNumber: 1)
        #expect(binding.user == SubjectStore.meshUser)
        #expect(
            binding.accounts == [
                .init(
                    unit: .usd, scope: .mesh, period: .month, id: "tests", limit: NanoUSD(100))
            ])
        let state = try await mesh.ledger.states(
            of: [binding.accounts[0].key(at: try await mesh.redis.time())])
        #expect(state.first??.limit == NanoUSD(100))
        var without = Self.policy
        without.budgets["mesh"] = nil
        await #expect(throws: MeshRefusal.self) {
            try await store.resolve(request, policy: without, policyNumber: 1)
        }
        await #expect(throws: MeshRefusal.self) {
            try await resolve(store, SubjectStore.meshUser, tier: "free")
        }
    }

    @Test func ownLimitsHoldAndAUserOnlyLowers() async throws {
        let mesh = try await LedgerMesh()
        let store = SubjectStore(redis: mesh.redis, ledger: mesh.ledger)
        _ = try await resolve(store, "ann", tier: "free")
        try await store.setMonthlyLimit(NanoUSD(8_000), of: "ann", as: .admin, by: Self.root)
        #expect(try await resolve(store, "ann").accounts.first?.limit == NanoUSD(8_000))
        try await store.setMonthlyLimit(NanoUSD(9_000), of: "ann", as: .user, by: Self.root)
        #expect(try await resolve(store, "ann").accounts.first?.limit == NanoUSD(8_000))
        try await store.setMonthlyLimit(NanoUSD(10), of: "ann", as: .user, by: Self.root)
        let binding = try await resolve(store, "ann")
        #expect(binding.accounts.first?.limit == NanoUSD(10))
        let account = try #require(binding.accounts.first).key(at: try await mesh.redis.time())
        let holder = try await mesh.join().incarnation
        let grant = try await mesh.acquire(1, of: account, by: holder, need: 11)
        #expect(grant.status == .exhausted && grant.state?.limit == NanoUSD(10))
        let stored = try #require(try await store.stored("ann"))
        #expect(stored.limitByPolicy == NanoUSD(1_000) && stored.limitByAdmin == NanoUSD(8_000))
        #expect(stored.limitByUser == NanoUSD(10) && stored.boundBy == "claims")
        #expect(try await store.stored("nobody") == nil)
        try await store.setMonthlyLimit(nil, of: "ann", as: .user, by: Self.root)
        try await store.setMonthlyLimit(nil, of: "ann", as: .admin, by: Self.root)
        #expect(try await resolve(store, "ann").accounts.first?.limit == NanoUSD(1_000))
    }

    @Test func whatAdministratorsDoIsKept() async throws {
        let mesh = try await LedgerMesh()
        let log = AdminLog(redis: mesh.redis)
        var actions: [AdminAction] = []
        for number in 0..<3 {
            let action = AdminAction(
                at: UnixTime(seconds: Int64(number)), author: "root", action: "budget.update",
                subject: "ann", detail: "\(number)", reason: "asked \"nicely\"")
            try await log.append(action)
            actions.insert(action, at: 0)
        }
        #expect(try await log.newest(limit: 2) == Array(actions.prefix(2)))
    }

    @Test func changesAreInTheLogWithTheirReason() async throws {
        let mesh = try await LedgerMesh()
        let store = SubjectStore(redis: mesh.redis, ledger: mesh.ledger)
        _ = try await resolve(store, "ann", tier: "free")
        try await store.setMonthlyLimit(NanoUSD(usd: "0.5"), of: "ann", as: .user, by: Self.root)
        try await store.setMonthlyLimit(nil, of: "ann", as: .user, by: Self.root)
        try await store.setTier(
            try #require(Self.policy.tiers["premium"]), tenant: "acme", of: "ann", by: Self.root,
            policy: Self.policy, policyNumber: 1)
        let actions = try await store.log.newest(limit: 10)
        #expect(actions.map(\.action) == ["tier.set", "budget.update", "budget.update"])
        #expect(
            actions.map(\.detail) == [
                "premium, tenant acme", "user's limit: none of its own",
                "user's limit: 0.500000 USD a month",
            ])
        #expect(actions.allSatisfy { $0.author == "root" && $0.reason == "she asked" })
        #expect(actions.allSatisfy { $0.subject == "ann" })
    }

    @Test func preferencesComeWithTheBindingAsFarAsTheTierAllows() async throws {
        let mesh = try await LedgerMesh()
        let store = SubjectStore(redis: mesh.redis, ledger: mesh.ledger)
        #expect(try await resolve(store, "ann", tier: "free").preferences == nil)
        var preferences = Preferences()
        preferences.optimize = .cost
        preferences.maxCostPerRequest = NanoUSD(70_000)
        var wanted = preferences
        wanted.excludedAgents = ["gpt4-turbo"]
        try await store.setPreferences(wanted, of: "ann")
        #expect(try await store.stored("ann")?.preferences == wanted)
        // No tier of this policy has the agent, so there is nothing to exclude.
        #expect(try await resolve(store, "ann").preferences == preferences)
    }

    private func request(_ key: APIKey) -> SubjectRequest {
        SubjectRequest(claims: nil, apiKeyHash: key.hash)
    }

    private func reason(_ store: SubjectStore, _ request: SubjectRequest) async throws -> String? {
        do {
            _ = try await store.resolve(request, policy: Self.policy, policyNumber: 1)
            return nil
        } catch let refusal as MeshRefusal {
            return refusal.reason
        }
    }

    @Test func apiKeysAreSubjectsUntilTheyAreRevokedOrOver() async throws {
        let mesh = try await LedgerMesh()
        let store = SubjectStore(redis: mesh.redis, ledger: mesh.ledger)
        var terms = APIKeyTerms(user: "ann")
        terms.tier = "premium"
        terms.roles = ["operator"]
        let made = try await store.createAPIKey(terms, by: Self.root)
        #expect(made.text.hasPrefix("weir_") && made.text.utf8.count == 48)
        #expect(made.key.hash == Hex.encode(Crypto.sha256(Array(made.text.utf8))))
        let binding = try await store.resolve(
            request(made.key), policy: Self.policy, policyNumber: 1)
        #expect(binding.user == "ann" && binding.tier == "premium" && binding.roles == ["operator"])
        #expect(binding.validForMilliseconds == nil)
        #expect(try await store.stored("ann")?.boundBy == "root")
        #expect(try await store.apiKeys(of: "ann", limit: 9) == [made.key])

        // The id finds the key; only the whole hash opens it.
        var other = made.key
        other.hash = String(made.key.hash.dropLast()) + (made.key.hash.hasSuffix("0") ? "1" : "0")
        #expect(try await reason(store, request(other)) == "unauthenticated")
        let revoked = try await store.revokeAPIKey(made.key.id, by: Self.root)
        #expect(revoked?.revokedAt != nil)
        #expect(try await reason(store, request(made.key)) == "unauthenticated")
        #expect(try await store.revokeAPIKey("none", by: Self.root) == nil)

        terms.expiresAt = UnixTime(seconds: 1)
        let old = try await store.createAPIKey(terms, by: Self.root)
        #expect(try await reason(store, request(old.key)) == "token_expired")
        let now = try await mesh.redis.time().milliseconds
        terms.expiresAt = UnixTime(milliseconds: now + 60_000)
        let short = try await store.createAPIKey(terms, by: Self.root)
        let ending = try await store.resolve(
            request(short.key), policy: Self.policy, policyNumber: 1)
        #expect((1...60_000).contains(try #require(ending.validForMilliseconds)))

        #expect(try await store.apiKeys(of: nil, limit: 2) == [short.key, old.key])
        let actions = try await store.log.newest(limit: 9).map { "\($0.action) \($0.detail)" }
        #expect(
            actions == [
                "api_key.create \(short.key.id)", "api_key.create \(old.key.id)",
                "api_key.revoke \(made.key.id)", "api_key.create \(made.key.id)",
            ])
    }

    @Test func aKeyDoesNotChangeItsUsersTier() async throws {
        let mesh = try await LedgerMesh()
        let store = SubjectStore(redis: mesh.redis, ledger: mesh.ledger)
        _ = try await resolve(store, "ann", tier: "free", tenant: "acme")
        var terms = APIKeyTerms(user: "ann")
        terms.tier = "premium"
        await #expect(throws: APIKeyConflict.bound(tier: "free", tenant: "acme")) {
            try await store.createAPIKey(terms, by: Self.root)
        }
        terms.tier = "free"
        let made = try await store.createAPIKey(terms, by: Self.root)
        let binding = try await store.resolve(
            request(made.key), policy: Self.policy, policyNumber: 1)
        #expect(binding.tier == "free" && binding.tenant == "acme")
    }

    @Test func aKeysOwnBudgetIsAnAccountBesideItsUsers() async throws {
        let mesh = try await LedgerMesh()
        let store = SubjectStore(redis: mesh.redis, ledger: mesh.ledger)
        var terms = APIKeyTerms(user: "ann")
        terms.tier = "free"
        terms.monthlyLimit = NanoUSD(300)
        let made = try await store.createAPIKey(terms, by: Self.root)
        let binding = try await store.resolve(
            request(made.key), policy: Self.policy, policyNumber: 1)
        let accounts = binding.accounts.filter { $0.unit == .usd }
        #expect(accounts.map(\.scope) == [.user, .tier, .key])
        let own = try #require(accounts.last)
        #expect(own.id == made.key.id && own.limit == NanoUSD(300))
        let account = own.key(at: try await mesh.redis.time())
        let holder = try await mesh.join().incarnation
        let refused = try await mesh.acquire(1, of: account, by: holder, need: 301)
        #expect(refused.status == .exhausted && refused.state?.limit == NanoUSD(300))
        let granted = try await mesh.acquire(2, of: account, by: holder, need: 300)
        #expect(granted.status == .granted)
    }
}
