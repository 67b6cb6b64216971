import WeirCore

/// Checks the plan of one request type against the whole policy.
struct PlanCheck {
    let draft: PolicyDraft
    let type: RequestTypePolicy
    private let steps: JSONPointer
    private let graph: DependencyGraph
    private let names: Set<String>

    init(draft: PolicyDraft, type: RequestTypePolicy) {
        self.draft = draft
        self.type = type
        steps = draft.spec(.requestType, type.name).appending("steps")
        graph = DependencyGraph(
            Dictionary(
                type.steps.map { ($0.name, $0.dependencies) }, uniquingKeysWith: { $0.union($1) }))
        names = Set(type.steps.map(\.name))
    }

    private var problems: ProblemList { draft.problems }

    func run() {
        var seen: Set<String> = []
        let onCycle = graph.namesOnCycles
        for (index, step) in type.steps.enumerated() {
            let path = steps.appending(index)
            if !seen.insert(step.name).inserted {
                problems.add(path.appending("name"), "there is a step \"\(step.name)\" already")
            }
            if onCycle.contains(step.name) {
                problems.add(
                    path.appending("after"), "the steps that this one waits for wait for it")
            }
            checkOrder(step, path)
            for (name, input) in step.input.sorted(by: { $0.key < $1.key }) {
                check(input, of: step, path.appending("input").appending(name))
            }
            checkTiers(step, path)
            checkOutput(step, path)
        }
    }

    /// Agents that speak other protocols answer in JSON anyway.
    private func checkOutput(_ step: RequestTypePolicy.Step, _ path: JSONPointer) {
        guard step.output == .json else { return }
        let agents = step.agentsByTier.values.joined().compactMap { draft.policy.agents[$0] }
        if !agents.contains(where: { $0.wireProtocol.isChat }) {
            problems.add(path.appending("output"), "only chat agents can be asked for JSON")
        }
    }

    private func checkOrder(_ step: RequestTypePolicy.Step, _ path: JSONPointer) {
        for (index, name) in step.after.enumerated() where !names.contains(name) {
            problems.add(path.appending("after").appending(index), "there is no step \"\(name)\"")
        }
        if let timeout = step.timeoutMilliseconds, timeout > type.timeoutMilliseconds {
            problems.add(path.appending("timeout"), "is longer than the request type's")
        }
    }

    private func check(
        _ input: RequestTypePolicy.Input, of step: RequestTypePolicy.Step, _ path: JSONPointer
    ) {
        let tokens = input.pointer.tokens
        switch tokens.first {
        case "data":
            if !type.inputSchema.declares(tokens.dropFirst()) {
                problems.add(path, "the input schema declares no \(input.pointer)")
            }
        case "steps":
            guard tokens.count >= 3, tokens[2] == "result" else {
                problems.add(path, "must point into /data or /steps/NAME/result")
                return
            }
            guard let source = type.steps.first(where: { $0.name == tokens[1] }) else {
                problems.add(path, "there is no step \"\(tokens[1])\"")
                return
            }
            checkSource(source, of: step, input, path)
        default: problems.add(path, "must point into /data or /steps/NAME/result")
        }
    }

    /// A step that a tier has must not need the result of one that the tier skips.
    private func checkSource(
        _ source: RequestTypePolicy.Step, of step: RequestTypePolicy.Step,
        _ input: RequestTypePolicy.Input, _ path: JSONPointer
    ) {
        let tokens = input.pointer.tokens.dropFirst(3)
        if let schema = source.resultSchema, !schema.declares(tokens) {
            problems.add(
                path,
                "the result schema of \"\(source.name)\" declares no "
                    + JSONPointer(Array(tokens)).description)
        }
        guard !input.isOptional else { return }
        let missing = Set(step.agentsByTier.keys).subtracting(source.agentsByTier.keys)
        for tier in missing.sorted() {
            problems.add(path, "tier \"\(tier)\" skips step \"\(source.name)\"")
        }
    }

    private func checkTiers(_ step: RequestTypePolicy.Step, _ path: JSONPointer) {
        let agents = path.appending("agents")
        for (tierName, candidates) in step.agentsByTier.sorted(by: { $0.key < $1.key }) {
            let place = agents.appending(tierName)
            let tier = draft.policy.tiers[tierName]
            if tier == nil { problems.add(place, "there is no tier \"\(tierName)\"") }
            for (index, name) in candidates.enumerated() {
                check(name, of: step, tier: tier, place.appending(index))
            }
        }
        guard step.required else { return }
        // A tier that has no step of the plan at all does not have the request type.
        let served = Set(type.steps.flatMap(\.agentsByTier.keys))
        for tier in served.subtracting(step.agentsByTier.keys).sorted()
        where draft.policy.tiers[tier] != nil {
            problems.add(
                agents, "tier \"\(tier)\" has no agent for this step, which is required")
        }
    }

    private func check(
        _ name: String, of step: RequestTypePolicy.Step, tier: TierPolicy?, _ path: JSONPointer
    ) {
        guard let agent = draft.policy.agents[name] else {
            problems.add(path, "there is no agent \"\(name)\"")
            return
        }
        if let tier, !tier.agents.contains(name) {
            problems.add(path, "tier \"\(tier.name)\" does not allow agent \"\(name)\"")
        }
        if agent.wireProtocol == .passthrough {
            problems.add(path, "agent \"\(name)\" is passthrough: no analysis can call it")
        }
        checkPrompt(agent, of: step, path)
    }

    private func checkPrompt(
        _ agent: AgentPolicy, of step: RequestTypePolicy.Step, _ path: JSONPointer
    ) {
        guard agent.wireProtocol.isChat else { return }
        guard let prompt = step.prompt ?? agent.prompt else {
            problems.add(path, "neither this step nor agent \"\(agent.name)\" has a prompt")
            return
        }
        if step.output == .json, !prompt.saysJSON {
            // OpenAI refuses a request for JSON whose messages do not ask for it.
            problems.add(path, "the prompt must say \"JSON\", because the step's output is json")
        }
        for name in prompt.placeholders.sorted() where step.input[name] == nil {
            problems.add(
                path, "the prompt names {{\(name)}}, which is no input of the step")
        }
    }
}
