import SidecarCore
import WeirCore
import WeirPolicy

/// The body of `POST /v1/chat/completions`, bounded for the agent that it names and for those that
/// it may fall back to. Everything but the model, the output limit and `stream_options` goes on as
/// it came. Pure.
struct ChatRequest: Sendable {
    /// The agent that was asked for first, then its fallbacks.
    let candidates: [AgentCaller.Prepared]
    let isStream: Bool
    /// The client asked for the usage of a stream; others do not get to see it.
    let wantsUsage: Bool
    /// What the client allowed each answer at most, where it said so.
    private let statedOutputMax: Int64?
    private let choices: Int64

    /// Refuses what the first agent cannot be asked; fallbacks that cannot be asked it are left
    /// out.
    init(_ body: JSONValue, caller: Caller, policy: Policy) throws(GatewayRefusal) {
        guard let object = body.object else {
            throw Self.invalid("", "must be a JSON object")
        }
        guard let name = object["model"]?.string else {
            throw Self.invalid("/model", "must name a model, as GET /v1/models lists them")
        }
        let asked = try Self.entry(name, caller, policy)
        let first = try Self.prepare(object, asked.agent, model: asked.model, caller, policy)
        let rest = policy.withFallbacks([asked.agent.name], tier: caller.tier)
            .dropFirst().compactMap { policy.agents[$0] }
            .filter { $0.wireProtocol == .openai && caller.mayCall($0.name) }
            .compactMap { try? Self.prepare(object, $0, model: $0.defaultModel, caller, policy) }
        candidates = [first] + rest
        isStream = first.bound.isStream
        wantsUsage = object["stream_options"]?["include_usage"]?.bool == true
        (statedOutputMax, choices) = Self.outputLimit(object)
    }

    /// A body in the agent's own form, for that agent alone.
    init(
        direct body: [UInt8], to agent: AgentPolicy, caller: Caller, policy: Policy
    ) throws(GatewayRefusal) {
        let prepared = try Self.prepare(body, agent, caller, policy)
        candidates = [prepared]
        isStream = prepared.bound.isStream
        let object = agent.wireProtocol == .openai ? (try? JSON.parse(body))?.object : nil
        wantsUsage = object?["stream_options"]?["include_usage"]?.bool ?? (object == nil)
        (statedOutputMax, choices) = Self.outputLimit(object ?? [:])
    }

    private static func outputLimit(_ object: JSONObject) -> (stated: Int64?, choices: Int64) {
        let stated = ["max_tokens", "max_completion_tokens"].compactMap { object[$0]?.int64 }.max()
        return (stated, max(1, object["n"]?.int64 ?? 1))
    }

    /// The output limit of each answer, where it is not the one that the client stated.
    func loweredOutputMax(of candidate: AgentCaller.Prepared) -> Int64? {
        guard candidate.agent.wireProtocol == .openai, !candidate.bound.isPolicyCeiling else {
            return nil
        }
        let limit = candidate.bound.outputTokensMax / choices
        return limit == statedOutputMax ? nil : limit
    }

    private static func entry(
        _ name: String, _ caller: Caller, _ policy: Policy
    ) throws(GatewayRefusal) -> ModelCatalog.Entry {
        guard let entry = ModelCatalog(policy: policy)[name] else {
            throw GatewayRefusal(
                .unknownAgent, "There is no chat model of this name.",
                problems: [Problem(path: "/model", message: "names no model")])
        }
        try entry.checkAccess(of: caller)
        return entry
    }

    private static func prepare(
        _ object: JSONObject, _ agent: AgentPolicy, model: String, _ caller: Caller,
        _ policy: Policy
    ) throws(GatewayRefusal) -> AgentCaller.Prepared {
        var object = object
        object["model"] = .string(model)
        return try prepare(JSONValue.object(object).bytes, agent, caller, policy)
    }

    private static func prepare(
        _ body: [UInt8], _ agent: AgentPolicy, _ caller: Caller, _ policy: Policy
    ) throws(GatewayRefusal) -> AgentCaller.Prepared {
        let worstCase = WorstCase(
            agent: agent, prices: policy.prices, outputTokensMax: caller.tier.outputTokensMax)
        do throws(BoundRefusal) {
            let bound = try worstCase.bound(method: "POST", path: agent.path, body: body)
            return AgentCaller.Prepared(
                agent: agent, bound: bound, body: bound.body ?? body,
                accept: bound.isStream ? "text/event-stream" : "application/json")
        } catch {
            throw GatewayRefusal(
                error.reason, error.detail, problems: error.problem.map { [$0] } ?? [])
        }
    }

    private static func invalid(_ path: String, _ message: String) -> GatewayRefusal {
        GatewayRefusal(
            .invalid, path.isEmpty ? "The body \(message)." : "The field \(path) \(message).",
            problems: [Problem(path: path, message: message)])
    }
}

extension ModelCatalog.Entry {
    func checkAccess(of caller: Caller) throws(GatewayRefusal) {
        guard !caller.mayCall(agent.name) else { return }
        let problem = Problem(path: "/model", message: "is not yours to use")
        throw caller.tier.agents.contains(agent.name)
            ? GatewayRefusal(
                .agentNotAllowed, "Your preferences exclude \(agent.name).", problems: [problem])
            : GatewayRefusal(
                .agentNotAllowed, "Tier \(caller.tier.name) does not have \(agent.name).",
                problems: [problem])
    }
}
