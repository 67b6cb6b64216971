import SidecarCore
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// Calls agents in the name of one request of a user: the one way by which the gateway spends
/// money. Each call is a child of its own, priced by itself: taken from the request's own limit,
/// reserved on the caller's accounts, delegated to one sidecar, and settled with what that sidecar
/// says it cost. Which agents, in which order and whether another one is tried is the matter of
/// whoever calls this.
struct AgentCaller: Sendable {
    /// A request that is ready to go to any sidecar of its agent.
    struct Prepared: Sendable {
        let agent: AgentPolicy
        let bound: AttemptBound
        let body: [UInt8]
        var accept = "application/json"
    }

    /// A call that brought no answer.
    struct Failure: Error, Sendable {
        var attempt: AttemptReport
        var detail: String
        /// The ledger's own words, where money was the reason.
        var ledgerRefusal: LedgerRefusal?
        /// Nothing was done (or the policy says that it may be done twice), and the reason is this
        /// sidecar: another one of the agent may serve.
        var mayTryAnother = false
    }

    let snapshot: GatewaySnapshot
    let caller: Caller
    let requestID: Identifier
    let runID: Identifier
    /// As records name it.
    let requestType: String
    let trace: TraceContext?
    let ledger: any CallerLedger
    let transport: any AgentTransport
    let clock: any GatewayClock
    let picker: EndpointPicker
    let budget: RunBudget
    /// Answers kept from earlier; `nil` where each call is made.
    var cache: ResponseCache?
    /// Agents that called one another until here.
    var depth: UInt8 = 0

    /// Which sidecar to call; `nil` when there is none (left). A pick must be used: `open` and
    /// `call` give it back.
    ///
    /// - Parameter tried: those whose failure said `mayTryAnother`.
    func pick(_ agent: AgentPolicy, tried: [Incarnation]) -> EndpointPicker.Picked? {
        picker.pick(
            agent, in: snapshot, for: caller.user, tried: tried,
            nowNanoseconds: clock.nowNanoseconds)
    }

    /// Reserves, delegates and sends; returns when the head of the answer is there.
    func open(
        _ prepared: Prepared, at picked: EndpointPicker.Picked, until deadline: UInt64
    ) async throws(Failure) -> OpenAgentCall {
        // Given back where this is left without having called anybody.
        let held = HeldPick(picked, picker: picker, clock: clock)
        let endpoint = picked.endpoint
        let worstCase = prepared.bound.worstCase
        var attempt = AttemptReport(
            agent: prepared.agent.name, model: prepared.bound.model, outcome: .admitted)
        attempt.version = endpoint.version
        let countsTokens = caller.tier.tokensPerMinute != nil && !caller.tier.observe
        if countsTokens, prepared.bound.isPolicyCeiling {
            attempt.outcome = .unmeteredPath
            throw Failure(
                attempt: attempt,
                detail: "Nothing bounds the tokens of this request, and the tier "
                    + "\(caller.tier.name) counts them by the minute.")
        }
        guard budget.take(worstCase) else {
            attempt.outcome = .budgetExhausted
            throw Failure(
                attempt: attempt,
                detail:
                    "The call may cost \(worstCase.usd), which is more than max_cost_usd or the "
                    + "caller's own limit for a request leaves.")
        }
        attempt.callsCost =
            prepared.agent.outbound.map { budget.takeUpTo($0.maxCostPerRequest) } ?? .zero
        let paid: PaidCall
        do throws(LedgerRefusal) {
            paid = try await delegate(prepared.bound, to: endpoint)
        } catch {
            budget.settle(worstCase + attempt.callsCost, cost: .zero)
            attempt.callsCost = .zero
            attempt.outcome = error.reason
            throw Failure(
                attempt: attempt, detail: "The call may cost \(worstCase.usd).",
                ledgerRefusal: error)
        }
        attempt.cost = worstCase
        attempt.source = .ceiling
        return try await send(prepared, held, paid, deadline, attempt)
    }

    private func delegate(
        _ bound: AttemptBound, to endpoint: AgentEndpoint
    ) async throws(LedgerRefusal) -> PaidCall {
        // What is fixed in a price is due once bytes went upstream.
        let least = bound.price.isPerToken ? bound.price.perRequest : bound.worstCase
        return try await ledger.delegate(
            CallBound(amount: bound.worstCase, least: least, tokens: bound.tokensMax),
            to: endpoint.incarnation)
    }

    private func send(
        _ prepared: Prepared, _ held: HeldPick, _ paid: PaidCall, _ deadline: UInt64,
        _ attempt: AttemptReport
    ) async throws(Failure) -> OpenAgentCall {
        let endpoint = held.picked.endpoint
        do throws(AgentCallError) {
            let call = makeCall(prepared, endpoint, paid.key, deadline, attempt.callsCost)
            let answer = try await transport.open(call, to: endpoint)
            held.headArrived()
            return OpenAgentCall(
                answer: answer, attempt: attempt, paid: paid, ledger: ledger, budget: budget,
                held: held, settlements: SettlementReader(key: paid.key, endpoint: endpoint))
        } catch {
            let reserved = attempt.totalCost
            var attempt = attempt
            attempt.outcome = error.reason
            if error.wasSent {
                ledger.callLost(paid)
            } else {
                // The delegation never left this process.
                ledger.callFinal(paid, consumed: .zero, tokens: 0)
                attempt.cost = .zero
                attempt.callsCost = .zero
                attempt.source = .none
            }
            budget.settle(reserved, cost: attempt.totalCost)
            let end = CallEnd(error)
            held.ended(end.outcome)
            throw Failure(
                attempt: attempt, detail: "\(prepared.agent.name) did not answer.",
                mayTryAnother: end.mayRetry(prepared.agent))
        }
    }

    private func makeCall(
        _ prepared: Prepared, _ endpoint: AgentEndpoint, _ key: ChildKey, _ deadline: UInt64,
        _ outbound: NanoUSD
    ) -> AgentCall {
        let agent = prepared.agent
        let now = clock.nowNanoseconds
        let allowed = now + UInt64(clamping: agent.timeouts.totalMilliseconds) * 1_000_000
        let until = min(deadline, allowed)
        let delegation = Delegation(
            keyID: endpoint.hopKeyID, issuer: key.issuer,
            audience: endpoint.incarnation, key: key, amount: prepared.bound.worstCase,
            run: runID, request: requestID, subject: caller.user,
            tenant: caller.tenant ?? "", tier: caller.tier.name,
            requestType: requestType, agent: agent.name, method: "POST",
            path: agent.path,
            remainingMilliseconds: UInt32(clamping: (until - min(until, now)) / 1_000_000),
            depth: depth, observed: ledger.observed.first, outbound: outbound,
            knownBy: outbound > .zero ? caller.knownBy : .user, tags: caller.tags)
        let span = TraceContext(parent: trace, random: Crypto.randomBytes(24))
        return AgentCall(
            agent: agent.name, method: "POST", path: agent.path,
            headers: [
                .init(name: "content-type", value: "application/json"),
                .init(name: "accept", value: prepared.accept),
                .init(name: TraceContext.headerName, value: span.header),
                .init(
                    name: Delegation.headerName,
                    value: Sealed.seal(delegation.payload, key: endpoint.hopKey)),
            ], body: prepared.body, deadlineNanoseconds: until)
    }
}

extension AgentCaller {
    /// An answer read to its end.
    struct Answer: Sendable {
        let status: Int
        let body: [UInt8]
        let attempt: AttemptReport
    }

    /// The whole answer of an agent that did what it was asked for. What its sidecar refused and
    /// statuses other than 2xx are failures.
    func call(
        _ prepared: Prepared, at picked: EndpointPicker.Picked, until deadline: UInt64
    ) async throws(Failure) -> Answer {
        try await read(try await open(prepared, at: picked, until: deadline), of: prepared.agent)
    }

    func read(_ call: OpenAgentCall, of agent: AgentPolicy) async throws(Failure) -> Answer {
        let body: [UInt8]
        do throws(AgentCallError) {
            body = try await call.body(bytesMax: GatewayLimits.agentAnswerBytesMax)
        } catch {
            var failure = Self.failure(call, error)
            failure.mayTryAnother = call.mayTryAnother(agent)
            throw failure
        }
        let attempt = call.end()
        if var failure = Self.failure(call.answer.status, attempt) {
            failure.mayTryAnother = call.mayTryAnother(agent)
            throw failure
        }
        return Answer(status: call.answer.status, body: body, attempt: attempt)
    }

    /// A call whose answer broke off.
    static func failure(_ call: OpenAgentCall, _ error: AgentCallError) -> Failure {
        var attempt = call.end()
        attempt.outcome = error.reason
        return Failure(attempt: attempt, detail: "\(attempt.agent) did not answer.")
    }

    /// `nil` for a call that succeeded.
    static func failure(_ status: Int, _ attempt: AttemptReport) -> Failure? {
        var attempt = attempt
        if attempt.outcome != .admitted {
            let title = attempt.outcome.title
            return Failure(
                attempt: attempt, detail: "The sidecar of \(attempt.agent): \(title).")
        }
        if (200..<300).contains(status) { return nil }
        attempt.outcome = .upstreamError
        return Failure(
            attempt: attempt, detail: "\(attempt.agent) answered with status \(status).")
    }
}
