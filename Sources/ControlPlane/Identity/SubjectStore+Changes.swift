import WeirCore
import WeirLedger
import WeirPolicy

/// Who changes something about a user, and why.
package struct ChangeAuthor: Hashable, Sendable {
    package var name: String
    package var reason: String

    package init(name: String, reason: String) {
        self.name = name
        self.reason = reason
    }
}

// What changes about users. Each change is in the log before it is made: a crash in between leaves
// an entry too many, never a change that nobody can explain. Afterwards gateways are told to ask
// again; one that misses it asks when its binding runs out.
extension SubjectStore {
    /// Binds a user to a tier and a tenant, whatever tokens say (LEDGER rule 13), and states the
    /// limits of the new tier at once.
    package func setTier(
        _ tier: TierPolicy, tenant: String?, of user: String, by author: ChangeAuthor,
        policy: Policy, policyNumber: Int64
    ) async throws {
        try await note(
            "tier.set", of: user, tenant.map { "\(tier.name), tenant \($0)" } ?? tier.name, author)
        try await redis.command(
            [
                "HSET", StoreKeys.subject(user), "tier", tier.name, "tenant", tenant ?? "",
                "bound_by", author.name,
            ], isIdempotent: true)
        var accounts = SubjectAccounts.of(user: user, tenant: tenant, tier: tier, policy: policy)
        try await stateLimits(&accounts, tier, policyNumber: policyNumber)
        try await tellGateways(of: user)
    }

    /// Sets, or with `nil` takes back, a user's monthly limit. What is granted already stays so,
    /// until holders give it back.
    package func setMonthlyLimit(
        _ limit: NanoUSD?, of user: String, as setter: LimitSetter, by author: ChangeAuthor
    ) async throws {
        let text = limit.map { $0.usd + " USD a month" } ?? "none of its own"
        try await note("budget.update", of: user, "\(setter.rawValue)'s limit: \(text)", author)
        let key = StoreKeys.limit(.usd, .user, .month, user)
        let command: [String]
        if let limit {
            let amount = min(max(0, limit.rawValue), LedgerLimits.amountMax)
            command = ["HSET", key, setter.rawValue, String(amount)]
        } else {
            command = ["HDEL", key, setter.rawValue]
        }
        try await redis.command(command, isIdempotent: true)
        try await tellGateways(of: user)
    }

    /// The user's own affair, so it is not in the log.
    package func setPreferences(_ preferences: Preferences, of user: String) async throws {
        try await redis.command(
            ["HSET", StoreKeys.subject(user), "preferences", preferences.json.text],
            isIdempotent: true)
        try await tellGateways(of: user)
    }

    func note(
        _ action: String, of user: String, _ detail: String, _ author: ChangeAuthor
    ) async throws {
        try await log.append(
            AdminAction(
                at: try await redis.time(), author: author.name, action: action, subject: user,
                detail: detail, reason: author.reason))
    }

    func tellGateways(of user: String) async throws {
        try await redis.command(
            ["PUBLISH", StoreKeys.subjectChannel, user], isIdempotent: true)
    }
}
