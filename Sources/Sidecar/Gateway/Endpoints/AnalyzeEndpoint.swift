import WeirCore
import WeirCrypto
import WeirLedger
import WeirPolicy

/// `POST /analyze`: one analysis of a request type, run over the agents.
struct AnalyzeEndpoint: GatewayEndpoint {
    let identity: CallerIdentity
    let workload: WorkloadAdmission
    let dependencies: GatewayDependencies
    let path = "/analyze"
    let methods = ["POST"]

    func respond(
        to request: GatewayRequest, on worker: GatewayWorker
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        let began = worker.clock.nowNanoseconds
        var labels = AnalysisLabels()
        defer {
            dependencies.metrics.analysisEnded(
                type: labels.type, tier: labels.tier, status: labels.status,
                nanoseconds: worker.clock.nowNanoseconds - began)
        }
        do throws(GatewayRefusal) {
            try workload.enter()
            defer { workload.leave() }
            return try await admitted(request, worker, &labels)
        } catch {
            labels.status = error.reason.name
            throw error
        }
    }

    /// Names from the policy, or a dash: what is not known yet when a request is refused.
    private struct AnalysisLabels {
        var type = "-"
        var tier = "-"
        var status = ""
    }

    private func admitted(
        _ request: GatewayRequest, _ worker: GatewayWorker, _ labels: inout AnalysisLabels
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        let snapshot = try dependencies.snapshotInForce()
        try request.checkIsJSON()
        let known = try await identity.identify(
            request, snapshot: snapshot, now: worker.clock.now)
        let caller = known.caller
        labels.tier = caller.tier.name
        let analysis = try AnalyzeRequest.read(
            request.body, policy: snapshot.policy, tier: caller.tier)
        labels.type = analysis.type.name
        let key = try IdempotentRequests.key(
            of: request, user: caller.user, timeoutMilliseconds: analysis.timeoutMilliseconds)
        guard let key else {
            let ended = try await perform(analysis, request, worker, snapshot, known)
            labels.status = ended.outcome
            return ended.answer
        }
        let once = IdempotentRequests(tell: dependencies.idempotency)
        if let stored = try await once.claim(key) {
            labels.status = "replayed"
            return stored
        }
        let ended = try await once.run(key, on: worker) {
            do throws(GatewayRefusal) {
                return .success(try await perform(analysis, request, worker, snapshot, known))
            } catch {
                return .failure(error)
            }
        }
        labels.status = ended.outcome
        return ended.answer
    }

    /// From the user's place in the queue to the answer: what costs something.
    private func perform(
        _ analysis: AnalyzeRequest, _ request: GatewayRequest, _ worker: GatewayWorker,
        _ snapshot: GatewaySnapshot, _ known: CallerIdentity.Known
    ) async throws(GatewayRefusal) -> EndedAnalysis {
        let caller = known.caller
        let place = try await workload.enter(caller, of: snapshot.policy, worker.clock)
        defer { place.leave() }
        let ledger = dependencies.ledger(known.binding, snapshot, worker.clock)
        ledger.observed.note(place.observed)
        defer {
            dependencies.metrics.observed(ledger.observed.reasons, tier: caller.tier.name)
        }
        try await ledger.takeRequest(now: worker.clock.now)
        let report = await AnalysisRun(
            context: makeContext(request, worker, snapshot, caller, analysis, ledger)
        ).run()
        let answer = AnalysisAnswer(
            request: analysis, requestID: request.id, report: report, balance: ledger.balance,
            policyNumber: snapshot.version.number, now: worker.clock.now,
            observed: ledger.observed.reasons)
        dependencies.metrics.stepsEnded(report.steps)
        return EndedAnalysis(answer: answer.answer(), outcome: answer.outcome)
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
            picker: dependencies.picker, budget: RunBudget(limit: analysis.maxCost))
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

/// A request that was carried out, well or not.
struct EndedAnalysis: Sendable {
    let answer: GatewayAnswer
    /// What the metrics count it as.
    let outcome: String
}

extension GatewayRefusal {
    /// A refusal of the ledger as the caller sees it: which account, and when there is more.
    init(_ refusal: LedgerRefusal, now: UnixTime) {
        self.init(refusal.reason, refusal.reason.title + ".")
        members["account"] = refusal.account.map { .string($0.description) }
        members["resets_at"] = refusal.resetsAt.map { .string($0.rfc3339) }
        switch refusal.reason.status {
        case 429: retryAfterSeconds = refusal.resetsAt.map { max(1, $0.seconds - now.seconds) }
        case 503: retryAfterSeconds = 1
        default: retryAfterSeconds = nil
        }
    }
}
