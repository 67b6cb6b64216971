import SidecarCore
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// Everything that the steps of one request share.
package struct RunContext: Sendable {
    let snapshot: GatewaySnapshot
    let caller: Caller
    let request: AnalyzeRequest
    let requestID: Identifier
    let runID: Identifier
    let trace: TraceContext?
    let deadlineNanoseconds: UInt64
    let ledger: any CallerLedger
    let transport: any AgentTransport
    let clock: any GatewayClock
    let picker: EndpointPicker
    let budget: RunBudget
}

/// Runs one step: picks the agents that may serve it, and calls one after the other until one
/// answers. Each call is a child of its own: priced, reserved and delegated by itself, so a
/// fallback meets the budget again.
struct StepRunner: Sendable {
    /// A call that is ready to go.
    private struct Prepared {
        let agent: AgentPolicy
        let adapter: AgentAdapter
        let bound: AttemptBound
        let body: [UInt8]
    }

    let context: RunContext
    let start: PlanProgress.Start

    private var step: RequestTypePolicy.Step { start.step }
    private var tier: TierPolicy { context.caller.tier }

    func run() async -> StepReport {
        let began = context.clock.nowNanoseconds
        var report = StepReport(name: step.name, end: .failed(.noEndpoint))
        let prepared = prepare(&report)
        let order = CandidateOrder(
            prepared.map { ($0.agent.name, $0.bound.worstCase) }, tier: tier,
            spentPercent: context.ledger.balance?.spentPercent)
        report.downgrade = order.downgrade
        let deadline = stepDeadline(from: began)
        for name in order.names {
            guard let candidate = prepared.first(where: { $0.agent.name == name }) else { continue }
            noteFallback(&report, to: name)
            let goesOn = await attempt(candidate, deadline, &report)
            if !goesOn { break }
        }
        if case .failed = report.end { report.end = finalEnd(report) }
        report.latencyMilliseconds = Int64(
            clamping: (context.clock.nowNanoseconds - began) / 1_000_000)
        return report
    }

    /// Bounds a call of each candidate. One whose cost has no bound is an attempt that failed.
    private func prepare(_ report: inout StepReport) -> [Prepared] {
        let policy = context.snapshot.policy
        let names = CandidateOrder.names(
            of: step, tier: tier, policy: policy, chosen: context.request.agents[step.name])
        var prepared: [Prepared] = []
        for agent in names.compactMap({ policy.agents[$0] }) {
            let adapter = AgentAdapter(
                agent: agent, step: step, outputTokensMax: tier.outputTokensMax)
            let worstCase = WorstCase(
                agent: agent, prices: policy.prices, outputTokensMax: tier.outputTokensMax)
            do throws(AgentAdapter.Failure) {
                let body = try adapter.body(inputs: start.inputs)
                do throws(BoundRefusal) {
                    let bound = try worstCase.bound(method: "POST", path: agent.path, body: body)
                    prepared.append(
                        Prepared(
                            agent: agent, adapter: adapter, bound: bound,
                            body: bound.body ?? body))
                } catch {
                    fail(&report, agent, error.reason, error.detail)
                }
            } catch {
                fail(&report, agent, .invalid, error.detail)
            }
        }
        return prepared
    }

    private func fail(
        _ report: inout StepReport, _ agent: AgentPolicy, _ reason: Reason, _ detail: String
    ) {
        report.attempts.append(
            AttemptReport(agent: agent.name, model: agent.defaultModel, outcome: reason))
        report.end = .failed(reason)
        report.problemDetail = detail
    }

    private func stepDeadline(from began: UInt64) -> UInt64 {
        guard let milliseconds = step.timeoutMilliseconds else {
            return context.deadlineNanoseconds
        }
        return min(context.deadlineNanoseconds, began + UInt64(milliseconds) * 1_000_000)
    }

    private func noteFallback(_ report: inout StepReport, to name: String) {
        guard let last = report.attempts.last, last.agent != name, report.fallback == nil else {
            return
        }
        report.fallback = StepReport.Fallback(from: last.agent, reason: last.outcome)
    }

    /// A refusal for money counts only if nothing worse happened: the caller should know that an
    /// agent failed, because trying again may help.
    private func finalEnd(_ report: StepReport) -> PlanProgress.End {
        let reasons = report.attempts.map(\.outcome)
        let money: Set<Reason> = [.budgetExhausted, .budgetContended]
        let worst = reasons.last { !money.contains($0) } ?? reasons.last
        return worst.map { .failed($0) } ?? report.end
    }

    // MARK: One agent

    /// `true`: another agent may be tried.
    private func attempt(
        _ candidate: Prepared, _ deadline: UInt64, _ report: inout StepReport
    ) async -> Bool {
        var tried: [Incarnation] = []
        while true {
            guard report.attempts.count < GatewayLimits.attemptsPerStepMax else { return false }
            guard !Task.isCancelled else {
                report.end = .cancelled
                return false
            }
            guard context.clock.nowNanoseconds < deadline else {
                fail(&report, candidate.agent, .deadline, "The step's time is over.")
                return false
            }
            guard let picked = pick(candidate, tried) else {
                if !tried.isEmpty { break }
                fail(
                    &report, candidate.agent, .noEndpoint,
                    "No sidecar of \(candidate.agent.name) is known.")
                return true
            }
            let end = await call(candidate, picked.endpoint, deadline, &report)
            context.picker.ended(
                picked, end?.outcome ?? .unknown, nowNanoseconds: context.clock.nowNanoseconds)
            guard let end, end.mayRetry(candidate.agent), case .failed = report.end else { break }
            tried.append(picked.endpoint.incarnation)
        }
        switch report.end {
        case .ok, .cancelled, .skipped: return false
        case .failed: return true
        }
    }

    private func pick(_ candidate: Prepared, _ tried: [Incarnation]) -> EndpointPicker.Picked? {
        context.picker.pick(
            candidate.agent, in: context.snapshot, for: context.caller.user, tried: tried,
            nowNanoseconds: context.clock.nowNanoseconds)
    }

    /// `nil`: money did not allow the call.
    private func call(
        _ candidate: Prepared, _ endpoint: AgentEndpoint, _ deadline: UInt64,
        _ report: inout StepReport
    ) async -> CallEnd? {
        let worstCase = candidate.bound.worstCase
        guard context.budget.take(worstCase) else {
            fail(
                &report, candidate.agent, .budgetExhausted,
                "The call may cost \(worstCase.usd), which is more than max_cost_usd leaves.")
            return nil
        }
        let key: ChildKey
        do throws(LedgerRefusal) {
            // What is fixed in a price is due once bytes went upstream.
            let price = candidate.bound.price
            let least = price.isPerToken ? price.perRequest : worstCase
            key = try await context.ledger.delegate(
                worstCase, least: least, to: endpoint.incarnation)
        } catch {
            context.budget.settle(worstCase, cost: .zero)
            fail(
                &report, candidate.agent, error.reason,
                "The call may cost \(worstCase.usd).")
            report.ledgerRefusal = error
            return nil
        }
        let outcome = await exchange(candidate, endpoint, key, deadline)
        context.budget.settle(worstCase, cost: outcome.attempt.cost)
        report.attempts.append(outcome.attempt)
        report.end = outcome.end
        report.problemDetail = outcome.detail
        return outcome.call
    }

    private struct Outcome {
        var attempt: AttemptReport
        var end: PlanProgress.End
        var detail: String?
        var call: CallEnd
    }

    private func exchange(
        _ candidate: Prepared, _ endpoint: AgentEndpoint, _ key: ChildKey, _ deadline: UInt64
    ) async -> Outcome {
        let bound = candidate.bound
        var attempt = AttemptReport(
            agent: candidate.agent.name, model: bound.model, outcome: .admitted,
            cost: bound.worstCase, source: .ceiling)
        attempt.version = endpoint.version
        let call = makeCall(candidate, endpoint, key, deadline)
        do throws(AgentCallError) {
            let answer = try await context.transport.send(call, to: endpoint)
            let settlement = SettlementReader(key: key, endpoint: endpoint).read(answer.settlement)
            if let settlement, settlement.isFinal {
                context.ledger.childFinal(key, consumed: settlement.consumed)
                attempt.cost = settlement.consumed
                attempt.source = settlement.source
                attempt.model = settlement.model.isEmpty ? attempt.model : settlement.model
            } else {
                context.ledger.childLost(key)
            }
            return judge(answer, settlement, candidate, attempt)
        } catch {
            attempt.outcome = error.reason
            if error.wasSent {
                context.ledger.childLost(key)
            } else {
                // The delegation never left this process.
                context.ledger.childFinal(key, consumed: .zero)
                attempt.cost = .zero
                attempt.source = .none
            }
            let end: PlanProgress.End =
                error.reason == .cancelled ? .cancelled : .failed(error.reason)
            return Outcome(
                attempt: attempt, end: end, detail: "\(candidate.agent.name) did not answer.",
                call: CallEnd(error))
        }
    }

    private func judge(
        _ answer: AgentAnswer, _ settlement: Settlement?, _ candidate: Prepared,
        _ attempt: AttemptReport
    ) -> Outcome {
        var attempt = attempt
        let call = CallEnd(status: answer.status, settlement)
        if let settlement, settlement.reason != .admitted {
            attempt.outcome = settlement.reason
            return Outcome(
                attempt: attempt, end: .failed(settlement.reason),
                detail: "The sidecar of \(candidate.agent.name): \(settlement.reason.title).",
                call: call)
        }
        guard (200..<300).contains(answer.status) else {
            attempt.outcome = .upstreamError
            return Outcome(
                attempt: attempt, end: .failed(.upstreamError),
                detail: "\(candidate.agent.name) answered with status \(answer.status).",
                call: call)
        }
        do throws(AgentAdapter.Failure) {
            return Outcome(
                attempt: attempt, end: .ok(try candidate.adapter.result(of: answer.body)), call: call)
        } catch {
            attempt.outcome = .upstreamProtocol
            return Outcome(
                attempt: attempt, end: .failed(.upstreamProtocol), detail: error.detail, call: call)
        }
    }

    private func makeCall(
        _ candidate: Prepared, _ endpoint: AgentEndpoint, _ key: ChildKey, _ deadline: UInt64
    ) -> AgentCall {
        let agent = candidate.agent
        let now = context.clock.nowNanoseconds
        let allowed = now + UInt64(clamping: agent.timeouts.totalMilliseconds) * 1_000_000
        let until = min(deadline, allowed)
        let delegation = Delegation(
            keyID: endpoint.hopKeyID, issuer: key.issuer,
            audience: endpoint.incarnation, key: key, amount: candidate.bound.worstCase,
            run: context.runID, request: context.requestID, subject: context.caller.user,
            tenant: context.caller.tenant ?? "", tier: tier.name,
            requestType: context.request.type.name, agent: agent.name, method: "POST",
            path: agent.path,
            remainingMilliseconds: UInt32(clamping: (until - min(until, now)) / 1_000_000))
        let span = TraceContext(parent: context.trace, random: Crypto.randomBytes(24))
        return AgentCall(
            agent: agent.name, method: "POST", path: agent.path,
            headers: [
                .init(name: "content-type", value: "application/json"),
                .init(name: "accept", value: "application/json"),
                .init(name: TraceContext.headerName, value: span.header),
                .init(
                    name: Delegation.headerName,
                    value: Sealed.seal(delegation.payload, key: endpoint.hopKey)),
            ], body: candidate.body, deadlineNanoseconds: until)
    }
}

/// Reads the way back: a settlement counts if the sidecar that was called sealed it for this child.
struct SettlementReader {
    let key: ChildKey
    let endpoint: AgentEndpoint

    func read(_ text: String?) -> Settlement? {
        guard let text, let payload = Sealed.open(text, key: endpoint.hopKey),
            let settlement = Settlement(payload: payload), settlement.key == key
        else { return nil }
        return settlement
    }
}
