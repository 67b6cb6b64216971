import SidecarCore
import WeirCore
import WeirCrypto
import WeirPolicy

/// `POST /v1/chat/completions`: one call of one agent in the form of the OpenAI API, whole or
/// streamed, with the agent's fallbacks behind it.
struct ChatCompletionsEndpoint: GatewayEndpoint {
    /// What metrics and records have in the place of a request type.
    static let requestType = "chat_completions"

    let identity: CallerIdentity
    let workload: WorkloadAdmission
    let dependencies: GatewayDependencies
    let path = "/v1/chat/completions"
    let methods = ["POST"]

    func respond(
        to request: GatewayRequest, on worker: GatewayWorker
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        let end = RequestEnd(dependencies.metrics, worker.clock, type: Self.requestType)
        return try await workload.answer(end) { () async throws(GatewayRefusal) in
            try await admitted(request, worker, end)
        }
    }

    private func admitted(
        _ request: GatewayRequest, _ worker: GatewayWorker, _ end: RequestEnd
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        let snapshot = try dependencies.snapshotInForce()
        let known = try await identity.identify(
            request, snapshot: snapshot, now: worker.clock.now)
        let caller = known.caller
        end.belongs(toTier: caller.tier.name)
        let chat = try ChatRequest(request.json(), caller: caller, policy: snapshot.policy)
        let place = try await workload.enter(caller, of: snapshot.policy, worker.clock)
        let ledger = dependencies.ledger(known.binding, snapshot, worker.clock)
        ledger.observed.note(place.observed)
        defer {
            dependencies.metrics.observed(ledger.observed.reasons, tier: caller.tier.name)
        }
        try await ledger.takeRequest(now: worker.clock.now)
        let identifier = Identifier(request.id.dropFirst(4)) ?? .random(at: worker.clock.now)
        let calls = AgentCaller(
            snapshot: snapshot, caller: caller, requestID: identifier, runID: identifier,
            requestType: Self.requestType,
            trace: request.field("traceparent").flatMap(TraceContext.init(_:)), ledger: ledger,
            transport: worker.transport, clock: worker.clock, picker: dependencies.picker,
            budget: RunBudget(limit: caller.preferences.maxCostPerRequest))
        let (outcome, downgrade) = await run(chat, calls)
        return try ChatAnswer(
            request: chat, outcome: outcome, downgrade: downgrade, ledger: ledger,
            clock: worker.clock, end: end, place: place
        ).answer()
    }

    private func run(
        _ chat: ChatRequest, _ calls: AgentCaller
    ) async -> (AgentFailover.Outcome<ChatReply>, CandidateOrder.Downgrade?) {
        let order = CandidateOrder(
            chat.candidates.map { ($0.agent.name, $0.bound.worstCase) }, tier: calls.caller.tier,
            spentPercent: calls.ledger.balance?.spentPercent)
        // Each call has the time of its agent; this bounds them together.
        let deadline =
            calls.clock.nowNanoseconds + UInt64(GatewayLimits.timeoutMillisecondsMax) * 1_000_000
        let candidates = order.names.compactMap { name in
            chat.candidates.first { $0.agent.name == name }
        }
        let failover = AgentFailover(calls: calls, deadlineNanoseconds: deadline)
        let outcome = await failover.run(candidates) {
            prepared, picked, _ throws(AgentCaller.Failure) in
            try await ChatReply.open(prepared, at: picked, by: calls, until: deadline)
        }
        return (outcome, order.downgrade)
    }
}
