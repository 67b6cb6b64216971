import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// Users: which tier they are bound to, which accounts pay for them, what they prefer. The binding
/// is made at first sight from the token's claim; later only an administrator changes it, whatever
/// token arrives (LEDGER rule 13).
package struct SubjectStore: Sendable {
    /// Who set a limit: an administrator sets any, a user lowers the own one.
    package enum LimitSetter: String, Sendable { case admin, user }

    /// As whom the records name the mesh's own calls; no token and no key may be of this name.
    package static let meshUser = "mesh"

    let redis: Redis
    let ledger: LedgerStore
    package let log: AdminLog

    package init(redis: Redis, ledger: LedgerStore) {
        self.redis = redis
        self.ledger = ledger
        log = AdminLog(redis: redis)
    }

    /// What a lookup asks for beside who the caller is, and by which policy.
    package struct Opening: Sendable {
        package var acquire: [LeaseAcquire]
        package var holder: Incarnation
        package var mayObserve: Bool

        package init(acquire: [LeaseAcquire], holder: Incarnation, mayObserve: Bool) {
            self.acquire = acquire
            self.holder = holder
            self.mayObserve = mayObserve
        }
    }

    /// Who a caller is to the ledger; states the limits of its accounts on the way, so that leases
    /// can be had of them. Throws `MeshRefusal` for a key or a tier that is not known.
    package func resolve(
        _ request: SubjectRequest, policy: Policy, policyNumber: Int64
    ) async throws -> SubjectBinding {
        try await resolve(request, opening: nil, policy: policy, policyNumber: policyNumber).binding
    }

    /// The same with leases of the accounts, granted after the limits are stated and in the same
    /// pipeline, because each write waits for the disk.
    package func resolve(
        _ request: SubjectRequest, opening: Opening?, policy: Policy, policyNumber: Int64
    ) async throws -> SubjectAnswer {
        if request.isMesh == true {
            return SubjectAnswer(binding: try await mesh(policy, policyNumber: policyNumber))
        }
        let bearer = try await bearer(of: request)
        try Self.check(bearer.claims)
        async let acquisition = acquisition(of: opening, policyNumber: policyNumber)
        let sight = try await sight(of: bearer.claims, policy)
        guard let tier = policy.tiers[sight.tier] else {
            throw MeshRefusal(
                reason: "forbidden", detail: "the policy has no tier \(sight.tier)")
        }
        let tags = try Self.tags(of: request, own: bearer.claims.tags ?? [], tier)
        var accounts = SubjectAccounts.of(
            user: bearer.claims.subject, tenant: sight.tenant, tier: tier, policy: policy)
        accounts += try SubjectAccounts.of(tags, policy: policy)
        if let account = bearer.account { accounts.append(account) }
        let stated = try await state(
            &accounts, tier, policyNumber: policyNumber, bind: sight.bind, try await acquisition)
        guard stated.row.map({ sight.agrees(with: $0) }) ?? true else {
            // Bound by somebody else in between, to a tier with other limits, perhaps. What was
            // granted meanwhile is granted again under its number.
            return try await resolve(
                request, opening: opening, policy: policy, policyNumber: policyNumber)
        }
        var binding = SubjectBinding(
            user: bearer.claims.subject, tenant: sight.tenant, tier: sight.tier,
            roles: bearer.claims.roles, accounts: accounts,
            preferences: Self.preferences(sight.row)?.effective(tier: tier, policy: policy),
            timeToLiveMilliseconds: StoreLimits.bindingMilliseconds,
            validForMilliseconds: bearer.validForMilliseconds, tags: tags)
        binding.standby = try await standby(
            of: bearer.claims.subject, tier, policyNumber: policyNumber)
        return SubjectAnswer(binding: binding, leases: stated.leases)
    }

    private static func check(_ claims: SubjectRequest.Claims) throws(MeshRefusal) {
        guard claims.subject != Self.meshUser else {
            throw MeshRefusal(
                reason: "forbidden", detail: "\(Self.meshUser) is the name of the mesh itself")
        }
        guard !claims.subject.isEmpty, claims.subject.utf8.count <= StoreLimits.nameBytesMax,
            (claims.tenant?.utf8.count ?? 0) <= StoreLimits.nameBytesMax
        else {
            throw MeshRefusal(reason: "invalid", detail: "the subject's name is empty or too long")
        }
    }

    /// The account of what the tier lets a user spend without a control plane.
    private func standby(
        of user: String, _ tier: TierPolicy, policyNumber: Int64
    ) async throws -> SubjectBinding.Account? {
        guard let amount = tier.standby else { return nil }
        let account = SubjectBinding.Account(
            unit: .usd, scope: .standby, period: .month, id: user, limit: amount)
        _ = try await ledger.setLimits([(account, amount)], policyNumber: policyNumber)
        return account
    }

    /// Those of the token or the key, and those that the tier lets a request give itself.
    private static func tags(
        of request: SubjectRequest, own: [String], _ tier: TierPolicy
    ) throws(MeshRefusal) -> Tags {
        let asked = request.tags ?? []
        if let tag = asked.first(where: { !own.contains($0) && !tier.requestTags.allows($0) }) {
            throw MeshRefusal(
                reason: Reason.forbidden.name,
                detail: "the tier \(tier.name) does not let requests have the tag \(tag)")
        }
        guard let tags = Tags(own + asked) else {
            throw MeshRefusal(
                reason: Reason.invalid.name,
                detail: "with its token's or key's the request has more than \(Tags.countMax) "
                    + "tags, or too long ones")
        }
        return tags
    }

    /// What a token or a key says of who brings it.
    private struct Bearer {
        var claims: SubjectRequest.Claims
        /// Of the key alone, beside its user's.
        var account: SubjectBinding.Account?
        var validForMilliseconds: Int64?
    }

    /// Who pays for tests of agents: the first `Budget` of scope mesh. No budget, no tests.
    private func mesh(_ policy: Policy, policyNumber: Int64) async throws -> SubjectBinding {
        let budget = policy.budgets.values.filter { $0.scope == .mesh }.min { $0.name < $1.name }
        let tier = policy.tiers.values.max { ($0.priority, $0.name) < ($1.priority, $1.name) }
        guard let budget, let tier else {
            throw MeshRefusal(
                reason: "forbidden", detail: "the policy has no Budget of scope mesh to pay from")
        }
        var accounts = [
            SubjectBinding.Account(
                unit: .usd, scope: .mesh, period: .month, id: budget.id,
                limit: budget.monthlyLimit)
        ]
        try await stateLimits(&accounts, tier, policyNumber: policyNumber)
        return SubjectBinding(
            user: Self.meshUser, tenant: nil, tier: tier.name, roles: [], accounts: accounts,
            preferences: nil, timeToLiveMilliseconds: StoreLimits.bindingMilliseconds)
    }

    /// Afterwards the accounts have the limits in force, where an administrator or the user set
    /// another one.
    func stateLimits(
        _ accounts: inout [SubjectBinding.Account], _ tier: TierPolicy, policyNumber: Int64
    ) async throws {
        _ = try await state(&accounts, tier, policyNumber: policyNumber, bind: nil, nil)
    }

    private func acquisition(
        of opening: Opening?, policyNumber: Int64
    ) async throws -> LedgerStore.Acquisition? {
        guard let opening, !opening.acquire.isEmpty else { return nil }
        return try await ledger.acquisition(
            of: opening.acquire, by: opening.holder, policyNumber: policyNumber,
            mayObserve: opening.mayObserve)
    }

    /// Binds, states limits and acquires, in this order and as far as each is wanted. `row`: of the
    /// binding, if one was to be made.
    private func state(
        _ accounts: inout [SubjectBinding.Account], _ tier: TierPolicy, policyNumber: Int64,
        bind: ScriptCall?, _ acquisition: LedgerStore.Acquisition?
    ) async throws -> (row: [String: String]?, leases: LeasesResponse?) {
        let limits = accounts.map {
            LedgerCalls.setLimit(
                $0, maxLease: SubjectAccounts.maxLease(of: $0, tier), policyNumber: policyNumber)
        }
        let leases = acquisition?.calls ?? []
        var (replies, origins) = try await redis.runAllNoting(
            (bind.map { [$0] } ?? []) + limits + leases, first: acquisition?.first)
        let row = bind == nil ? nil : replies.removeFirst().fields
        for position in accounts.indices {
            accounts[position].limit = try LedgerCalls.limitInForce(replies[position])
        }
        guard let acquisition else { return (row, nil) }
        if leases.isEmpty { origins = [] }
        let answer = try await ledger.answer(
            acquisition, replies[accounts.count...], from: origins)
        return (row, answer)
    }

    private func bearer(of request: SubjectRequest) async throws -> Bearer {
        if let claims = request.claims { return Bearer(claims: claims) }
        guard let hash = request.apiKeyHash, hash.utf8.count <= StoreLimits.nameBytesMax else {
            throw MeshRefusal(reason: "invalid", detail: "claims or the hash of a key are needed")
        }
        let (key, rest) = try await usableAPIKey(hash: hash)
        let terms = key.terms
        return Bearer(
            claims: SubjectRequest.Claims(
                subject: terms.user, tier: terms.tier, tenant: terms.tenant, roles: terms.roles,
                tags: Tags(terms.tags ?? []) ?? .none),
            account: key.account, validForMilliseconds: rest)
    }

    /// The stored binding, or the one that `bind` is to make, where nobody has seen the user.
    private struct Sight {
        var row: [String: String]
        var bind: ScriptCall?

        var tier: String { row["tier"] ?? "" }
        var tenant: String? { row["tenant"].flatMap { $0.isEmpty ? nil : $0 } }

        func agrees(with bound: [String: String]) -> Bool {
            bound["tier"] == row["tier"] && bound["tenant"] == row["tenant"]
        }
    }

    private func sight(of claims: SubjectRequest.Claims, _ policy: Policy) async throws -> Sight {
        let key = StoreKeys.subject(claims.subject)
        let stored = try await redis.read("HGETALL", key).fields
        guard stored["tier"] == nil else { return Sight(row: stored) }
        let fallback = policy.tiers.values.min {
            ($0.priority, $0.name) < ($1.priority, $1.name)
        }
        guard let tier = claims.tier ?? fallback?.name, policy.tiers[tier] != nil else {
            throw MeshRefusal(
                reason: "forbidden", detail: "the policy has no tier \(claims.tier ?? "at all")")
        }
        let tenant = claims.tenant ?? ""
        return Sight(
            row: stored.merging(["tier": tier, "tenant": tenant]) { $1 },
            bind: ScriptCall(
                script: SubjectScripts.bind, keys: [key], arguments: [tier, tenant, "claims"]))
    }

    /// What is stored of a user; `nil` for one that nobody has seen.
    package func stored(_ user: String) async throws -> StoredSubject? {
        let replies = try await redis.readAll([
            ["HGETALL", StoreKeys.subject(user)],
            ["HMGET", StoreKeys.limit(.usd, .user, .month, user), "limit", "admin", "user"],
        ])
        let row = replies[0].fields
        guard let tier = row["tier"] else { return nil }
        let limits = (replies[1].array ?? []).map { $0.integer.map { NanoUSD($0) } }
        return StoredSubject(
            user: user, tier: tier, tenant: row["tenant"].flatMap { $0.isEmpty ? nil : $0 },
            boundBy: row["bound_by"] ?? "",
            limitByPolicy: limits.first ?? nil, limitByAdmin: limits.dropFirst().first ?? nil,
            limitByUser: limits.last ?? nil,
            preferences: Self.preferences(row))
    }

    /// `nil` where none are stored, or what no version of this program would have stored.
    private static func preferences(_ row: [String: String]) -> Preferences? {
        row["preferences"].flatMap { try? JSON.decode(Preferences.self, from: Array($0.utf8)) }
    }
}

/// A user as the store has it.
package struct StoredSubject: Hashable, Sendable {
    package var user: String
    package var tier: String
    package var tenant: String?
    /// "claims", or the administrator who changed it.
    package var boundBy: String
    package var limitByPolicy: NanoUSD?
    package var limitByAdmin: NanoUSD?
    package var limitByUser: NanoUSD?
    package var preferences: Preferences?

    /// What an administrator, or else the policy, allows; `nil` before the first sight.
    package var ceiling: NanoUSD? { limitByAdmin ?? limitByPolicy }
    package var limit: NanoUSD? { ceiling.map { min($0, limitByUser ?? .limitMax) } }
}

enum SubjectScripts {
    /// Binds a subject that nobody has seen. Key: its row. Arguments: tier, tenant, by whose
    /// word. Answer: the row.
    static let bind = RedisScript(
        name: "bind",
        source: LedgerScripts.prelude + """
            if redis.call('HEXISTS', KEYS[1], 'tier') == 0 then
              redis.call('HSET', KEYS[1], 'tier', ARGV[1], 'tenant', ARGV[2],
                'bound_by', ARGV[3], 'bound_at', text(clock()))
            end
            return redis.call('HGETALL', KEYS[1])
            """,
        isIdempotent: true)
}

/// Which accounts pay for a user, by the policy. Pure.
enum SubjectAccounts {
    static func of(
        user: String, tenant: String?, tier: TierPolicy, policy: Policy
    ) -> [SubjectBinding.Account] {
        var accounts = [
            SubjectBinding.Account(
                unit: .usd, scope: .user, period: .month, id: user, limit: tier.monthlyBudget)
        ]
        if let requests = tier.dailyRequests {
            accounts.append(
                SubjectBinding.Account(
                    unit: .requests, scope: .user, period: .day, id: user,
                    limit: NanoUSD(requests)))
        }
        if let requests = tier.requestsPerMinute {
            accounts.append(
                SubjectBinding.Account(
                    unit: .requests, scope: .user, period: .minute, id: user,
                    limit: NanoUSD(requests)))
        }
        if let tokens = tier.tokensPerMinute {
            accounts.append(
                SubjectBinding.Account(
                    unit: .tokens, scope: .user, period: .minute, id: user, limit: NanoUSD(tokens)))
        }
        for budget in policy.budgets.values.sorted(by: { $0.name < $1.name }) {
            let scope: AccountKey.Scope
            switch budget.scope {
            case .tenant where budget.id == tenant: scope = .tenant
            case .tier where budget.id == tier.name: scope = .tier
            case .tenant, .tier, .mesh, .tag: continue
            }
            accounts.append(
                SubjectBinding.Account(
                    unit: .usd, scope: scope, period: .month, id: budget.id,
                    limit: budget.monthlyLimit))
        }
        return accounts
    }

    /// Those of the tags that have a Budget.
    static func of(
        _ tags: Tags, policy: Policy
    ) throws(MeshRefusal) -> [SubjectBinding.Account] {
        guard !tags.isEmpty else { return [] }
        let names = Set(tags.names)
        let budgets = policy.budgets.values.filter { $0.scope == .tag && names.contains($0.id) }
        guard budgets.count <= LedgerLimits.taggedAccountsMax else {
            throw MeshRefusal(
                reason: Reason.invalid.name,
                detail: "at most \(LedgerLimits.taggedAccountsMax) tags of a request may have a "
                    + "Budget")
        }
        return budgets.sorted { $0.id < $1.id }.map {
            SubjectBinding.Account(
                unit: .usd, scope: .tag, period: .month, id: $0.id, limit: $0.monthlyLimit)
        }
    }

    /// What one holder may have of an account and not have spent (LEDGER rule 3).
    static func maxLease(of account: SubjectBinding.Account, _ tier: TierPolicy) -> NanoUSD {
        switch account.unit {
        case .usd: tier.maxLease(limit: account.limit)
        case .requests, .tokens: account.countedMaxLease
        }
    }
}
