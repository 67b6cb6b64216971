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
    let picker: EndpointPicker
    let budget: RunBudget
    let latencies: AgentLatencies
    /// `nil` when nobody watches the run.
    var events: RunEvents?
    var cache: ResponseCache?

    var calls: AgentCaller {
        AgentCaller(
            snapshot: snapshot, caller: caller, requestID: requestID, runID: runID,
            requestType: request.type.name, trace: trace, ledger: ledger, transport: transport,
            clock: clock, picker: picker, budget: budget, cache: cache)
    }
}

/// Runs one step: picks the agents that may serve it, and calls one after the other until one
/// answers. Each call is a child of its own (`AgentCaller`), so a fallback meets the budget again.
struct StepRunner: Sendable {
    let context: RunContext
    let start: PlanProgress.Start

    private var step: RequestTypePolicy.Step { start.step }
    private var tier: TierPolicy { context.caller.tier }

    func run() async -> StepReport {
        let began = context.clock.nowNanoseconds
        let (candidates, unbounded) = prepare()
        let order = CandidateOrder(
            candidates.map { ($0.agent.name, $0.bound.worstCase) }, tier: tier,
            spentPercent: context.ledger.balance?.spentPercent, wish: wish)
        let deadline = stepDeadline(from: began)
        let failover = AgentFailover(calls: context.calls, deadlineNanoseconds: deadline)
        let inOrder = order.names.compactMap { name in
            candidates.first { $0.agent.name == name }
        }
        var outcome = await failover.run(inOrder, kept: kept) {
            prepared, picked, earlier throws(AgentCaller.Failure) in
            try await call(
                prepared, picked, deadline, attempt: unbounded.count + earlier + 1)
        }
        outcome.failures = unbounded + outcome.failures
        var report = report(of: outcome)
        report.downgrade = order.downgrade
        report.latencyMilliseconds = Int64(
            clamping: (context.clock.nowNanoseconds - began) / 1_000_000)
        return report
    }

    /// Bounds a call of each candidate. One whose cost has no bound is an attempt that failed.
    private func prepare() -> ([AgentCaller.Prepared], [AgentCaller.Failure]) {
        let policy = context.snapshot.policy
        let names = CandidateOrder.names(
            of: step, tier: tier, policy: policy,
            excluded: context.caller.preferences.excludedAgents)
        var candidates: [AgentCaller.Prepared] = []
        var failures: [AgentCaller.Failure] = []
        for agent in names.compactMap({ policy.agents[$0] }) {
            do throws(AgentCaller.Failure) {
                candidates.append(try prepare(agent))
            } catch {
                failures.append(error)
            }
        }
        return (candidates, failures)
    }

    private func prepare(_ agent: AgentPolicy) throws(AgentCaller.Failure) -> AgentCaller.Prepared {
        let worstCase = WorstCase(
            agent: agent, prices: context.snapshot.policy.prices,
            outputTokensMax: tier.outputTokensMax)
        let adapter = self.adapter(of: agent)
        let body: [UInt8]
        do throws(AgentAdapter.Failure) {
            body = try adapter.body(inputs: start.inputs, streams: tellsWords(of: agent))
        } catch {
            throw AgentCaller.Failure(agent, model: adapter.model, .invalid, error.detail)
        }
        do throws(BoundRefusal) {
            let bound = try worstCase.bound(method: "POST", path: agent.path, body: body)
            return AgentCaller.Prepared(
                agent: agent, bound: bound, body: bound.body ?? body,
                accept: bound.isStream ? "text/event-stream" : "application/json")
        } catch {
            throw AgentCaller.Failure(agent, model: adapter.model, error.reason, error.detail)
        }
    }

    private func adapter(of agent: AgentPolicy) -> AgentAdapter {
        let chosen = context.request.agents[step.name]
        return AgentAdapter(
            agent: agent, step: step, model: chosen?.agent == agent.name ? chosen?.model : nil,
            outputTokensMax: tier.outputTokensMax)
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

    private func stepDeadline(from began: UInt64) -> UInt64 {
        guard let milliseconds = step.timeoutMilliseconds else {
            return context.deadlineNanoseconds
        }
        return min(context.deadlineNanoseconds, began + UInt64(milliseconds) * 1_000_000)
    }

    // MARK: One call

    private struct Success: Sendable {
        let result: JSONValue
        let attempt: AttemptReport
    }

    /// What is kept was a result of this step when it came, and is read again.
    @Sendable private func kept(_ prepared: AgentCaller.Prepared) -> Success? {
        guard let kept = context.calls.kept(prepared),
            let result = try? adapter(of: prepared.agent).result(
                of: kept.answer.body, inputs: start.inputs)
        else { return nil }
        return Success(result: result, attempt: kept.attempt)
    }

    private func call(
        _ prepared: AgentCaller.Prepared, _ picked: EndpointPicker.Picked, _ deadline: UInt64,
        attempt: Int
    ) async throws(AgentCaller.Failure) -> Success {
        let began = context.clock.nowNanoseconds
        let answer = try await send(prepared, picked, deadline, attempt: attempt)
        context.latencies.succeeded(
            prepared.agent, nanoseconds: context.clock.nowNanoseconds - began)
        do throws(AgentAdapter.Failure) {
            let result = try adapter(of: prepared.agent).result(
                of: answer.body, inputs: start.inputs)
            context.calls.keep(
                answer.body, contentType: "application/json", answer.attempt, to: prepared)
            return Success(result: result, attempt: answer.attempt)
        } catch {
            var attempt = answer.attempt
            attempt.outcome = .upstreamProtocol
            throw AgentCaller.Failure(attempt: attempt, detail: error.detail)
        }
    }

    private func send(
        _ prepared: AgentCaller.Prepared, _ picked: EndpointPicker.Picked, _ deadline: UInt64,
        attempt: Int
    ) async throws(AgentCaller.Failure) -> AgentCaller.Answer {
        guard let events = context.events, prepared.bound.isStream else {
            return try await context.calls.call(prepared, at: picked, until: deadline)
        }
        return try await context.calls.stream(
            prepared, at: picked, until: deadline
        ) { [name = step.name, agent = prepared.agent.name] words in
            events.send(.stepDelta(step: name, agent: agent, attempt: attempt, text: words))
        }
    }

    // MARK: The report

    private func report(of outcome: AgentFailover.Outcome<Success>) -> StepReport {
        var report = StepReport(name: step.name, end: .failed(.noEndpoint))
        report.attempts = outcome.failures.map(\.attempt)
        if let success = outcome.success {
            report.attempts.append(success.attempt)
            report.end = .ok(success.result)
        } else if outcome.isCancelled {
            report.end = .cancelled
        } else if let failure = outcome.decisive {
            report.end = .failed(failure.attempt.outcome)
            report.problemDetail = failure.detail
            report.ledgerRefusal = failure.ledgerRefusal
        }
        report.fallback = Self.fallback(report.attempts)
        return report
    }

    /// From the first agent that another one was tried behind.
    private static func fallback(_ attempts: [AttemptReport]) -> StepReport.Fallback? {
        zip(attempts, attempts.dropFirst()).first { $0.agent != $1.agent }
            .map { StepReport.Fallback(from: $0.0.agent, reason: $0.0.outcome) }
    }
}
