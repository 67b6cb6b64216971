import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// `POST /analyze`: one analysis of a request type, run over the agents.
struct AnalyzeEndpoint: GatewayEndpoint {
    let identity: CallerIdentity
    let workload: WorkloadAdmission
    let dependencies: GatewayDependencies
    let latencies = AgentLatencies()
    let path = "/analyze"
    let methods = ["POST"]

    func respond(
        to request: GatewayRequest, on worker: GatewayWorker
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        let end = RequestEnd(dependencies.metrics, worker.clock)
        return try await workload.answer(end) { () async throws(GatewayRefusal) in
            try await admitted(request, worker, end)
        }
    }

    private func admitted(
        _ request: GatewayRequest, _ worker: GatewayWorker, _ end: RequestEnd
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        let snapshot = try dependencies.snapshotInForce()
        try request.checkIsJSON()
        let known = try await identity.identify(
            request, snapshot: snapshot, now: worker.clock.now)
        var caller = known.caller
        caller.preferences = caller.preferences.effective(
            tier: caller.tier, policy: snapshot.policy)
        end.belongs(toTier: caller.tier.name)
        let analysis = try AnalyzeRequest.read(
            request.body, policy: snapshot.policy, tier: caller.tier)
        end.isOf(type: analysis.type.name)
        let key = try IdempotentRequests.key(
            of: request, user: caller.user, timeoutMilliseconds: analysis.timeoutMilliseconds)
        let perform = { @Sendable [caller] () async throws(GatewayRefusal) -> GatewayAnswer in
            try await self.perform(
                analysis, request, worker, snapshot, caller, known.binding, end)
        }
        guard let key else { return try await perform() }
        let once = IdempotentRequests(tell: dependencies.idempotency)
        if let stored = try await once.claim(key) {
            end.tell("replayed")
            return stored
        }
        return try await once.run(key, on: worker) {
            do throws(GatewayRefusal) {
                return .success(try await perform())
            } catch {
                return .failure(error)
            }
        }
    }

    /// From the user's place in the queue to the answer: what costs something.
    private func perform(
        _ analysis: AnalyzeRequest, _ request: GatewayRequest, _ worker: GatewayWorker,
        _ snapshot: GatewaySnapshot, _ caller: Caller, _ binding: SubjectBinding,
        _ end: RequestEnd
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        let place = try await workload.enter(caller, of: snapshot.policy, worker.clock)
        let ledger = dependencies.ledger(binding, snapshot, worker.clock)
        ledger.observed.note(place.observed)
        do throws(GatewayRefusal) {
            try await ledger.takeRequest(now: worker.clock.now)
        } catch {
            dependencies.metrics.observed(ledger.observed.reasons, tier: caller.tier.name)
            throw error
        }
        let context = makeContext(request, worker, snapshot, caller, analysis, ledger)
        return await answer(request, AnalysisRun(context: context)) { report in
            end.tell(report.outcome)
            place.leave()
        }
    }

    /// Whole, or step by step where the client wants that.
    private func answer(
        _ request: GatewayRequest, _ run: AnalysisRun,
        ended: @escaping @Sendable (AnalysisReport) -> Void
    ) async -> GatewayAnswer {
        let context = run.context
        let conclude: @Sendable (AnalysisReport) -> GatewayAnswer = { [dependencies] report in
            ended(report)
            let observed = context.ledger.observed.reasons
            dependencies.metrics.observed(observed, tier: context.caller.tier.name)
            dependencies.metrics.stepsEnded(report.steps)
            return AnalysisAnswer(
                request: context.request, requestID: request.id, report: report,
                balance: context.ledger.balance, policyNumber: context.snapshot.version.number,
                now: context.clock.now, observed: observed
            ).answer()
        }
        guard let events = context.events else { return conclude(await run.run()) }
        return AnalysisStream(
            run: run, events: events, clock: context.clock, conclude: conclude
        ).answer()
    }

    private func makeContext(
        _ request: GatewayRequest, _ worker: GatewayWorker, _ snapshot: GatewaySnapshot,
        _ caller: Caller, _ analysis: AnalyzeRequest, _ ledger: any CallerLedger
    ) -> RunContext {
        let now = worker.clock.nowNanoseconds
        let identifier = Identifier(request.id.dropFirst(4)) ?? .random(at: worker.clock.now)
        return RunContext(
            snapshot: snapshot, caller: caller, request: analysis, requestID: identifier,
            // One request of a user is one run; what its agents spend elsewhere is charged to it.
            runID: identifier, trace: request.field("traceparent").flatMap(TraceContext.init(_:)),
            deadlineNanoseconds: now + UInt64(analysis.timeoutMilliseconds) * 1_000_000,
            ledger: ledger, transport: worker.transport, clock: worker.clock,
            picker: dependencies.picker,
            budget: RunBudget(
                limit: [analysis.maxCost, caller.preferences.maxCostPerRequest]
                    .compactMap(\.self).min()),
            latencies: latencies, events: request.acceptsEvents ? RunEvents() : nil,
            cache: dependencies.cache)
    }
}

extension CallerLedger {
    /// Counts a daily request, or refuses as the caller is told.
    func takeRequest(now: UnixTime) async throws(GatewayRefusal) {
        do throws(LedgerRefusal) {
            try await takeRequest()
        } catch {
            throw GatewayRefusal(error, now: now)
        }
    }
}
