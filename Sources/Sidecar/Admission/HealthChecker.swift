import Synchronization
import WeirCore
import WeirPolicy

/// Whether an endpoint is healthy, from its checks in a row (`unhealthyAfter`, `healthyAfter`).
/// Pure. It counts as healthy until it has failed often enough: a sidecar that starts before its
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

/// Asks every endpoint of the agent for its health by the policy's path, past admission and
/// metering: a check never costs tokens and never counts as a request. What it finds is told to the
/// control plane and shown, and takes endpoints out of the balancing as long as there are others;
/// a last endpoint's fate is its breaker's decision, which knows real answers.
package final class HealthChecker: Sendable {
    private struct Checked {
        var health = HealthState()
        var lastError: String?
    }

    private struct State {
        var settings: AgentPolicy.HealthCheck?
        var endpoints: [SocketAddress: Checked] = [:]
    }

    /// The connections of the checks, which do not count as the agent's.
    private final class Targets {
        let worker: Worker
        let make: (SocketAddress) -> UpstreamTarget
        private var known: [SocketAddress: UpstreamTarget] = [:]

        init(worker: Worker, make: @escaping (SocketAddress) -> UpstreamTarget) {
            self.worker = worker
            self.make = make
        }

        func keep(_ addresses: [SocketAddress]) {
            for (address, target) in known where !addresses.contains(address) {
                target.closeIdleConnections()
                known[address] = nil
            }
        }

        func target(_ address: SocketAddress) -> UpstreamTarget {
            if let target = known[address] { return target }
            let target = make(address)
            known[address] = target
            return target
        }
    }

    private let runtime: AgentRuntime
    private let state: Mutex<State>
    private let targets: LoopBound<Targets>
    private let loop: EventLoop

    /// - Parameter makeTarget: the pool that an endpoint's checks use, on that worker.
    package init(
        _ agent: AgentPolicy, runtime: AgentRuntime, worker: Worker,
        makeTarget: @escaping (SocketAddress) -> UpstreamTarget
    ) {
        state = Mutex(State(settings: agent.healthCheck))
        self.runtime = runtime
        loop = worker.loop
        targets = LoopBound(Targets(worker: worker, make: makeTarget), loop: worker.loop)
    }

    /// What the checks hold against the agent; `nil` while every endpoint is healthy.
    package var problem: String? {
        let endpoints = state.withLock { $0.endpoints }
        let problems = endpoints.filter { !$0.value.health.isHealthy }
            .map {
                (address: $0.key.description, error: $0.value.lastError ?? "healthy too rarely")
            }
            .sorted { $0.address < $1.address }
        if endpoints.count == 1 { return problems.first?.error }
        return problems.isEmpty
            ? nil : problems.map { "\($0.address): \($0.error)" }.joined(separator: "; ")
    }

    /// A new policy; from the next check on.
    package func change(_ agent: AgentPolicy) {
        let forgotten = state.withLock { state -> [SocketAddress] in
            state.settings = agent.healthCheck
            guard agent.healthCheck == nil else { return [] }
            // Nobody asks any more, so nothing is known against anybody.
            defer { state.endpoints = [:] }
            return Array(state.endpoints.keys)
        }
        for address in forgotten { runtime.setHealth(true, of: address) }
    }

    /// Checks until the task is cancelled. `changed` is called on the loop.
    package func start(
        _ changed: @escaping @Sendable (SocketAddress, Bool, String?) -> Void
    ) -> Task<Void, Never> {
        loop.spawn { [self] in
            while !Task.isCancelled {
                let settings = state.withLock { $0.settings }
                if let settings { await checkAll(settings, changed) }
                let interval = settings?.intervalMilliseconds ?? 1_000
                do {
                    try await loop.sleep(
                        nanoseconds: UInt64(clamping: max(interval, 10)) &* 1_000_000)
                } catch { return }
            }
        }
    }

    private func checkAll(
        _ settings: AgentPolicy.HealthCheck,
        _ changed: @escaping @Sendable (SocketAddress, Bool, String?) -> Void
    ) async {
        let addresses = runtime.endpoints(nowNanoseconds: loop.nowNanoseconds).map(\.key)
        targets.value.keep(addresses)
        state.withLock { state in
            state.endpoints = state.endpoints.filter { addresses.contains($0.key) }
        }
        // At once: a slow endpoint must not keep the others from their checks.
        await withTaskGroup(of: Void.self) { group in
            for address in addresses {
                group.addTask { await self.check(address, settings, changed) }
            }
        }
    }

    private func check(
        _ address: SocketAddress, _ settings: AgentPolicy.HealthCheck,
        _ changed: @Sendable (SocketAddress, Bool, String?) -> Void
    ) async {
        let targets = self.targets.value
        // A check that is slower than the interval has failed.
        let deadline = UInt64(clamping: max(settings.intervalMilliseconds, 10)) &* 1_000_000
        let problem: String?
        do {
            let response = try await HTTPClient(worker: targets.worker).send(
                ClientRequest(target: settings.path, responseBytesMax: 65_536),
                to: targets.target(address), deadlineNanoseconds: deadline)
            problem = (200..<300).contains(response.status) ? nil : "status \(response.status)"
        } catch {
            problem = error.description
        }
        let change = state.withLock { state -> Bool? in
            // The policy may have taken the checks away meanwhile.
            guard state.settings != nil else { return nil }
            var checked = state.endpoints[address] ?? Checked()
            checked.lastError = problem
            let hasChanged = checked.health.checked(isFine: problem == nil, settings)
            state.endpoints[address] = checked
            return hasChanged ? checked.health.isHealthy : nil
        }
        guard let change else { return }
        runtime.setHealth(change, of: address)
        changed(address, change, problem)
    }
}
