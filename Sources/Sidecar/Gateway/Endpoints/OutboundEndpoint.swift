import SidecarCore
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// Calls of agents, brought by their sidecars (decision 9): one call of another agent for the user
/// whose request the caller works on, in the same run, for no more than the caller may still spend.
/// It counts as no request of the user and takes no place of this gateway: the request that it
/// belongs to has both, and an analysis that waited for its own calls' places could wait for ever.
struct OutboundEndpoint: GatewayEndpoint {
    let path: String
    let methods = ["POST"]
    private let dependencies: GatewayDependencies
    private let calls: OutboundCalls

    init(path: String, _ dependencies: GatewayDependencies, _ calls: OutboundCalls) {
        self.path = path
        self.dependencies = dependencies
        self.calls = calls
    }

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

    private static let costField = "weir-cost-usd"

    private func run(
        _ request: GatewayRequest, _ worker: GatewayWorker
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        guard let snapshot = dependencies.snapshot() else {
            throw GatewayRefusal(
                .controlPlaneLost, "This gateway has no policy yet.", retryAfterSeconds: 1)
        }
        let call = try calls.open(request.field("authorization"), snapshot)
        let agent = try target(request, call, snapshot.policy)
        let (caller, binding) = try await caller(of: call, snapshot)
        guard caller.tier.agents.contains(agent.name) else {
            throw GatewayRefusal(
                .agentNotAllowed, "The tier \(caller.tier.name) does not have \(agent.name).")
        }
        let prepared = try prepare(request, agent, caller, snapshot.policy)
        let ledger = dependencies.ledger(binding, snapshot, worker.clock)
        let agentCaller = AgentCaller(
            snapshot: snapshot, caller: caller,
            requestID: Identifier(request.id.dropFirst(4)) ?? .random(at: worker.clock.now),
            runID: call.run, requestType: call.requestType,
            trace: request.field("traceparent").flatMap(TraceContext.init(_:)), ledger: ledger,
            transport: worker.transport, clock: worker.clock,
            budget: RunBudget(limit: call.amount), depth: call.depth)
        let until =
            worker.clock.nowNanoseconds + UInt64(call.remainingMilliseconds) * 1_000_000
        return try await answer(agentCaller, prepared, until)
    }

    /// Whom the call is for: the path says it, or the model of a chat completion.
    private func target(
        _ request: GatewayRequest, _ call: OutboundCall, _ policy: Policy
    ) throws(GatewayRefusal) -> AgentPolicy {
        let name: String
        if let agent = request.parameters["agent"] {
            name = agent
        } else {
            guard let model = try request.json()["model"]?.string else {
                throw GatewayRefusal(.invalid, "The body names no model.")
            }
            name = model
        }
        guard let agent = policy.resolve(name)?.agent else {
            throw GatewayRefusal(.unknownAgent, "There is no agent or model \(name).")
        }
        guard policy.agents[call.agent]?.outbound?.agents.contains(agent.name) ?? false else {
            throw GatewayRefusal(
                .agentNotAllowed, "\(call.agent) may not call \(agent.name).")
        }
        return agent
    }

    private func caller(
        of call: OutboundCall, _ snapshot: GatewaySnapshot
    ) async throws(GatewayRefusal) -> (Caller, SubjectBinding) {
        let claims = SubjectRequest.Claims(
            subject: call.subject, tier: call.tier,
            tenant: call.tenant.isEmpty ? nil : call.tenant, roles: [])
        switch await dependencies.bind(SubjectRequest(claims: claims, apiKeyHash: nil)) {
        case .bound(let binding):
            guard let tier = snapshot.policy.tiers[binding.tier] else {
                throw GatewayRefusal(.forbidden, "The policy has no tier \(binding.tier).")
            }
            let caller = Caller(
                user: binding.user, tenant: binding.tenant, tier: tier, roles: [])
            return (caller, binding)
        case .refused(let reason, let detail): throw GatewayRefusal(reason, detail)
        case .unavailable:
            throw GatewayRefusal(
                .controlPlaneLost, "The user's account cannot be looked up now.",
                retryAfterSeconds: 1)
        }
    }

    private func prepare(
        _ request: GatewayRequest, _ agent: AgentPolicy, _ caller: Caller, _ policy: Policy
    ) throws(GatewayRefusal) -> AgentCaller.Prepared {
        let worstCase = WorstCase(
            agent: agent, prices: policy.prices, outputTokensMax: caller.tier.outputTokensMax)
        do throws(BoundRefusal) {
            let bound = try worstCase.bound(method: "POST", path: agent.path, body: request.body)
            return AgentCaller.Prepared(
                agent: agent, bound: bound, body: bound.body ?? request.body)
        } catch {
            throw GatewayRefusal(error.reason, error.detail)
        }
    }

    // MARK: The answer

    private func answer(
        _ calls: AgentCaller, _ prepared: AgentCaller.Prepared, _ until: UInt64
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        let endpoints = (calls.snapshot.endpoints[prepared.agent.name] ?? []).shuffled()
        var last: AgentCaller.Failure?
        for endpoint in endpoints.prefix(GatewayLimits.endpointsPerAgentMax) {
            do throws(AgentCaller.Failure) {
                let call = try await calls.open(prepared, at: endpoint, until: until)
                return try await whole(call, calls.ledger)
            } catch {
                last = error
                guard error.isUnreachable else { break }
            }
        }
        guard let last else {
            throw GatewayRefusal(
                .noEndpoint, "No sidecar of \(prepared.agent.name) is known.",
                retryAfterSeconds: 1)
        }
        var refusal = GatewayRefusal(last.attempt.outcome.ofFailedStep, last.detail)
        refusal.fields = fields(last.attempt, calls.ledger)
        throw refusal
    }

    private func whole(
        _ call: OpenAgentCall, _ ledger: any CallerLedger
    ) async throws(AgentCaller.Failure) -> GatewayAnswer {
        let body: [UInt8]
        do throws(AgentCallError) {
            body = try await call.body(bytesMax: GatewayLimits.agentAnswerBytesMax)
        } catch {
            throw AgentCaller.failure(call, error)
        }
        let attempt = call.end()
        if let failure = AgentCaller.failure(call.answer.status, attempt) { throw failure }
        let type = call.answer.field("content-type") ?? "application/json"
        let decision = GatewayField(
            "weir-decision", attempt.observed?.observedDecision ?? Reason.admitted.name)
        return GatewayAnswer(
            status: call.answer.status,
            fields: [GatewayField("content-type", type), decision] + fields(attempt, ledger),
            body: .bytes(body))
    }

    private func fields(_ attempt: AttemptReport, _ ledger: any CallerLedger) -> [GatewayField] {
        var fields = [
            GatewayField(Self.costField, attempt.cost.usd),
            GatewayField("weir-agent", attempt.agent), GatewayField("weir-model", attempt.model),
        ]
        if let remaining = ledger.balance?.remaining {
            fields.append(GatewayField("weir-budget-remaining-usd", remaining.usd))
        }
        return fields
    }
}
