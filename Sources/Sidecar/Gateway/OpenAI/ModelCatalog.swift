import WeirPolicy

/// The names that a client of the OpenAI API may give as `model`: agents that speak that API, their
/// models and the aliases of those. The policy sees to it that a name means one thing. Pure.
struct ModelCatalog: Sendable {
    struct Entry: Hashable, Sendable {
        let name: String
        let agent: AgentPolicy
        /// The model's id, never an alias.
        let model: String
    }

    let policy: Policy

    /// `nil` for a name that means nothing, or an agent without chat.
    subscript(name: String) -> Entry? {
        if let agent = policy.agents[name], agent.wireProtocol == .openai {
            return Entry(name: name, agent: agent, model: agent.defaultModel)
        }
        for agent in policy.agents.values where agent.wireProtocol == .openai {
            if let model = agent.model(named: name) {
                return Entry(name: name, agent: agent, model: model)
            }
        }
        return nil
    }

    /// What a caller may use, by agent: its name, and for each model its id and aliases.
    func entries(for caller: Caller) -> [Entry] {
        policy.agents.values.sorted { $0.name < $1.name }
            .filter { $0.wireProtocol == .openai && caller.mayCall($0.name) }
            .flatMap { agent -> [Entry] in
                var entries = [Entry(name: agent.name, agent: agent, model: agent.defaultModel)]
                for model in agent.models {
                    for name in [model.id] + model.aliases where name != agent.name {
                        entries.append(Entry(name: name, agent: agent, model: model.id))
                    }
                }
                return entries
            }
    }
}

extension Caller {
    /// Whether the tier has the agent and the user does not exclude it.
    func mayCall(_ agent: String) -> Bool {
        tier.agents.contains(agent) && !preferences.excludedAgents.contains(agent)
    }
}
