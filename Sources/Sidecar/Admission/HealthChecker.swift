import Synchronization
import WeirCore
import WeirPolicy

/// Whether an agent is healthy, from its checks in a row (`unhealthyAfter`, `healthyAfter`). Pure.
/// An agent counts as healthy until it has failed often enough: a sidecar that starts before its
/// agent says so by the breaker first.
struct HealthState {
    private(set) var isHealthy = true
    private var streak = 0

    /// Returns whether the state changed.
    mutating func checked(isFine: Bool, _ settings: AgentPolicy.HealthCheck) -> Bool {
        guard isFine != isHealthy else {
            streak = 0
            return false
        }
        streak += 1
        let needed = isHealthy ? settings.unhealthyAfter : settings.healthyAfter
        guard streak >= max(needed, 1) else { return false }
        streak = 0
        isHealthy = isFine
        return true
    }
}

/// Asks the local agent for its health by the policy's path, past admission and metering: a check
/// never costs tokens and never counts as a request. What it finds is told to the control plane and
/// shown; whether requests go through stays the breaker's decision, which knows real answers.
package final class HealthChecker: Sendable {
    private struct State {
        var health = HealthState()
        var settings: AgentPolicy.HealthCheck?
        var lastError: String?
    }

    private let state: Mutex<State>
    private let worker: LoopBound<(Worker, UpstreamTarget)>
    private let loop: EventLoop

    /// On the worker whose pool of connections the checks use.
    package init(_ agent: AgentPolicy, worker: Worker, target: UpstreamTarget) {
        state = Mutex(State(settings: agent.healthCheck))
        loop = worker.loop
        self.worker = LoopBound((worker, target), loop: worker.loop)
    }

    package var isHealthy: Bool { state.withLock { $0.health.isHealthy } }
    package var isChecking: Bool { state.withLock { $0.settings != nil } }
    /// Why the agent counts as unhealthy; `nil` while it is healthy.
    package var problem: String? {
        state.withLock { $0.health.isHealthy ? nil : $0.lastError ?? "failed its checks" }
    }
    package var lastError: String? { state.withLock { $0.lastError } }

    /// A new policy; from the next check on.
    package func change(_ agent: AgentPolicy) {
        state.withLock { state in
            state.settings = agent.healthCheck
            guard agent.healthCheck == nil else { return }
            // Nobody asks any more, so nothing is known against the agent.
            state.health = HealthState()
            state.lastError = nil
        }
    }

    /// Checks until the task is cancelled. `changed` is called on the loop.
    package func start(_ changed: @escaping @Sendable (Bool) -> Void) -> Task<Void, Never> {
        loop.spawn { [self] in
            while !Task.isCancelled {
                let settings = state.withLock { $0.settings }
                if let settings { await check(settings, changed) }
                let interval = settings?.intervalMilliseconds ?? 1_000
                do {
                    try await loop.sleep(
                        nanoseconds: UInt64(clamping: max(interval, 10)) &* 1_000_000)
                } catch { return }
            }
        }
    }

    private func check(
        _ settings: AgentPolicy.HealthCheck, _ changed: @Sendable (Bool) -> Void
    ) async {
        let (worker, target) = self.worker.value
        // A check that is slower than the interval has failed.
        let deadline = UInt64(clamping: max(settings.intervalMilliseconds, 10)) &* 1_000_000
        let problem: String?
        do {
            let response = try await HTTPClient(worker: worker).send(
                ClientRequest(target: settings.path, responseBytesMax: 65_536), to: target,
                deadlineNanoseconds: deadline)
            problem = (200..<300).contains(response.status) ? nil : "status \(response.status)"
        } catch {
            problem = error.description
        }
        let change = state.withLock { state -> Bool? in
            state.lastError = problem
            return state.health.checked(isFine: problem == nil, settings)
                ? state.health.isHealthy : nil
        }
        if let change { changed(change) }
    }
}
