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
            budget: RunBudget(limit: caller.preferences.maxCostPerRequest),
            cache: dependencies.cache)
        // Each call has the time of its agent; this bounds them together.
        let (outcome, downgrade) = await ChatRun(
            chat: chat, calls: calls,
            deadlineNanoseconds: worker.clock.nowNanoseconds
                + UInt64(GatewayLimits.timeoutMillisecondsMax) * 1_000_000
        ).run()
        return try ChatAnswer(
            request: chat, outcome: outcome, downgrade: downgrade, ledger: ledger,
            clock: worker.clock, end: end, place: place
        ).answer()
    }
}
