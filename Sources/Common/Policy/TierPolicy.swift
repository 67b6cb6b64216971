import WeirCore

/// What users of one tier may do and spend (kind `Tier`).
package struct TierPolicy: Hashable, Sendable {
    package enum WhenControlPlaneIsLost: Hashable, Sendable {
        /// Go on inside the leases in hand, then refuse.
        case insideLeases
        /// Spend at most this, leased in advance, after the leases are used up.
        case allowUpTo(NanoUSD)
        case refuse
    }

    package var name: String
    package var monthlyBudget: NanoUSD
    /// `nil`: unlimited.
    package var dailyRequests: Int64?
    /// Of one user at all gateways together; `nil`: unlimited.
    package var requestsPerMinute: Int64?
    package var tokensPerMinute: Int64?
    /// Of one user at each gateway.
    package var rateLimit: AgentPolicy.RateLimit?
    /// Requests of one user at once; `nil`: only the agents' own limits.
    package var concurrentRequestsMax: Int?
    package var agents: [String]
    /// Higher goes first in every queue.
    package var priority: Int = 0
    /// Shares of the budget, in percent: from the first prefer the cheaper agent, from the second
    /// allow only that.
    package var downgradePreferPercent: Int = 80
    package var downgradeRequirePercent: Int = 95
    /// Shares of an account, in percent, rising: from the first on answers carry a warning, and
    /// reaching each is told once.
    package var warnAtPercent = [80, 95]
    package var whenControlPlaneIsLost = WhenControlPlaneIsLost.insideLeases
    /// What one holder may have of one account and not have spent; `nil`: min(limit ÷ 20, $1).
    package var maxLease: NanoUSD?
    package var outputTokensMax: Int64?
    package var observe = false
    /// Tags that requests may give themselves, beside those of a token or an API key.
    package var requestTags = RequestTags.some([])

    package enum RequestTags: Hashable, Sendable {
        case any
        case some(Set<String>)

        package func allows(_ tag: String) -> Bool {
            switch self {
            case .any: true
            case .some(let tags): tags.contains(tag)
            }
        }
    }

    package init(name: String, monthlyBudget: NanoUSD, agents: [String]) {
        self.name = name
        self.monthlyBudget = monthlyBudget
        self.agents = agents
    }

    package static let defaultMaxLeaseCeiling = NanoUSD(NanoUSD.nanoPerUSD)

    /// The cap on granted − consumed − released of one holder and account (LEDGER rule 3).
    package func maxLease(limit: NanoUSD) -> NanoUSD {
        let share = maxLease ?? min(NanoUSD(limit.rawValue / 20), Self.defaultMaxLeaseCeiling)
        // What is kept for a time without a control plane is beside what is spent with one.
        guard let standby else { return share }
        return max(share, min(share + standby, limit))
    }

    /// What a user may spend without a control plane; `nil`: nothing beyond the leases.
    package var standby: NanoUSD? {
        guard case .allowUpTo(let amount) = whenControlPlaneIsLost, amount > .zero else {
            return nil
        }
        return amount
    }
}

/// An account beyond a tier's default (kind `Budget`): a tenant, a tier as a whole, or all requests
/// with a tag.
package struct BudgetPolicy: Hashable, Sendable {
    package enum Scope: String, Sendable, CaseIterable { case tenant, tier, mesh, tag }

    package var name: String
    package var scope: Scope
    package var id: String
    package var monthlyLimit: NanoUSD

    package init(name: String, scope: Scope, id: String, monthlyLimit: NanoUSD) {
        self.name = name
        self.scope = scope
        self.id = id
        self.monthlyLimit = monthlyLimit
    }
}
