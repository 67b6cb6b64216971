import SidecarCore
import WeirCore
import WeirLedger
import WeirPolicy

/// Calls the agents of an order one after the other until one brings what is wanted: each at one
/// sidecar, and at another one where that is safe and the retry budget has room. Every call is a
/// child of its own (`AgentCaller`), so a fallback meets the budget again, and an order names an
/// agent once, so it ends.
struct AgentFailover: Sendable {
    /// What came of it. Without a success the failures say why; they are also what was paid for in
    /// vain when there is one.
    struct Outcome<Success: Sendable>: Sendable {
        var success: Success?
        var failures: [AgentCaller.Failure] = []
        /// The task was cancelled, so nobody else was called.
        var isCancelled = false
        /// Nobody else is to be called: cancelled, out of time, or tried often enough.
        fileprivate var isOver = false

        /// The failure that says why there is no success. A refusal for money counts only if
        /// nothing worse happened: the caller should know that an agent failed, because trying
        /// again may help.
        var decisive: AgentCaller.Failure? {
            failures.last { !$0.attempt.outcome.isAboutMoney } ?? failures.last
        }
    }

    /// Told how many calls came to nothing before this one.
    typealias Take<Success> =
        @Sendable (AgentCaller.Prepared, EndpointPicker.Picked, _ earlier: Int)
        async throws(AgentCaller.Failure) -> Success

    let calls: AgentCaller
    let deadlineNanoseconds: UInt64

    /// - Parameter kept: an answer that needs no call.
    /// - Parameter take: makes one call, and throws where another agent may be tried.
    func run<Success: Sendable>(
        _ order: [AgentCaller.Prepared],
        kept: @Sendable (AgentCaller.Prepared) -> Success?,
        take: Take<Success>
    ) async -> Outcome<Success> {
        var outcome = Outcome<Success>()
        for prepared in order {
            if let success = kept(prepared) {
                outcome.success = success
                return outcome
            }
            await callAgent(prepared, &outcome, take: take)
            if outcome.success != nil || outcome.isOver { return outcome }
        }
        return outcome
    }

    /// One sidecar of the agent after the other, as long as the picker gives another one.
    private func callAgent<Success: Sendable>(
        _ prepared: AgentCaller.Prepared, _ outcome: inout Outcome<Success>, take: Take<Success>
    ) async {
        var tried: [Incarnation] = []
        while true {
            outcome.isCancelled = Task.isCancelled
            let isMuch = outcome.failures.count >= GatewayLimits.attemptsPerStepMax
            if isMuch || outcome.isCancelled {
                outcome.isOver = true
                return
            }
            guard calls.clock.nowNanoseconds < deadlineNanoseconds else {
                outcome.failures.append(.init(prepared, .deadline, "The time is over."))
                outcome.isOver = true
                return
            }
            guard let picked = calls.pick(prepared.agent, tried: tried) else {
                if tried.isEmpty {
                    let detail = "No sidecar of \(prepared.agent.name) is known."
                    outcome.failures.append(.init(prepared, .noEndpoint, detail))
                }
                return
            }
            do throws(AgentCaller.Failure) {
                outcome.success = try await take(prepared, picked, outcome.failures.count)
                return
            } catch {
                outcome.failures.append(error)
                outcome.isCancelled = error.attempt.outcome == .cancelled
                outcome.isOver = outcome.isCancelled
                if outcome.isOver || !error.mayTryAnother { return }
                tried.append(picked.endpoint.incarnation)
            }
        }
    }
}

extension AgentCaller.Failure {
    /// Of an agent that was not called.
    init(_ agent: AgentPolicy, model: String, _ reason: Reason, _ detail: String) {
        self.init(
            attempt: AttemptReport(agent: agent.name, model: model, outcome: reason),
            detail: detail)
    }

    fileprivate init(_ prepared: AgentCaller.Prepared, _ reason: Reason, _ detail: String) {
        self.init(prepared.agent, model: prepared.bound.model, reason, detail)
    }
}
