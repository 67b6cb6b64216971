import Synchronization
import WeirCore
import WeirPolicy

/// The models that cost more than their bound (LEDGER, "Worst case of an attempt"): either the
/// provider broke its word or the price is wrong, and both are for a person to look at. Whoever
/// applies another `version` of the model's price opens it. Pure.
struct ShutModels {
    /// By model, the version of the price that was exceeded.
    private var versions: [String: Int64] = [:]

    mutating func shut(_ model: String, priceVersion: Int64) { versions[model] = priceVersion }

    func isShut(_ model: String, priceVersion: Int64) -> Bool { versions[model] == priceVersion }
}

/// The stages of one agent with who waits in them, shared by all workers of the process behind one
/// short mutex, so that limits are those of the process and not of a worker.
package final class AgentRuntime: Sendable {
    private struct Waiter {
        let caller: AgentAdmission.Caller
        let interceptor: AdmissionInterceptor
    }

    /// What a waiting request is told, on its own loop.
    private struct Wake {
        let ticket: UInt64
        let waiter: Waiter
        let decision: AgentAdmission.Decision
    }

    private struct State {
        var admission: AgentAdmission
        var waiters: [UInt64: Waiter] = [:]
        var nextTicket: UInt64 = 1
        var random = PseudoRandom()
        var shutModels = ShutModels()
    }

    private let state: Mutex<State>
    /// Spares the mutex where nothing was ever shut.
    private let mayBeShut = Atomic(false)

    /// At most `Limits.endpointsPerAgent` endpoints are used.
    package init(_ agent: AgentPolicy, endpoints: [SocketAddress]) {
        let used = Array(endpoints.prefix(Limits.endpointsPerAgent))
        state = Mutex(State(admission: AgentAdmission(agent, endpoints: used)))
    }

    struct Levels {
        var inFlight: Int
        var waiting: Int
    }

    package var requestsInFlight: Int { levels.inFlight }

    var levels: Levels {
        state.withLock {
            Levels(
                inFlight: $0.admission.inFlight, waiting: $0.admission.waiting)
        }
    }

    // MARK: Endpoints

    package func endpoints(
        nowNanoseconds now: UInt64
    ) -> [EndpointSet<SocketAddress>.Status] {
        state.withLock { $0.admission.endpoints.statuses(nowNanoseconds: now) }
    }

    /// The policy has the endpoints' health checked.
    package var isChecked: Bool { state.withLock { $0.admission.agent.healthCheck != nil } }

    /// New addresses of the agent; requests under way go on where they are.
    package func update(endpoints: [SocketAddress]) {
        let used = Array(endpoints.prefix(Limits.endpointsPerAgent))
        state.withLock { $0.admission.update(endpoints: used) }
    }

    package func setHealth(_ isHealthy: Bool, of endpoint: SocketAddress) {
        state.withLock { $0.admission.setHealth(isHealthy, of: endpoint) }
    }

    /// Another endpoint for a request whose connection failed before anything was sent.
    func retry(
        _ permit: inout AgentAdmission.Permit, tried: [SocketAddress], nowNanoseconds now: UInt64
    ) -> SocketAddress? {
        var changed = permit
        let next = state.withLock { state in
            state.admission.retry(
                &changed, tried: tried, nowNanoseconds: now, random: state.random.next())
        }
        permit = changed
        return next
    }

    // MARK: Overruns

    func shut(_ bound: AttemptBound) {
        state.withLock {
            $0.shutModels.shut(bound.model, priceVersion: bound.price.version)
        }
        mayBeShut.store(true, ordering: .releasing)
    }

    /// `nil`: the model is open.
    func shutRefusal(_ bound: AttemptBound) -> StageRefusal? {
        guard mayBeShut.load(ordering: .acquiring),
            state.withLock({
                $0.shutModels.isShut(bound.model, priceVersion: bound.price.version)
            })
        else { return nil }
        let detail =
            "The model \(bound.model) has cost more than its bound. It is shut until an operator "
            + "applies another version of its price."
        return StageRefusal(.circuitOpen, detail, 60_000_000_000)
    }

    // MARK: Requests

    /// The caller's ticket is filled in; it names the caller until the request ends.
    func arrive(
        _ caller: inout AgentAdmission.Caller, _ interceptor: AdmissionInterceptor,
        nowNanoseconds now: UInt64
    ) -> AgentAdmission.Decision {
        var arriving = caller
        let (decision, wakes) = state.withLock { state in
            arriving.ticket = state.nextTicket
            state.nextTicket += 1
            let decision = state.admission.arrive(
                arriving, nowNanoseconds: now, random: state.random.next())
            var wakes: [Wake] = []
            switch decision {
            case .queued(_, let shed):
                state.waiters[arriving.ticket] = Waiter(
                    caller: arriving, interceptor: interceptor)
                if let shed { Self.refuse(shed, &state, &wakes) }
            case .refused(let refusal) where refusal.holdsPlace:
                Self.admit(state.admission.givePlaceBack(arriving), &state, &wakes, now)
            case .admitted, .refused: break
            }
            return (decision, wakes)
        }
        caller = arriving
        send(wakes)
        return decision
    }

    /// The end of an admitted request.
    func finish(
        _ caller: AgentAdmission.Caller, _ permit: AgentAdmission.Permit,
        _ outcome: CircuitBreaker.Outcome, latencyNanoseconds: UInt64? = nil,
        nowNanoseconds now: UInt64
    ) {
        send(
            state.withLock { state in
                var wakes: [Wake] = []
                let next = state.admission.finish(
                    caller, permit, outcome, latencyNanoseconds: latencyNanoseconds,
                    nowNanoseconds: now, random: state.random.next())
                Self.admit(next, &state, &wakes, now)
                return wakes
            })
    }

    /// A waiting request is not interested any more. When it has been woken already, its
    /// interceptor finds nobody to tell and gives the place back.
    func leave(_ ticket: UInt64) {
        state.withLock { state in
            if state.admission.leave(ticket) { state.waiters[ticket] = nil }
        }
    }

    /// Refuses those whose time in the queue is over.
    func expire(nowNanoseconds now: UInt64) {
        send(
            state.withLock { state in
                var wakes: [Wake] = []
                while let ticket = state.admission.expire(nowNanoseconds: now) {
                    Self.refuse(ticket, &state, &wakes)
                }
                return wakes
            })
    }

    /// A new policy for the same agent; what is known of it goes on where the settings allow.
    package func change(_ agent: AgentPolicy, nowNanoseconds now: UInt64) {
        send(
            state.withLock { state in
                var wakes: [Wake] = []
                guard state.admission.change(agent) else {
                    // Those who wait in the old queue are told to come again; those in flight hold
                    // permits that the new stages do not know, and `finish` must not count them.
                    for ticket in state.waiters.keys { Self.refuse(ticket, &state, &wakes) }
                    state.admission = AgentAdmission(agent, carrying: state.admission)
                    return wakes
                }
                var next = state.admission.admitNext()
                while next != nil {
                    Self.admit(next, &state, &wakes, now)
                    next = state.admission.admitNext()
                }
                return wakes
            })
    }

    // MARK: Waking

    private static func admit(
        _ ticket: UInt64?, _ state: inout State, _ wakes: inout [Wake], _ now: UInt64
    ) {
        var next = ticket
        while let ticket = next {
            next = nil
            guard let waiter = state.waiters.removeValue(forKey: ticket) else { return }
            let decision = state.admission.leaveQueue(
                waiter.caller, nowNanoseconds: now, random: state.random.next())
            wakes.append(Wake(ticket: ticket, waiter: waiter, decision: decision))
            if case .refused(let refusal) = decision, refusal.holdsPlace {
                next = state.admission.givePlaceBack(waiter.caller)
            }
        }
    }

    private static func refuse(_ ticket: UInt64, _ state: inout State, _ wakes: inout [Wake]) {
        guard let waiter = state.waiters.removeValue(forKey: ticket) else { return }
        wakes.append(
            Wake(
                ticket: ticket, waiter: waiter, decision: .refused(state.admission.queueRefusal)))
    }

    private func send(_ wakes: [Wake]) {
        for wake in wakes {
            wake.waiter.interceptor.wake(wake.ticket, wake.waiter.caller, wake.decision)
        }
    }
}
