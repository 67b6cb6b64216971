import WeirCore

/// What a user prefers among the agents that the tier allows. Stored with the account, and applied
/// to the order of a step's candidates.
package struct Preferences: Hashable, Sendable {
    package enum Goal: String, Sendable, CaseIterable { case cost, quality, latency }

    /// The agent that a step goes to first, by the step's name in whatever request type.
    package var agentsByStep: [String: String] = [:]
    /// Agents that are never called for this user, not even as fallbacks.
    package var excludedAgents: [String] = []
    /// As a request's own `max_cost_usd`; the lower one holds.
    package var maxCostPerRequest: NanoUSD?
    package var optimize: Goal?

    package init() {}

    package var isEmpty: Bool { self == Preferences() }

    /// The shape in which users send and get them.
    package var json: JSONValue {
        var prefer: JSONObject = [:]
        for (step, agent) in agentsByStep.sorted(by: { $0.key < $1.key }) {
            prefer[step] = .string(agent)
        }
        var object: JSONObject = [
            "prefer": .object(prefer), "exclude": .array(excludedAgents.map { .string($0) }),
        ]
        object["max_cost_usd_per_request"] = maxCostPerRequest.map { .string($0.usd) }
        object["optimize"] = optimize.map { .string($0.rawValue) }
        return .object(object)
    }
}

extension Preferences {
    /// Reads what a user sent; throws everything that is wrong with it, by itself and within the
    /// tier.
    package init(
        reading value: JSONValue, tier: TierPolicy, policy: Policy
    ) throws(Problems) {
        let problems = ProblemList()
        let read = Preferences(reading: value, problems)
        let within = PreferenceCheck(tier: tier, policy: policy).check(read)
        for problem in within.problems {
            problems.add(JSONPointer(problem.path) ?? JSONPointer([]), problem.message)
        }
        try problems.throwIfAny()
        self = read
    }

    /// By its shape alone.
    init(reading value: JSONValue, _ problems: ProblemList) {
        guard let reader = ObjectReader(value, at: JSONPointer([]), problems) else { return }
        for (step, value, path) in reader.members("prefer", countMax: PolicyLimits.stepsMax) {
            guard let agent = value.string else {
                problems.add(path, "the name of an agent is needed, not \(value.kindName)")
                continue
            }
            agentsByStep[step] = agent
        }
        excludedAgents = reader.names("exclude", countMax: PolicyLimits.documentsMax)
        maxCostPerRequest = reader.money("max_cost_usd_per_request")
        if maxCostPerRequest == .zero {
            reader.report("max_cost_usd_per_request", "must be above 0")
        }
        optimize = reader.choice("optimize", Goal.self)
        reader.finish()
    }

    /// What of these a tier allows now: policies and tiers change after preferences were stored.
    package func effective(tier: TierPolicy, policy: Policy) -> Preferences {
        PreferenceCheck(tier: tier, policy: policy).check(self).allowed
    }
}

extension Preferences: Codable {
    package init(from decoder: any Decoder) throws {
        let problems = ProblemList()
        self.init(reading: try JSONValue(from: decoder), problems)
        guard let first = problems.list.first else { return }
        throw DecodingError.dataCorrupted(
            .init(codingPath: decoder.codingPath, debugDescription: "\(first)"))
    }

    package func encode(to encoder: any Encoder) throws { try json.encode(to: encoder) }
}

/// Preferences against a tier: what stays, and what is wrong with the rest. Pure.
private struct PreferenceCheck {
    let tier: TierPolicy
    let policy: Policy

    func check(_ wanted: Preferences) -> (allowed: Preferences, problems: [Problem]) {
        var allowed = wanted
        var problems: [Problem] = []
        allowed.excludedAgents = exclude(wanted.excludedAgents, &problems)
        for (step, agent) in wanted.agentsByStep.sorted(by: { $0.key < $1.key }) {
            guard let problem = problem(step, agent, excluded: allowed.excludedAgents) else {
                continue
            }
            allowed.agentsByStep[step] = nil
            let path = JSONPointer(["prefer", step]).description
            problems.append(Problem(path: path, message: problem))
        }
        return (allowed, problems)
    }

    private func problem(_ step: String, _ agent: String, excluded: [String]) -> String? {
        let steps = policy.requestTypes.values.flatMap(\.steps).filter { $0.name == step }
        guard !steps.isEmpty else { return "there is no step \"\(step)\"" }
        let offered = Set(steps.flatMap { $0.agentsByTier[tier.name] ?? [] }).sorted()
        guard !offered.isEmpty else { return "your tier skips this step" }
        guard offered.contains(agent) else {
            return "must be one of \(offered.joined(separator: ", "))"
        }
        return excluded.contains(agent) ? "\"\(agent)\" is excluded" : nil
    }

    /// The agents that may be left out, in their order: one that a required step cannot do without
    /// stays, because every request of its type would fail.
    private func exclude(_ names: [String], _ problems: inout [Problem]) -> [String] {
        var kept: [String] = []
        for (index, name) in names.enumerated() {
            let problem: String?
            if !tier.agents.contains(name) {
                problem = "must be one of \(tier.agents.joined(separator: ", "))"
            } else {
                problem = stranded(by: kept + [name]).map {
                    "\($0.type) could not do its step \"\($0.step)\" any more"
                }
            }
            if let problem {
                let path = JSONPointer(["exclude"]).appending(index).description
                problems.append(Problem(path: path, message: problem))
            } else {
                kept.append(name)
            }
        }
        return kept
    }

    private func stranded(by excluded: [String]) -> (type: String, step: String)? {
        for type in policy.requestTypes.values.sorted(by: { $0.name < $1.name }) {
            for step in type.steps where step.required {
                let candidates = policy.withFallbacks(
                    step.agentsByTier[tier.name] ?? [], tier: tier)
                if !candidates.isEmpty, candidates.allSatisfy(excluded.contains) {
                    return (type.name, step.name)
                }
            }
        }
        return nil
    }
}
