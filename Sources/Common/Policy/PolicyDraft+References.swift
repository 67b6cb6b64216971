import WeirCore

/// What only the whole policy shows: references that lead nowhere, names that mean two things,
/// models without a price, budgets that can buy nothing.
extension PolicyDraft {
    func checkReferences() {
        checkNames()
        for agent in sorted(policy.agents) { check(agent) }
        checkCycles()
        checkHealthWeights()
        for tier in sorted(policy.tiers) { check(tier) }
        for type in sorted(policy.requestTypes) { PlanCheck(draft: self, type: type).run() }
        checkBudgets()
    }

    /// By name, so that problems come in the same order each time.
    private func sorted<Value>(_ values: [String: Value]) -> [Value] {
        values.sorted { $0.key < $1.key }.map(\.value)
    }

    /// A caller names an agent, a model or an alias in one field, so one name means one thing.
    private func checkNames() {
        var owners: [String: String] = [:]
        for agent in sorted(policy.agents) { owners[agent.name] = agent.name }
        for agent in sorted(policy.agents) {
            let path = spec(.agent, agent.name).appending("models")
            var own: Set<String> = []
            for (index, model) in agent.models.enumerated() {
                for (position, name) in ([model.id] + model.aliases).enumerated() {
                    let place = path.appending(index)
                    let leaf =
                        position == 0
                        ? place.appending("id") : place.appending("aliases").appending(position - 1)
                    if let owner = owners[name], owner != agent.name {
                        problems.add(leaf, "\"\(name)\" means agent \"\(owner)\" already")
                    } else if !own.insert(name).inserted {
                        problems.add(leaf, "\"\(name)\" is there already")
                    }
                    owners[name] = owners[name] ?? agent.name
                }
            }
        }
    }

    /// A score needs something to be made of.
    private func checkHealthWeights() {
        guard let first = sorted(policy.agents).first,
            policy.agents.values.allSatisfy({ $0.healthWeight == 0 })
        else { return }
        problems.add(
            spec(.agent, first.name).appending("healthWeight"), "is 0, as that of every agent")
    }

    private func check(_ agent: AgentPolicy) {
        let path = spec(.agent, agent.name)
        for (index, model) in agent.models.enumerated() {
            if policy.prices[model.id] == nil {
                problems.add(
                    path.appending("models").appending(index),
                    "no PriceTable has a price for \"\(model.id)\"; an unknown price is never 0")
            }
            for alias in model.aliases {
                guard let place = pricePlaces[alias] else { continue }
                problems.add(
                    place.appending("model"),
                    "\"\(alias)\" is an alias; the price belongs to \"\(model.id)\"")
            }
        }
        for (index, name) in agent.fallbacks.enumerated() where policy.agents[name] == nil {
            problems.add(
                path.appending("fallbacks").appending(index), "there is no agent \"\(name)\"")
        }
        for (index, name) in (agent.outbound?.agents ?? []).enumerated()
        where policy.agents[name] == nil {
            problems.add(
                path.appending("outbound").appending("agents").appending(index),
                "there is no agent \"\(name)\"")
        }
    }

    /// A chain that comes back to where it began would try for ever, and agents that call one
    /// another in a circle would spend for ever.
    private func checkCycles() {
        let fallbacks = policy.agents.mapValues { Set($0.fallbacks) }
        for name in DependencyGraph(fallbacks).namesOnCycles.sorted() {
            problems.add(
                spec(.agent, name).appending("fallbacks"), "the fallbacks lead back to this agent")
        }
        let calls = policy.agents.mapValues { Set($0.outbound?.agents ?? []) }
        for name in DependencyGraph(calls).namesOnCycles.sorted() {
            problems.add(
                spec(.agent, name).appending("outbound").appending("agents"),
                "the calls lead back to this agent")
        }
    }

    private func check(_ tier: TierPolicy) {
        let path = spec(.tier, tier.name)
        for (index, name) in tier.agents.enumerated() {
            let place = path.appending("agents").appending(index)
            guard let agent = policy.agents[name] else {
                problems.add(place, "there is no agent \"\(name)\"")
                continue
            }
            let least = leastCharge(of: agent, tier: tier)
            if least > tier.monthlyBudget {
                problems.add(
                    place,
                    "one call of \"\(name)\" may cost \(least.usd), which is more than the monthly "
                        + "budget of \(tier.monthlyBudget.usd)")
            }
        }
    }

    /// What a call with an empty input sets aside: its fixed price and its whole output. A budget
    /// below that never lets one through.
    private func leastCharge(of agent: AgentPolicy, tier: TierPolicy) -> NanoUSD {
        guard let first = policy.prices[agent.defaultModel] else { return .zero }
        let tokens = min(agent.outputTokensMax, tier.outputTokensMax ?? .max)
        // Whichever price is in force.
        return ([first] + first.later).map { price in
            let output = max(price.tokens.output, price.tokens.reasoning)
            guard agent.wireProtocol.isChat else { return price.perRequest }
            return price.perRequest + NanoUSD.cost(quantity: tokens, pricePerMillion: output)
        }.max() ?? .zero
    }

    private func checkBudgets() {
        var owners: [String: String] = [:]
        for budget in sorted(policy.budgets) {
            let path = spec(.budget, budget.name)
            if budget.scope == .tier, policy.tiers[budget.id] == nil {
                problems.add(path.appending("id"), "there is no tier \"\(budget.id)\"")
            }
            let account = "\(budget.scope.rawValue)/\(budget.id)"
            if let owner = owners.updateValue(budget.name, forKey: account) {
                problems.add(path.appending("id"), "Budget \"\(owner)\" is for the same account")
            }
        }
    }
}
