import SidecarCore
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// Calls of agents, brought by their sidecars (decision 13): a call of another agent for the user
/// whose request the caller works on, in the same run, for no more than the caller may still spend.
/// It counts as no request of the user and takes no place of this gateway: the request that it
/// belongs to has both, and an analysis that waited for its own calls' places could wait for ever.
struct OutboundEndpoint: GatewayEndpoint {
    enum Form: String, CaseIterable {
        case agent = "/agents/{agent}"
        case chat = "/v1/chat/completions"
        case models = "/v1/models"
    }

    private static let costField = "weir-cost-usd"

    let form: Form
    let calls: OutboundCalls
    let dependencies: GatewayDependencies

    var path: String { OutboundCall.pathPrefix + form.rawValue }
    var methods: [String] { form == .models ? ["GET"] : ["POST"] }

    /// A refusal says what it cost, too: the sidecar would take the whole amount for spent.
    func respond(
        to request: GatewayRequest, on worker: GatewayWorker
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        do throws(GatewayRefusal) {
            return try await run(request, worker)
        } catch {
            var refusal = error
            if !refusal.fields.contains(where: { $0.name == Self.costField }) {
                refusal.fields.append(GatewayField(Self.costField, NanoUSD.zero.usd))
            }
            throw refusal
        }
    }

    private func run(
        _ request: GatewayRequest, _ worker: GatewayWorker
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        let snapshot = try dependencies.snapshotInForce()
        let call = try calls.open(request.field("authorization"), path: request.path, snapshot)
        let (caller, binding) = try await caller(of: call, snapshot)
        let allowed = Callable(of: call.agent, caller: caller, policy: snapshot.policy)
        let chat: ChatRequest
        switch form {
        case .models:
            let list = ModelCatalog(policy: snapshot.policy).list(for: allowed.caller)
            return .json(200, list, [GatewayField("cache-control", "no-store")])
        case .agent: chat = try allowed.direct(request)
        case .chat: chat = try allowed.chat(request)
        }
        let ledger = dependencies.ledger(binding, snapshot, worker.clock)
        let calls = AgentCaller(
            snapshot: snapshot, caller: caller,
            requestID: Identifier(request.id.dropFirst(4)) ?? .random(at: worker.clock.now),
            runID: call.run, requestType: call.requestType,
            trace: request.field("traceparent").flatMap(TraceContext.init(_:)), ledger: ledger,
            transport: worker.transport, clock: worker.clock, picker: dependencies.picker,
            budget: RunBudget(limit: call.amount), depth: call.depth)
        defer {
            dependencies.metrics.observed(ledger.observed.reasons, tier: caller.tier.name)
        }
        let (outcome, downgrade) = await ChatRun(
            chat: chat, calls: calls,
            deadlineNanoseconds: worker.clock.nowNanoseconds
                + UInt64(call.remainingMilliseconds) * 1_000_000
        ).run()
        return try ChatAnswer(
            request: chat, outcome: outcome, downgrade: downgrade, ledger: ledger,
            clock: worker.clock
        ).answer()
    }

    /// The user whose request the calling agent works on, as the control plane knows it now: a key
    /// that was revoked meanwhile pays no more.
    private func caller(
        of call: OutboundCall, _ snapshot: GatewaySnapshot
    ) async throws(GatewayRefusal) -> (Caller, SubjectBinding) {
        var binding: SubjectBinding
        switch await dependencies.bind(call.subjectRequest) {
        case .bound(let bound): binding = bound
        case .refused(let reason, let detail): throw GatewayRefusal(reason, detail)
        case .unavailable:
            throw GatewayRefusal(
                .controlPlaneLost, "The user's account cannot be looked up now.",
                retryAfterSeconds: 1)
        }
        // The mesh has no tier of its own: its tests take one that has the agent.
        if call.knownBy == .mesh { binding.tier = call.tier }
        guard binding.user == call.subject, let tier = snapshot.policy.tiers[binding.tier] else {
            throw GatewayRefusal(.forbidden, "The call is for a user that is not known.")
        }
        var caller = Caller(
            user: binding.user, tenant: binding.tenant, tier: tier, roles: [],
            preferences: binding.preferences ?? Preferences())
        caller.knownBy = call.knownBy
        caller.tags = Tags(binding.tags ?? []) ?? .none
        return (caller, binding)
    }
}

/// Whom an agent may call for a user: who stands in its policy, and the user's tier has. Pure.
private struct Callable {
    /// Of a tier that has nobody else, so that nobody else can be fallen back to either.
    let caller: Caller
    private let name: String
    private let agents: [String]
    private let user: Caller
    private let policy: Policy

    init(of name: String, caller: Caller, policy: Policy) {
        self.name = name
        self.policy = policy
        user = caller
        agents = policy.agents[name]?.outbound?.agents ?? []
        var restricted = caller
        restricted.tier.agents = caller.tier.agents.filter { [agents] in agents.contains($0) }
        self.caller = restricted
    }

    /// A body in the agent's own form.
    func direct(_ request: GatewayRequest) throws(GatewayRefusal) -> ChatRequest {
        let parameters = try request.allParameters()
        guard let agent = policy.agents[parameters["agent"] ?? ""] else {
            throw GatewayRefusal(.unknownAgent, "There is no agent of this name.")
        }
        try check(agent)
        return try ChatRequest(direct: request.body, to: agent, caller: caller, policy: policy)
    }

    /// A chat completion, whose model says whom it is for.
    func chat(_ request: GatewayRequest) throws(GatewayRefusal) -> ChatRequest {
        let body = try request.json()
        if let model = body["model"]?.string, let entry = ModelCatalog(policy: policy)[model] {
            try check(entry.agent)
        }
        return try ChatRequest(body, caller: caller, policy: policy)
    }

    private func check(_ agent: AgentPolicy) throws(GatewayRefusal) {
        guard agents.contains(agent.name) else {
            throw GatewayRefusal(.agentNotAllowed, "\(name) may not call \(agent.name).")
        }
        guard !user.mayCall(agent.name) else { return }
        throw GatewayRefusal(
            .agentNotAllowed,
            user.tier.agents.contains(agent.name)
                ? "The user's preferences exclude \(agent.name)."
                : "Tier \(user.tier.name) does not have \(agent.name).")
    }
}
