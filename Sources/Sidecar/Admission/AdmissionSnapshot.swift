import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// Everything that the policy says about one agent's requests, resolved for the way of a request:
/// immutable, and replaced as a whole. A request keeps the one that it began with.
package final class AdmissionSnapshot: Sendable {
    /// By reference, because each request keeps the one of its caller.
    final class Tier: Sendable {
        let name: String
        let priority: Int
        let subjectMax: Int?
        let rate: GCRA?
        let isObserved: Bool
        /// Its gateway is told of each attempt's tokens.
        let countsTokens: Bool
        let allowsAgent: Bool
        let bounder: WorstCase

        /// `nil`: a tier that the projection does not have. No privileges and no limits of its own:
        /// the delegation bounds what it may spend.
        init(
            _ tier: TierPolicy?, _ agent: AgentPolicy, _ prices: [String: ModelPrice], isMesh: Bool
        ) {
            name = tier?.name ?? ""
            priority = tier?.priority ?? 0
            // Gateways count a user's requests; here a plan's steps would count again.
            subjectMax = isMesh ? nil : tier?.concurrentRequestsMax
            rate = isMesh ? nil : tier?.rateLimit.map { GCRA($0) }
            isObserved = tier?.observe ?? false
            countsTokens = tier?.tokensPerMinute != nil
            allowsAgent = tier?.agents.contains(agent.name) ?? true
            bounder = WorstCase(
                agent: agent, prices: prices, outputTokensMax: tier?.outputTokensMax)
        }
    }

    package enum Funding: Sendable {
        /// Behind gateways: every request carries a delegation.
        case delegations(keys: [HopKey], incarnation: Incarnation)
        /// Standalone: a local allowance pays, and all callers are one.
        case ownAllowance
    }

    package let agent: AgentPolicy
    let version: PolicyVersion
    /// What answers say of the policy: its number, as everywhere outside of the mesh.
    let versionText: String
    /// The deadline of a request that has none of its own.
    let totalNanoseconds: UInt64
    /// What every request costs at most, or why none is bounded, where no request changes that.
    /// `nil`: the body must be held and read.
    let fixedTerms: Result<AttemptTerms, BoundRefusal>?
    let verifier: DelegationVerifier?
    /// Where answers say what was used, where the policy says it.
    let usageTree: UsageTree?
    /// `authorization` upstream (`x-api-key` for Anthropic's API), from the environment of this
    /// process only.
    let credential: PreparedFields?
    private let tiers: [String: Tier]
    private let noTier: Tier

    package init(
        _ agent: AgentPolicy, policy: Policy, version: PolicyVersion, funding: Funding,
        credential: String?
    ) {
        self.agent = agent
        self.version = version
        self.credential = credential.map {
            PreparedFields([
                (agent.wireProtocol == .anthropic ? "x-api-key" : "authorization", $0)
            ])
        }
        versionText = String(version.number)
        totalNanoseconds =
            UInt64(clamping: agent.timeouts.totalMilliseconds) &* 1_000_000
        usageTree = agent.usagePlaces.map(UsageTree.init)
        switch funding {
        case .delegations(let keys, let incarnation):
            verifier = DelegationVerifier(
                keys: keys, incarnation: incarnation, agent: agent.name)
        case .ownAllowance: verifier = nil
        }
        let isMesh = verifier != nil
        let prices = policy.prices
        tiers = policy.tiers.mapValues { Tier($0, agent, prices, isMesh: isMesh) }
        let noTier = Tier(nil, agent, prices, isMesh: isMesh)
        self.noTier = noTier
        fixedTerms = noTier.bounder.fixedBound.map { [versionText] result in
            result.map { AttemptTerms($0, agent: agent, versionText: versionText) }
        }
    }

    /// Before there is one: no agent, no prices.
    static let none = AdmissionSnapshot(
        AgentPolicy(name: "", wireProtocol: .passthrough, path: "/", models: []),
        policy: Policy(), version: PolicyVersion(epoch: 0, number: 0, hash: ""),
        funding: .ownAllowance, credential: nil)

    func tier(_ name: String) -> Tier { name.isEmpty ? noTier : tiers[name] ?? noTier }

    /// For what a body said.
    func terms(_ bound: AttemptBound) -> AttemptTerms {
        AttemptTerms(bound, agent: agent, versionText: versionText)
    }
}
