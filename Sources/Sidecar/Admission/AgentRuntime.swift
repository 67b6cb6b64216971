import Synchronization
import WeirCore
import WeirPolicy

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
    }

    private let state: Mutex<State>

    package init(_ agent: AgentPolicy) {
        state = Mutex(State(admission: AgentAdmission(agent)))
    }

    struct Levels {
        var inFlight: Int
        var waiting: Int
        var breaker: CircuitBreaker.Position
    }

    package var requestsInFlight: Int { levels.inFlight }

    var levels: Levels {
        state.withLock {
            Levels(
                inFlight: $0.admission.inFlight, waiting: $0.admission.waiting,
                breaker: $0.admission.breaker.position)
        }
    }

    /// The caller's ticket is filled in; it names the caller until the request ends.
    func arrive(
        _ caller: inout AgentAdmission.Caller, _ interceptor: AdmissionInterceptor,
        nowNanoseconds now: UInt64
    ) -> AgentAdmission.Decision {
        var arriving = caller
        let (decision, wakes) = state.withLock { state in
            arriving.ticket = state.nextTicket
            state.nextTicket += 1
            let decision = state.admission.arrive(arriving, nowNanoseconds: now)
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
        _ outcome: CircuitBreaker.Outcome, nowNanoseconds now: UInt64, random: UInt64
    ) {
        send(
            state.withLock { state in
                var wakes: [Wake] = []
                let next = state.admission.finish(
                    caller, permit, outcome, nowNanoseconds: now, random: random)
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
            let decision = state.admission.leaveQueue(waiter.caller, nowNanoseconds: now)
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
