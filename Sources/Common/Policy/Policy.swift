import WeirCore

/// (epoch, n, content hash): n never decreases, and one n has one hash.
package struct PolicyVersion: Hashable, Sendable, Codable, CustomStringConvertible {
    package var epoch: Int64
    package var number: Int64
    /// SHA-256 of the canonical bytes, in lower-case hexadecimal.
    package var hash: String

    package init(epoch: Int64, number: Int64, hash: String) {
        self.epoch = epoch
        self.number = number
        self.hash = hash
    }

    package var description: String { "\(epoch).\(number)" }
}

/// A whole policy, or the projection of one that a sidecar holds: validated, with every reference
/// resolved. An immutable snapshot; a change is another snapshot.
package struct Policy: Hashable, Sendable {
    package var agents: [String: AgentPolicy] = [:]
    package var requestTypes: [String: RequestTypePolicy] = [:]
    package var tiers: [String: TierPolicy] = [:]
    package var budgets: [String: BudgetPolicy] = [:]
    /// By model id, the aliases not among them.
    package var prices: [String: ModelPrice] = [:]
    package var mesh = MeshPolicy()

    package init() {}

    /// Whether any user is only watched: then accounts may go beyond their limits (LEDGER rule 1).
    package var observesAnyTier: Bool { tiers.values.contains { $0.observe } }

    /// What a caller means by a name: an agent, one of its models, or an alias. An agent's own name
    /// means its default model.
    package func resolve(_ name: String) -> (agent: AgentPolicy, model: String)? {
        if let agent = agents[name] { return (agent, agent.defaultModel) }
        for agent in agents.values {
            if let model = agent.model(named: name) { return (agent, model) }
        }
        return nil
    }
}
