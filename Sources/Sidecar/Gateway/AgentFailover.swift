import SidecarCore
import WeirCore
import WeirPolicy

/// Calls the agents of an order one after the other until one brings what is wanted: each at one
/// sidecar, and at another one where nothing could be sent. Every call is a child of its own
/// (`AgentCaller`), so a fallback meets the budget again, and an order names an agent once, so it
/// ends.
struct AgentFailover: Sendable {
    /// What came of it. Without a success the failures say why; they are also what was paid for in
    /// vain when there is one.
    struct Outcome<Success: Sendable>: Sendable {
        var success: Success?
        var failures: [AgentCaller.Failure] = []
        /// The task was cancelled, so nobody else was called.
        var isCancelled = false

        /// The failure that says why there is no success. A refusal for money counts only if
        /// nothing worse happened: the caller should know that an agent failed, because trying
        /// again may help.
        var decisive: AgentCaller.Failure? {
            failures.last { !$0.attempt.outcome.isAboutMoney } ?? failures.last
        }
    }

    let calls: AgentCaller
    let deadlineNanoseconds: UInt64

    /// - Parameter take: makes one call, and throws where another agent may be tried.
    func run<Success: Sendable>(
        _ order: [AgentCaller.Prepared],
        take:
            @Sendable (AgentCaller.Prepared, AgentEndpoint) async throws(AgentCaller.Failure) ->
            Success
    ) async -> Outcome<Success> {
        var outcome = Outcome<Success>()
        for prepared in order {
            let endpoints = (calls.snapshot.endpoints[prepared.agent.name] ?? []).shuffled()
            if endpoints.isEmpty {
                let detail = "No sidecar of \(prepared.agent.name) is known."
                outcome.failures.append(.init(prepared, .noEndpoint, detail))
            }
            for endpoint in endpoints.prefix(GatewayLimits.endpointsPerAgentMax) {
                guard outcome.failures.count < GatewayLimits.attemptsPerStepMax else {
                    return outcome
                }
                guard !Task.isCancelled else {
                    outcome.isCancelled = true
                    return outcome
                }
                guard calls.clock.nowNanoseconds < deadlineNanoseconds else {
                    outcome.failures.append(.init(prepared, .deadline, "The time is over."))
                    return outcome
                }
                do throws(AgentCaller.Failure) {
                    outcome.success = try await take(prepared, endpoint)
                    return outcome
                } catch {
                    outcome.failures.append(error)
                    outcome.isCancelled = error.attempt.outcome == .cancelled
                    if outcome.isCancelled { return outcome }
                    if !error.isUnreachable { break }
                }
            }
        }
        return outcome
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
