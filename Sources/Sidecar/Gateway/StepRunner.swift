import SidecarCore
import WeirCore
import WeirLedger
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
    let budget: RunBudget
    let latencies: AgentLatencies
    /// `nil` when nobody watches the run.
    var events: RunEvents?

    var calls: AgentCaller {
        AgentCaller(
            snapshot: snapshot, caller: caller, requestID: requestID, runID: runID,
            requestType: request.type.name, trace: trace, ledger: ledger, transport: transport,
            clock: clock, budget: budget)
    }
}

/// Runs one step: picks the agents that may serve it, and calls one after the other until one
/// answers. Each call is a child of its own (`AgentCaller`), so a fallback meets the budget again.
struct StepRunner: Sendable {
    private struct Candidate {
        let adapter: AgentAdapter
        let prepared: AgentCaller.Prepared

        var agent: AgentPolicy { prepared.agent }
    }

    let context: RunContext
    let start: PlanProgress.Start

    private var step: RequestTypePolicy.Step { start.step }
    private var tier: TierPolicy { context.caller.tier }

    func run() async -> StepReport {
        let began = context.clock.nowNanoseconds
        var report = StepReport(name: step.name, end: .failed(.noEndpoint))
        let candidates = prepare(&report)
        let order = CandidateOrder(
            candidates.map { ($0.agent.name, $0.prepared.bound.worstCase) }, tier: tier,
            spentPercent: context.ledger.balance?.spentPercent, wish: wish)
        report.downgrade = order.downgrade
        let deadline = stepDeadline(from: began)
        for name in order.names {
            guard let candidate = candidates.first(where: { $0.agent.name == name }) else {
                continue
            }
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
    private func prepare(_ report: inout StepReport) -> [Candidate] {
        let policy = context.snapshot.policy
        let names = CandidateOrder.names(
            of: step, tier: tier, policy: policy,
            excluded: context.caller.preferences.excludedAgents)
        let chosen = context.request.agents[step.name]
        var candidates: [Candidate] = []
        for agent in names.compactMap({ policy.agents[$0] }) {
            let adapter = AgentAdapter(
                agent: agent, step: step,
                model: chosen?.agent == agent.name ? chosen?.model : nil,
                outputTokensMax: tier.outputTokensMax)
            let worstCase = WorstCase(
                agent: agent, prices: policy.prices, outputTokensMax: tier.outputTokensMax)
            do throws(AgentAdapter.Failure) {
                let body = try adapter.body(
                    inputs: start.inputs, streams: tellsWords(of: agent))
                do throws(BoundRefusal) {
                    let bound = try worstCase.bound(method: "POST", path: agent.path, body: body)
                    candidates.append(
                        Candidate(
                            adapter: adapter,
                            prepared: .init(
                                agent: agent, bound: bound, body: bound.body ?? body,
                                accept: bound.isStream ? "text/event-stream" : "application/json")))
                } catch {
                    fail(&report, agent, error.reason, error.detail)
                }
            } catch {
                fail(&report, agent, .invalid, error.detail)
            }
        }
        return candidates
    }

    /// Words of JSON are of no use before their end.
    private func tellsWords(of agent: AgentPolicy) -> Bool {
        context.events != nil && agent.wireProtocol == .openai && step.output == .text
    }

    private var wish: CandidateOrder.Wish {
        var wish = CandidateOrder.Wish()
        let preferences = context.caller.preferences
        wish.requested = context.request.agents[step.name]?.agent
        wish.preferred = preferences.agentsByStep[step.name]
        wish.optimize = preferences.optimize
        if wish.optimize == .latency { wish.latencies = context.latencies.all }
        return wish
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
        _ candidate: Candidate, _ deadline: UInt64, _ report: inout StepReport
    ) async -> Bool {
        let endpoints = (context.snapshot.endpoints[candidate.agent.name] ?? []).shuffled()
        guard !endpoints.isEmpty else {
            fail(
                &report, candidate.agent, .noEndpoint,
                "No sidecar of \(candidate.agent.name) is known.")
            return true
        }
        for endpoint in endpoints.prefix(GatewayLimits.endpointsPerAgentMax) {
            guard report.attempts.count < GatewayLimits.attemptsPerStepMax else { return false }
            guard !Task.isCancelled else {
                report.end = .cancelled
                return false
            }
            guard context.clock.nowNanoseconds < deadline else {
                fail(&report, candidate.agent, .deadline, "The step's time is over.")
                return false
            }
            let mayTryAnotherEndpoint = await call(candidate, endpoint, deadline, &report)
            if case .failed = report.end, mayTryAnotherEndpoint { continue }
            break
        }
        switch report.end {
        case .ok, .cancelled, .skipped: return false
        case .failed: return true
        }
    }

    /// `true`: nothing was sent, so another endpoint of the same agent is worth a try.
    private func call(
        _ candidate: Candidate, _ endpoint: AgentEndpoint, _ deadline: UInt64,
        _ report: inout StepReport
    ) async -> Bool {
        do throws(AgentCaller.Failure) {
            let began = context.clock.nowNanoseconds
            let answer = try await send(
                candidate, endpoint, deadline, attempt: report.attempts.count)
            context.latencies.succeeded(
                candidate.agent, nanoseconds: context.clock.nowNanoseconds - began)
            take(answer, candidate, &report)
            return false
        } catch {
            report.attempts.append(error.attempt)
            let reason = error.attempt.outcome
            report.end = reason == .cancelled ? .cancelled : .failed(reason)
            report.problemDetail = error.detail
            report.ledgerRefusal = error.ledgerRefusal ?? report.ledgerRefusal
            return error.isUnreachable
        }
    }

    private func send(
        _ candidate: Candidate, _ endpoint: AgentEndpoint, _ deadline: UInt64, attempt: Int
    ) async throws(AgentCaller.Failure) -> AgentCaller.Answer {
        guard let events = context.events, candidate.prepared.bound.isStream else {
            return try await context.calls.call(
                candidate.prepared, at: endpoint, until: deadline)
        }
        return try await context.calls.stream(
            candidate.prepared, at: endpoint, until: deadline
        ) { [name = step.name, agent = candidate.agent.name] words in
            events.send(.stepDelta(step: name, agent: agent, attempt: attempt + 1, text: words))
        }
    }

    private func take(
        _ answer: AgentCaller.Answer, _ candidate: Candidate, _ report: inout StepReport
    ) {
        var attempt = answer.attempt
        do throws(AgentAdapter.Failure) {
            report.end = .ok(
                try candidate.adapter.result(of: answer.body, inputs: start.inputs))
            report.problemDetail = nil
        } catch {
            attempt.outcome = .upstreamProtocol
            report.end = .failed(.upstreamProtocol)
            report.problemDetail = error.detail
        }
        report.attempts.append(attempt)
    }
}
