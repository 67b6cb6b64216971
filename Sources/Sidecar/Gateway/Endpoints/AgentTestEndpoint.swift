import SidecarCore
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// `POST /agents/test`, for operators: one real call of an agent with a cheap input, by the same
/// way as every other: reserved, delegated, metered, recorded. The mesh's own account pays, which
/// is a `Budget` of the policy; without one there are no tests.
struct AgentTestEndpoint: GatewayEndpoint {
    private static let requestType = "agent_test"

    let identity: CallerIdentity
    let dependencies: GatewayDependencies
    let path = "/agents/test"
    let methods = ["POST"]

    func respond(
        to request: GatewayRequest, on worker: GatewayWorker
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        guard let snapshot = dependencies.snapshot() else {
            throw GatewayRefusal(
                .controlPlaneLost, "This gateway has no policy yet.", retryAfterSeconds: 1)
        }
        _ = try await identity.identify(request, snapshot: snapshot, now: worker.clock.now)
        let order = try AgentTest(reading: try request.json(), snapshot.policy)
        let payer = try await payer(snapshot, order.agent)
        let none = "No sidecar of \(order.agent.name) is known."
        guard snapshot.endpoints[order.agent.name]?.isEmpty == false else {
            throw GatewayRefusal(.noEndpoint, none)
        }
        let calls = AgentCaller(
            snapshot: snapshot, caller: payer.caller,
            requestID: Identifier(request.id.dropFirst(4)) ?? .random(at: worker.clock.now),
            runID: .random(at: worker.clock.now), requestType: Self.requestType,
            trace: request.field("traceparent").flatMap(TraceContext.init(_:)),
            ledger: dependencies.ledger(payer.binding, snapshot, worker.clock),
            transport: worker.transport, clock: worker.clock, picker: dependencies.picker,
            budget: RunBudget(limit: GatewayLimits.agentTestCostMax))
        let began = worker.clock.nowNanoseconds
        let until = began + GatewayLimits.agentTestNanoseconds
        var body: JSONObject = ["agent": .string(order.agent.name)]
        do throws(AgentCaller.Failure) {
            let prepared = try order.prepared(snapshot, payer.caller.tier)
            guard let picked = calls.pick(order.agent, tried: []) else {
                throw AgentCaller.Failure(
                    order.agent, model: prepared.bound.model, .noEndpoint, none)
            }
            body["endpoint"] = .string(picked.endpoint.address)
            let answer = try await calls.call(prepared, at: picked, until: until)
            write(answer.attempt, "ok", to: &body)
            body["status"] = .number(JSONNumber(answer.status))
            body["answer"] =
                (try? JSON.parse(
                    answer.body, depthMax: GatewayLimits.answerDepthMax,
                    valuesMax: GatewayLimits.answerValuesMax)) ?? .null
        } catch {
            if let refusal = error.ledgerRefusal {
                throw GatewayRefusal(refusal, now: worker.clock.now)
            }
            write(error.attempt, error.attempt.outcome.name, to: &body)
            body["detail"] = .string(error.detail)
        }
        let elapsed = worker.clock.nowNanoseconds - began
        body["latency_ms"] = .number(JSONNumber(elapsed / 1_000_000))
        body["paid_by"] = payer.binding.accounts.first.map {
            .string($0.key(at: worker.clock.now).description)
        }
        return .json(200, .object(body), [GatewayField("cache-control", "no-store")])
    }

    /// The mesh as a caller: of a tier that has the agent, with the mesh's account.
    private func payer(
        _ snapshot: GatewaySnapshot, _ agent: AgentPolicy
    ) async throws(GatewayRefusal) -> CallerIdentity.Known {
        let binding: SubjectBinding
        switch await dependencies.bind(SubjectRequest(claims: nil, apiKeyHash: nil, isMesh: true)) {
        case .bound(let bound): binding = bound
        case .refused(let reason, let detail): throw GatewayRefusal(reason, detail)
        case .unavailable:
            throw GatewayRefusal(
                .controlPlaneLost, "The mesh's account cannot be looked up now.",
                retryAfterSeconds: 1)
        }
        let tiers = snapshot.policy.tiers.values.filter { $0.agents.contains(agent.name) }
        guard let tier = tiers.max(by: { ($0.priority, $1.name) < ($1.priority, $0.name) }) else {
            throw GatewayRefusal(.agentNotAllowed, "No tier has the agent \(agent.name).")
        }
        var paying = binding
        paying.tier = tier.name
        var caller = Caller(
            user: binding.user, tenant: nil, tier: tier, roles: [], preferences: Preferences())
        caller.knownBy = .mesh
        return CallerIdentity.Known(caller: caller, binding: paying)
    }

    private func write(
        _ attempt: AttemptReport, _ outcome: String, to body: inout JSONObject
    ) {
        body["model"] = .string(attempt.model)
        body["outcome"] = .string(outcome)
        body["cost_usd"] = .string(attempt.totalCost.usd)
        if attempt.source != .none { body["cost_source"] = .string(attempt.source.name) }
    }
}

/// What is tested, and with which input. Pure.
struct AgentTest {
    let agent: AgentPolicy
    /// The body of the request to the agent.
    let body: [UInt8]

    init(reading value: JSONValue, _ policy: Policy) throws(GatewayRefusal) {
        var problems: [Problem] = []
        for key in value.object?.keys ?? [] where !["agent", "input"].contains(key) {
            problems.append(
                Problem(path: JSONPointer([key]).description, message: "is no member"))
        }
        let name = value["agent"]?.string
        if name == nil {
            problems.append(Problem(path: "/agent", message: "the name of an agent is needed"))
        }
        if let input = value["input"], input.object == nil {
            problems.append(
                Problem(
                    path: "/input", message: "an object is needed: the body of the agent's request")
            )
        }
        guard problems.isEmpty, let name else {
            throw GatewayRefusal(
                .invalid, "The body has \(problems.count) problems.", problems: problems)
        }
        guard let (agent, model) = policy.resolve(name) else {
            throw GatewayRefusal(.unknownAgent, "There is no agent \(name).")
        }
        self.agent = agent
        body = (value["input"] ?? Self.cheapInput(agent, model: model)).bytes
    }

    /// The least that says whether an agent of this protocol works.
    static func cheapInput(_ agent: AgentPolicy, model: String) -> JSONValue {
        switch agent.wireProtocol {
        case .openai, .anthropic, .passthrough:
            [
                "model": .string(model), "max_tokens": 8,
                "messages": [["role": "user", "content": "Reply with the word ok."]],
            ]
        case .huggingface: ["inputs": "Profits beat expectations."]
        // What such agents take is theirs to say; these are the inputs of the default plans.
        case .json:
            [
                "symbol": "TEST", "horizon_days": 1,
                "history": .array(
                    (1...30).map { day in
                        [
                            "t": .string("2026-01-\(day < 10 ? "0" : "")\(day)"),
                            "close": .number(JSONNumber(100 + day)),
                        ]
                    }),
                "positions": [["symbol": "TEST", "quantity": 1, "price": 100]],
            ]
        }
    }

    func prepared(
        _ snapshot: GatewaySnapshot, _ tier: TierPolicy
    ) throws(AgentCaller.Failure) -> AgentCaller.Prepared {
        let worstCase = WorstCase(
            agent: agent, prices: snapshot.policy.prices, outputTokensMax: tier.outputTokensMax)
        do throws(BoundRefusal) {
            let bound = try worstCase.bound(method: "POST", path: agent.path, body: body)
            return AgentCaller.Prepared(agent: agent, bound: bound, body: bound.body ?? body)
        } catch {
            throw AgentCaller.Failure(
                attempt: AttemptReport(
                    agent: agent.name, model: agent.defaultModel, outcome: error.reason),
                detail: error.detail)
        }
    }
}
