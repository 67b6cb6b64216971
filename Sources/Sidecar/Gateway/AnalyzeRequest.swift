import SidecarCore
import WeirCore
import WeirPolicy

/// A refusal before any agent was called: the whole answer is a problem document.
package struct GatewayRefusal: Error, Hashable, Sendable {
    package var reason: Reason
    package var detail: String
    /// Everything that is wrong with the body, for `invalid`.
    package var problems: [Problem] = []
    package var retryAfterSeconds: Int64?
    /// Further members of the problem document.
    package var members: JSONObject = [:]
    /// Further fields of the answer.
    package var fields: [GatewayField] = []

    package init(
        _ reason: Reason, _ detail: String, problems: [Problem] = [],
        retryAfterSeconds: Int64? = nil, members: JSONObject = [:]
    ) {
        self.reason = reason
        self.detail = detail
        self.problems = problems
        self.retryAfterSeconds = retryAfterSeconds
        self.members = members
    }
}

/// The body of `POST /analyze`, checked against the request type's schema and plan.
package struct AnalyzeRequest: Hashable, Sendable {
    package var type: RequestTypePolicy
    package var data: JSONValue
    package var maxCost: NanoUSD?
    package var timeoutMilliseconds: Int64
    /// What a step should go to first, by step.
    package var agents: [String: Choice]

    package struct Choice: Hashable, Sendable {
        package var agent: String
        /// One of the agent's.
        package var model: String

        package init(agent: String, model: String) {
            self.agent = agent
            self.model = model
        }
    }

    package init(
        type: RequestTypePolicy, data: JSONValue, maxCost: NanoUSD? = nil,
        timeoutMilliseconds: Int64, agents: [String: Choice] = [:]
    ) {
        self.type = type
        self.data = data
        self.maxCost = maxCost
        self.timeoutMilliseconds = timeoutMilliseconds
        self.agents = agents
    }

    /// Reports every problem at once, each with the pointer of its place in the body.
    package static func read(
        _ body: [UInt8], policy: Policy, tier: TierPolicy
    ) throws(GatewayRefusal) -> AnalyzeRequest {
        let document = try parse(body)
        let problems = ProblemList()
        guard let reader = ObjectReader(document, at: JSONPointer([]), problems) else {
            throw invalid(problems.list)
        }
        let type = type(reader, policy)
        let data = reader.value("data", required: true)
        let options = reader.object("options")
        if let type, let data {
            for problem in type.inputSchema.problems(with: data, at: JSONPointer(["data"])) {
                problems.add(JSONPointer(problem.path) ?? JSONPointer([]), problem.message)
            }
        }
        let maxCost = options?.money("max_cost_usd")
        let timeout = options?.integer(
            "timeout_ms", in: 1...GatewayLimits.timeoutMillisecondsMax)
        let agents = type.map { Self.agents(options, $0, tier, policy) } ?? [:]
        _ = options?.value("agents")
        options?.finish()
        reader.finish()
        guard problems.list.isEmpty, let type, let data else { throw invalid(problems.list) }
        guard type.steps.contains(where: { $0.agentsByTier[tier.name] != nil }) else {
            throw GatewayRefusal(
                .agentNotAllowed, "Tier \(tier.name) does not have \(type.name).")
        }
        return AnalyzeRequest(
            type: type, data: data, maxCost: maxCost,
            // A caller may ask for less time than the policy gives, not for more.
            timeoutMilliseconds: min(timeout ?? .max, type.timeoutMilliseconds), agents: agents)
    }

    private static func parse(_ body: [UInt8]) throws(GatewayRefusal) -> JSONValue {
        do throws(JSONError) {
            return try JSON.parse(body)
        } catch {
            let reason: Reason = error.kind == .duplicateKey ? .duplicateKey : .malformed
            throw GatewayRefusal(reason, "The body: \(error).")
        }
    }

    private static func invalid(_ problems: [Problem]) -> GatewayRefusal {
        GatewayRefusal(
            .invalid, "The body has \(problems.count == 1 ? "a problem" : "problems").",
            problems: problems)
    }

    private static func type(_ reader: ObjectReader, _ policy: Policy) -> RequestTypePolicy? {
        guard let name = reader.string("analysis_type", required: true) else { return nil }
        guard let type = policy.requestTypes[name] else {
            let known = policy.requestTypes.keys.sorted().joined(separator: ", ")
            reader.report("analysis_type", "must be one of \(known)")
            return nil
        }
        return type
    }

    /// `{"STEP": "AGENT"}`: any of the step's agents for the tier is the caller's choice, by its
    /// name, by one of its models or by an alias.
    private static func agents(
        _ options: ObjectReader?, _ type: RequestTypePolicy, _ tier: TierPolicy,
        _ policy: Policy
    ) -> [String: Choice] {
        guard let options else { return [:] }
        var chosen: [String: Choice] = [:]
        for (name, value, path) in options.members(
            "agents", countMax: PolicyLimits.stepsMax)
        {
            guard let step = type.steps.first(where: { $0.name == name }) else {
                options.problems.add(path, "there is no step \"\(name)\"")
                continue
            }
            let allowed = step.agentsByTier[tier.name] ?? []
            guard let found = value.string.flatMap({ policy.resolve($0) }),
                allowed.contains(found.agent.name)
            else {
                let known = allowed.joined(separator: ", ")
                options.problems.add(
                    path, allowed.isEmpty ? "your tier skips this step" : "must be one of \(known)")
                continue
            }
            chosen[name] = Choice(agent: found.agent.name, model: found.model)
        }
        return chosen
    }
}
