import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// The way of a request to the agent behind this sidecar (DESIGN §6), one for each worker:
///
///     identity → accepted by the ledger → rate · concurrency · breaker → bounded → paid for
///     → upstream, metered as it streams → settled, recorded, answered with its settlement
///
/// A delegation is accepted as soon as it is known to be genuine, before the stages: then it cannot
/// be used twice, whatever becomes of the request, and every outcome has its record. All of it
/// happens on the worker's loop; only the stages and the ledger are shared, behind short mutexes.
package final class AdmissionInterceptor: Interceptor, @unchecked Sendable {
    // SAFETY: everything but `wake` is called on the worker's loop, and `wake` only hands over to
    // it.

    let worker: Worker
    let runtime: AgentRuntime
    let ledger: AttemptLedger
    let series: AgentSeries
    let outbound: OutboundRuns?
    private(set) var snapshot: AdmissionSnapshot
    private let target: UpstreamTarget
    private var queued: [UInt64: Exchange] = [:]
    private var freeContexts: ContiguousArray<AttemptContext> = []
    private static let freeContextsMax = 256

    package init(
        worker: Worker, target: UpstreamTarget, snapshot: AdmissionSnapshot,
        runtime: AgentRuntime, ledger: AttemptLedger, metrics: SidecarMetrics,
        outbound: OutboundRuns? = nil
    ) {
        self.worker = worker
        self.target = target
        self.snapshot = snapshot
        self.runtime = runtime
        self.ledger = ledger
        self.outbound = outbound
        series = AgentSeries(
            metrics, shard: metrics.registry.shard(), agent: snapshot.agent.name)
        super.init()
    }

    /// A new policy, on the loop. Requests in flight keep theirs. The shared stages are changed
    /// once for the process, by `AgentRuntime.change`.
    package func apply(_ snapshot: AdmissionSnapshot, timeouts: Timeouts? = nil) {
        worker.loop.preconditionInLoop()
        self.snapshot = snapshot
        if let timeouts { target.timeouts = timeouts }
    }

    /// New addresses of the agent, on the loop.
    package func update(endpoints: [SocketAddress]) {
        worker.loop.preconditionInLoop()
        target.update(addresses: endpoints)
    }

    // MARK: The request

    override package func requestBegan(_ exchange: Exchange) -> Verdict {
        if let verifier = snapshot.verifier, SidecarIdentity.isAsked(exchange.requestHead) {
            return .local(SidecarIdentity.handler(verifier.incarnation))
        }
        let context = freeContexts.popLast() ?? AttemptContext()
        context.begin(snapshot, at: worker.wallClock())
        exchange.context = context
        // What the mesh says about a request is for this hop; the agent has no use for it.
        exchange.removeRequestField(.weir)
        if let refusal = identify(exchange, context) { return .refuse(refusal) }
        let tier = snapshot.tier(context.tierName)
        context.begin(tier)
        if exchange.isGRPC, target.wire == .http1 {
            let detail = "The agent is reached by HTTP/1.1; gRPC needs HTTP/2 (--upstream h2c://…)."
            return .refuse(RefusalShape.refusal(.notImplemented, detail, for: snapshot.agent))
        }
        // Whom a tier may call is a matter of access, which observing does not waive.
        guard tier.allowsAgent else {
            return .refuse(
                RefusalShape.refusal(
                    .agentNotAllowed, "The tier \(tier.name) does not have this agent.",
                    for: snapshot.agent))
        }
        let now = worker.loop.nowNanoseconds
        switch runtime.arrive(&context.caller, self, nowNanoseconds: now) {
        case .admitted(let permit):
            context.permit = permit
            return proceed(exchange, context)
        case .refused(let refusal):
            return .refuse(RefusalShape.refusal(refusal, for: snapshot.agent))
        case .queued(let deadline, _):
            context.isQueued = true
            queued[context.caller.ticket] = exchange
            worker.loop.schedule(afterNanoseconds: deadline - min(deadline, now)) { [runtime] in
                runtime.expire(nowNanoseconds: deadline)
            }
            return .wait
        }
    }

    /// From any thread: the place in the queue is decided.
    func wake(
        _ ticket: UInt64, _ caller: AgentAdmission.Caller, _ decision: AgentAdmission.Decision
    ) {
        worker.loop.execute { [self] in decided(ticket, caller, decision) }
    }

    private func decided(
        _ ticket: UInt64, _ caller: AgentAdmission.Caller, _ decision: AgentAdmission.Decision
    ) {
        let exchange = queued.removeValue(forKey: ticket)
        let context = exchange.flatMap(Self.context)
        context?.isQueued = false
        switch decision {
        case .admitted(let permit):
            guard let exchange, let context else {
                // The caller left while the word was on its way.
                return runtime.finish(
                    caller, permit, .unknown, nowNanoseconds: worker.loop.nowNanoseconds)
            }
            context.permit = permit
            exchange.resume(with: proceed(exchange, context))
        case .refused(let refusal):
            exchange?.resume(
                with: .refuse(RefusalShape.refusal(refusal, for: snapshot.agent)))
        case .queued: preconditionFailure("a queue sends nobody to the queue")
        }
    }

    /// Checks the delegation and has it accepted; without delegations, everybody is the local
    /// caller.
    private func identify(_ exchange: Exchange, _ context: AttemptContext) -> Refusal? {
        setDeadline(exchange, context, callersMilliseconds: nil)
        guard let verifier = snapshot.verifier else { return nil }
        let agent = snapshot.agent
        guard let header = exchange.requestHead.string(named: "weir-delegation") else {
            return RefusalShape.refusal(
                .unauthenticated, "Only gateways of the mesh may call this agent.", for: agent)
        }
        do {
            let delegation = try verifier.open(header)
            return accept(delegation, verifier, exchange, context)
        } catch {
            return RefusalShape.refusal(error.reason, error.detail, for: agent)
        }
    }

    /// Accepted first, refused then: a genuine delegation that does not cover this request cannot
    /// pay for another one any more, so its end settles it at nothing and its parent gets the money
    /// back at once.
    private func accept(
        _ delegation: Delegation, _ verifier: DelegationVerifier, _ exchange: Exchange,
        _ context: AttemptContext
    ) -> Refusal? {
        let agent = snapshot.agent
        switch ledger.accept(delegation) {
        case .opened(let attempt):
            context.attempt = attempt
            context.delegation = delegation
            exchange.adopt(requestID: delegation.request)
        case .repeated:
            return RefusalShape.refusal(
                .forbidden, "The delegation was used before.", for: agent)
        case .journalFull, .contended, .exhausted:
            return RefusalShape.refusal(
                StageRefusal(
                    .overloaded, "The log of this sidecar takes no more.", 1_000_000_000),
                for: agent)
        }
        exchange.trustsPeer = true
        exchange.declaresTrailers = true
        let head = exchange.requestHead
        if let misfit = verifier.misfit(
            delegation, method: head.text(head.methodRange), target: head.text(head.target))
        {
            return RefusalShape.refusal(misfit.reason, misfit.detail, for: agent)
        }
        setDeadline(
            exchange, context, callersMilliseconds: Int64(delegation.remainingMilliseconds))
        return nil
    }

    /// The shortest of the agent's, the delegation's and that of a call of gRPC.
    private func setDeadline(
        _ exchange: Exchange, _ context: AttemptContext, callersMilliseconds: Int64?
    ) {
        let agents = snapshot.totalNanoseconds
        let delegated = callersMilliseconds.map { UInt64(clamping: $0) &* 1_000_000 } ?? .max
        let said = exchange.isGRPC ? GRPC.timeoutNanoseconds(exchange.requestHead) : nil
        let callers = min(delegated, said ?? .max)
        context.hasCallersDeadline = callers < agents
        exchange.setDeadline(afterNanoseconds: min(callers, agents))
    }

    // MARK: The cost

    private func proceed(_ exchange: Exchange, _ context: AttemptContext) -> Verdict {
        switch context.snapshot.fixedTerms {
        case .success(let terms): return pay(exchange, context, terms)
        case .failure(let refusal):
            return .refuse(RefusalShape.refusal(refusal, for: context.snapshot.agent))
        case nil: break
        }
        if let coding = exchange.requestHead.string(of: .contentEncoding), coding != "identity" {
            return .refuse(
                RefusalShape.refusal(
                    .mediaType, "A body that is bounded must not be encoded (\(coding)).",
                    for: context.snapshot.agent))
        }
        return .holdBody(bytesMax: context.snapshot.agent.requestBodyBytesMax)
    }

    override package func requestBodyHeld(
        _ exchange: Exchange, _ body: UnsafeRawBufferPointer
    ) -> Verdict {
        guard let context = Self.context(exchange) else {
            return .refuse(Refusal(.overloaded))
        }
        // What the caller sent, whatever is sent in its place.
        context.requestPassed(body)
        return bound(exchange, context, body: Array(body))
    }

    override package func requestBytes(_ exchange: Exchange, _ bytes: UnsafeRawBufferPointer) {
        Self.context(exchange)?.requestPassed(bytes)
    }

    /// What this body may cost, and the body that goes upstream.
    private func bound(
        _ exchange: Exchange, _ context: AttemptContext, body: [UInt8]
    ) -> Verdict {
        let snapshot = context.snapshot
        let head = exchange.requestHead
        do {
            let method = head.text(head.methodRange)
            let path = String(decoding: head.path, as: UTF8.self)
            let bounder = context.tier.bounder
            var bound = try bounder.bound(method: method, path: path, body: body)
            if let reserved = context.attempt?.reserved, bound.worstCase > reserved {
                bound =
                    try bounder.bound(
                        method: method, path: path, body: body, bound: bound, within: reserved)
                    ?? bound
            }
            if let replacement = bound.body,
                !replacement.withUnsafeBytes({ exchange.replaceHeldBody($0) })
            {
                return .refuse(
                    RefusalShape.refusal(
                        .overloaded, "No memory is left for the body.", for: snapshot.agent))
            }
            let isObserved = context.caller.isObserved || snapshot.agent.observe
            if !isObserved, let refusal = runtime.shutRefusal(bound) {
                return .refuse(RefusalShape.refusal(refusal, for: snapshot.agent))
            }
            return pay(exchange, context, snapshot.terms(bound))
        } catch {
            return .refuse(RefusalShape.refusal(error, for: snapshot.agent))
        }
    }

    private func pay(
        _ exchange: Exchange, _ context: AttemptContext, _ terms: AttemptTerms
    ) -> Verdict {
        context.terms = terms
        if exchange.asksUpgrade, terms.bound.price.isPerToken, !terms.bound.isPolicyCeiling {
            return .refuse(
                RefusalShape.refusal(
                    .unmeteredPath, "Tokens in a tunnel cannot be counted.",
                    for: context.snapshot.agent))
        }
        if let refusal = reserve(terms, context) { return .refuse(refusal) }
        prepareUpstream(exchange, context, terms)
        exchange.upstreamAddress = context.permit?.endpoint?.key
        return .admit(target)
    }

    private func reserve(_ terms: AttemptTerms, _ context: AttemptContext) -> Refusal? {
        if let reserved = context.attempt?.reserved {
            guard terms.bound.worstCase > reserved else { return nil }
            let detail =
                "The request may cost \(terms.bound.worstCase.usd) USD, and the delegation covers "
                + "\(reserved.usd) USD."
            return RefusalShape.refusal(
                .budgetExhausted, detail, for: context.snapshot.agent)
        }
        let opening = ledger.open(worstCase: terms.bound.worstCase, least: terms.least)
        if case .opened(let attempt) = opening {
            context.attempt = attempt
            return nil
        }
        return refusal(opening, for: context.snapshot.agent)
    }

    private func refusal(
        _ opening: AttemptLedger.Opening, for agent: AgentPolicy
    ) -> Refusal? {
        switch opening {
        case .opened: return nil
        case .exhausted(let account, let resetsAt):
            var refusal = Refusal(.budgetExhausted, detail: "The budget \(account) is spent.")
            refusal.members.append(("account", .string(account.description)))
            if let resetsAt { refusal.members.append(("resets_at", .string(resetsAt.rfc3339))) }
            return RefusalShape.shaped(refusal, for: agent)
        case .contended(let wait):
            return RefusalShape.refusal(
                StageRefusal(
                    .budgetContended, "Requests in flight hold the rest of the budget.", wait),
                for: agent)
        case .repeated, .journalFull:
            return RefusalShape.refusal(
                StageRefusal(
                    .overloaded, "The log of this sidecar takes no more.", 1_000_000_000),
                for: agent)
        }
    }

    private func prepareUpstream(
        _ exchange: Exchange, _ context: AttemptContext, _ terms: AttemptTerms
    ) {
        exchange.announceDeadline()
        let isAnthropic = context.snapshot.agent.wireProtocol == .anthropic
        if let credential = context.snapshot.credential {
            exchange.removeRequestField(.authorization)
            if isAnthropic { exchange.removeRequestField(.xAPIKey) }
            exchange.addedRequestFields.add(credential)
        }
        if isAnthropic, exchange.requestHead.string(named: "anthropic-version") == nil {
            // The provider refuses requests without it.
            exchange.addedRequestFields.add("anthropic-version", "2023-06-01" as StaticString)
        }
        if terms.countsTokens {
            // Usage must be readable.
            exchange.removeRequestField(.acceptEncoding)
            exchange.addedRequestFields.add("accept-encoding", "identity" as StaticString)
        }
        allowCalls(exchange, context)
    }

    /// Gives the agent what it needs for calls of its own, where its gateway set money aside.
    private func allowCalls(_ exchange: Exchange, _ context: AttemptContext) {
        guard let outbound, let delegation = context.delegation, delegation.outbound > .zero,
            let policy = context.snapshot.agent.outbound
        else { return }
        let until =
            worker.loop.nowNanoseconds &+ UInt64(delegation.remainingMilliseconds) * 1_000_000
        let amount = min(delegation.outbound, policy.maxCostPerRequest)
        guard let run = outbound.begin(delegation, amount: amount, untilNanoseconds: until) else {
            return
        }
        context.outboundRun = run.number
        exchange.addedRequestFields.add(RunCapability.headerName, run.field)
    }

    override package func upstreamUnreachable(_ exchange: Exchange) -> Bool {
        guard let context = Self.context(exchange), var permit = context.permit,
            let failed = permit.endpoint?.key
        else { return false }
        context.tried.append(failed)
        let next = runtime.retry(
            &permit, tried: context.tried, nowNanoseconds: worker.loop.nowNanoseconds)
        guard let next else { return false }
        series.retried()
        context.permit = permit
        exchange.upstreamAddress = next
        return true
    }

    // MARK: The way back (AdmissionInterceptor+Response)

    override package func responseBegan(_ exchange: Exchange, status: Int) {
        answerBegan(exchange, status: status)
    }

    override package func responseBytes(_ exchange: Exchange, _ bytes: UnsafeRawBufferPointer) {
        guard let context = Self.context(exchange) else { return }
        if exchange.filtersResponse {
            guard passFiltered(bytes, exchange, context) else { return }
        } else {
            context.responsePassed(bytes)
        }
        if context.meter.eventCount > context.eventsMax { cutAtTheEdge(exchange, context) }
    }

    override package func responseEnding(_ exchange: Exchange) {
        guard let context = Self.context(exchange) else { return }
        endFiltered(exchange, context)
    }

    override package func clientDisconnected(_ exchange: Exchange) -> DisconnectDecision {
        guard let context = Self.context(exchange) else { return .cancel }
        return context.snapshot.agent.whenCallerLeaves == .drain ? .drain : .cancel
    }

    override package func exchangeEnded(_ exchange: Exchange, _ outcome: ExchangeOutcome) {
        attemptEnded(exchange, outcome)
    }

    // MARK: Contexts

    /// Without a dynamic cast, which would cost more than reading the bytes of a small chunk.
    static func context(_ exchange: Exchange) -> AttemptContext? {
        // Exchanges of this interceptor have contexts of this interceptor; debug builds check it.
        exchange.context.map { unsafeDowncast($0, to: AttemptContext.self) }
    }

    func putBack(_ context: AttemptContext) {
        context.clear()
        if freeContexts.count < Self.freeContextsMax { freeContexts.append(context) }
    }

    func forget(_ ticket: UInt64) { queued[ticket] = nil }
}
