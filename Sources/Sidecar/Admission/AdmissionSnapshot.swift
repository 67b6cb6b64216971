import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// Everything that the policy says about one agent's requests, resolved for the way of a request:
/// immutable, and replaced as a whole. A request keeps the one that it began with.
package final class AdmissionSnapshot: Sendable {
    struct Tier: Sendable {
        let name: String
        let priority: Int
        let outputTokensMax: Int64?
        let subjectMax: Int?
        let rate: GCRA?
        let isObserved: Bool
        let allowsAgent: Bool
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
    let prices: [String: ModelPrice]
    let needsBody: Bool
    let verifier: DelegationVerifier?
    /// The value of `authorization` upstream, from the environment of this process only.
    let credential: String?
    private let tiers: [String: Tier]
    private let noTier: Tier

    package init(
        _ agent: AgentPolicy, policy: Policy, version: PolicyVersion, funding: Funding,
        credential: String?
    ) {
        self.agent = agent
        self.version = version
        self.credential = credential
        versionText = String(version.number)
        prices = policy.prices
        needsBody = WorstCase.needsBody(agent: agent, prices: policy.prices)
        switch funding {
        case .delegations(let keys, let incarnation):
            verifier = DelegationVerifier(
                keys: keys, incarnation: incarnation, agent: agent.name)
        case .ownAllowance: verifier = nil
        }
        let isMesh = verifier != nil
        tiers = policy.tiers.mapValues { tier in
            Tier(
                name: tier.name, priority: tier.priority, outputTokensMax: tier.outputTokensMax,
                // Gateways count a user's requests; here a plan's steps would count again.
                subjectMax: isMesh ? nil : tier.concurrentRequestsMax,
                rate: isMesh ? nil : tier.rateLimit.map { GCRA($0) },
                isObserved: tier.observe, allowsAgent: tier.agents.contains(agent.name))
        }
        noTier = Tier(
            name: "", priority: 0, outputTokensMax: nil, subjectMax: nil, rate: nil,
            isObserved: false, allowsAgent: true)
    }

    /// Before there is one: no agent, no prices.
    static let none = AdmissionSnapshot(
        AgentPolicy(name: "", wireProtocol: .passthrough, path: "/", models: []),
        policy: Policy(), version: PolicyVersion(epoch: 0, number: 0, hash: ""),
        funding: .ownAllowance, credential: nil)

    /// A tier that the projection does not have gets no privileges and no limits of its own: the
    /// delegation bounds what it may spend.
    func tier(_ name: String) -> Tier { tiers[name] ?? noTier }
}
