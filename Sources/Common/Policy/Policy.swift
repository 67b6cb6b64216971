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

    /// These agents, and behind them the chain of their fallbacks as far as a tier allows it. A
    /// name comes once, so chains end.
    package func withFallbacks(_ planned: [String], tier: TierPolicy) -> [String] {
        var names = planned
        var position = 0
        while position < names.count {
            for next in agents[names[position]]?.fallbacks ?? []
            where !names.contains(next) && tier.agents.contains(next) {
                names.append(next)
            }
            position += 1
        }
        return names.filter { agents[$0] != nil }
    }

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
