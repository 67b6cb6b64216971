import SidecarCore
import Synchronization
import WeirCore
import WeirPolicy

/// How much the gateway takes in: of everybody, and of each user by the tier. Requests that call
/// agents pass here; those that only look something up do not.
///
/// Below the limit a request goes on at once. Above it, it waits a bounded time in a bounded queue,
/// the higher tier first, and where the queue is full the lowest tier is shed. Each tier leaves a
/// tenth of the places free for each priority above its own, so that a flood of a lower tier cannot
/// make a higher one wait for its slow requests to end.
package final class WorkloadAdmission: Sendable {
    /// Why a request was not taken, beside what its user did.
    package enum Shed: String, CaseIterable, Sendable {
        /// The queue was full, of higher or equal tiers.
        case full
        /// A request of a higher tier took its place in the queue.
        case displaced
        /// No place became free in time.
        case timeout
        /// More requests than that came before anybody knew whose they are.
        case unidentified
    }

    package struct Levels: Hashable, Sendable {
        /// Requests that have a place.
        package var running = 0
        package var queued: [String: Int] = [:]
        package var shed: [ShedKey: UInt64] = [:]
    }

    package struct ShedKey: Hashable, Sendable {
        /// A dash for a caller who was not known yet.
        package var tier: String
        package var cause: Shed
    }

    private struct Waiting {
        let tier: String
        let wake: Wake
        /// `nil` until it is decided.
        var isAdmitted: Bool?
    }

    private struct State {
        var gate: ConcurrencyGate
        var inHand = 0
        var waiting: [ConcurrencyGate.Ticket: Waiting] = [:]
        var nextTicket: ConcurrencyGate.Ticket = 1
        var shed: [ShedKey: UInt64] = [:]
    }

    private let state: Mutex<State>
    private let inHandMax: Int
    private let headroom: Int
    private let rates = UserRates()
    private let isControlPlaneLost: @Sendable () -> Bool

    /// - Parameter max: requests at once, of all users; as many again may wait.
    package init(max: Int, isControlPlaneLost: @escaping @Sendable () -> Bool = { false }) {
        self.isControlPlaneLost = isControlPlaneLost
        var limit = AgentPolicy.Concurrency(requestsMax: max)
        limit.queueMax = max
        limit.queueMilliseconds = GatewayLimits.queueMilliseconds
        state = Mutex(State(gate: ConcurrencyGate(limit)))
        // Those with a place, those that wait, and as many whose callers are being looked up.
        inHandMax = 3 * max
        headroom = max / GatewayLimits.headroomShare
    }

    package var requestsInHand: Int { state.withLock { $0.inHand } }

    package var levels: Levels {
        state.withLock { state in
            Levels(
                running: state.gate.inFlight,
                queued: state.waiting.values.reduce(into: [:]) { counts, waiting in
                    if waiting.isAdmitted == nil { counts[waiting.tier, default: 0] += 1 }
                }, shed: state.shed)
        }
    }

    /// Bounds what is in memory before it is known whose it is; each success is paired with one
    /// `leave()`.
    func enter() throws(GatewayRefusal) {
        let entered = state.withLock { state in
            guard state.inHand < inHandMax else {
                state.shed[ShedKey(tier: "-", cause: .unidentified), default: 0] += 1
                return false
            }
            state.inHand += 1
            return true
        }
        guard entered else { throw Self.overloaded }
    }

    func leave() { state.withLock { $0.inHand -= 1 } }

    /// Takes a request of the user's rate, then a place among the user's own requests at once and
    /// one of this gateway, for which it may wait. The place is held until `WorkloadPlace.leave()`.
    ///
    /// A tier that only observes is held by no limit of its own; that of this gateway is no policy
    /// and holds for everybody.
    func enter(
        _ caller: Caller, of policy: Policy, _ clock: any GatewayClock
    ) async throws(GatewayRefusal) -> WorkloadPlace {
        let now = clock.nowNanoseconds
        let lost = try refuseIfLost(caller.tier)
        let rated = try rates.take(caller, nowNanoseconds: now)
        var observed = lost ?? rated
        let wake = Wake()
        var user = Occupant(caller)
        var (ticket, arrival, displaced) = arrive(user, caller.tier, policy, wake, now)
        if arrival == .refused(.concurrency), caller.tier.observe {
            observed = observed ?? .concurrency
            user.max = nil
            (ticket, arrival, displaced) = arrive(user, caller.tier, policy, wake, now)
        }
        displaced?.call()
        switch arrival {
        case .admitted: return WorkloadPlace(self, user, observed)
        case .refused(.concurrency):
            let max = caller.tier.concurrentRequestsMax ?? 0
            throw GatewayRefusal(
                .concurrency, "Tier \(caller.tier.name) allows \(max) requests at once.",
                retryAfterSeconds: 1)
        case .refused: throw Self.overloaded
        case .queued(let deadline, _):
            _ = await wake.wait(until: deadline, clock)
            guard decide(ticket, caller.tier) else {
                throw Task.isCancelled
                    ? GatewayRefusal(.cancelled, "The caller went away.") : Self.overloaded
            }
            return WorkloadPlace(self, user, observed)
        }
    }

    /// Before anything is counted or paid for (LEDGER rule 11).
    private func refuseIfLost(_ tier: TierPolicy) throws(GatewayRefusal) -> Reason? {
        guard tier.whenControlPlaneIsLost == .refuse, isControlPlaneLost() else { return nil }
        if tier.observe { return .controlPlaneLost }
        throw GatewayRefusal(
            .controlPlaneLost, "Tier \(tier.name) is not served without the control plane.",
            retryAfterSeconds: GatewayLimits.lostRetrySeconds)
    }

    /// Whose requests are counted together, and how many there may be.
    fileprivate struct Occupant: Sendable {
        let name: String
        var max: Int?

        init(_ caller: Caller) {
            name = caller.user
            max = caller.tier.concurrentRequestsMax
        }
    }

    private func arrive(
        _ user: Occupant, _ tier: TierPolicy, _ policy: Policy, _ wake: Wake, _ now: UInt64
    ) -> (ConcurrencyGate.Ticket, ConcurrencyGate.Arrival, displaced: Wake?) {
        let kept = headroom * policy.prioritiesAbove(tier.priority)
        return state.withLock { state in
            let ticket = state.nextTicket
            state.nextTicket += 1
            let arrival = state.gate.arrive(
                ticket, priority: tier.priority, subject: user.name, subjectMax: user.max,
                headroom: kept, nowNanoseconds: now)
            var displaced: Wake?
            switch arrival {
            case .queued(_, let shed):
                state.waiting[ticket] = Waiting(tier: tier.name, wake: wake)
                if let shed, let loser = state.waiting[shed] {
                    state.waiting[shed]?.isAdmitted = false
                    state.shed[ShedKey(tier: loser.tier, cause: .displaced), default: 0] += 1
                    displaced = loser.wake
                }
            case .refused(.overloaded):
                state.shed[ShedKey(tier: tier.name, cause: .full), default: 0] += 1
            case .admitted, .refused: break
            }
            return (ticket, arrival, displaced)
        }
    }

    /// After the wait: whether the place came before the end of the time, or of the caller.
    private func decide(_ ticket: ConcurrencyGate.Ticket, _ tier: TierPolicy) -> Bool {
        state.withLock { state in
            if let isAdmitted = state.waiting.removeValue(forKey: ticket)?.isAdmitted {
                return isAdmitted
            }
            _ = state.gate.leave(ticket)
            if !Task.isCancelled {
                state.shed[ShedKey(tier: tier.name, cause: .timeout), default: 0] += 1
            }
            return false
        }
    }

    fileprivate func release(_ user: Occupant) {
        let next = state.withLock { state -> Wake? in
            let ticket = state.gate.release(subject: user.name, subjectMax: user.max)
            guard let ticket else { return nil }
            state.waiting[ticket]?.isAdmitted = true
            return state.waiting[ticket]?.wake
        }
        next?.call()
    }

    private static var overloaded: GatewayRefusal {
        GatewayRefusal(
            .overloaded, "This gateway has as many requests in hand as it takes.",
            retryAfterSeconds: 1)
    }
}

/// A request's place at the gateway. Given back once: by `leave()`, or with the last reference, for
/// answers that are still being written when their endpoint has returned.
final class WorkloadPlace: Sendable {
    /// What would have refused the request, where its tier only observes.
    let observed: Reason?
    private let admission: WorkloadAdmission
    private let user: WorkloadAdmission.Occupant
    private let isHeld = Atomic(true)

    fileprivate init(
        _ admission: WorkloadAdmission, _ user: WorkloadAdmission.Occupant, _ observed: Reason?
    ) {
        self.admission = admission
        self.user = user
        self.observed = observed
    }

    deinit { leave() }

    func leave() {
        guard isHeld.exchange(false, ordering: .relaxed) else { return }
        admission.release(user)
    }
}

extension Policy {
    /// How many different priorities its tiers have above this one.
    fileprivate func prioritiesAbove(_ priority: Int) -> Int {
        Set(tiers.values.lazy.map(\.priority).filter { $0 > priority }).count
    }
}

extension WorkloadAdmission {
    /// Shows the levels at each scrape.
    package func show(on registry: Metrics) {
        registry.collect { text in
            let levels = self.levels
            text.family(
                "weir_gateway_requests_running", .gauge,
                help: "Requests that have one of the places of MAX_CONCURRENT_REQUESTS.")
            text.sample("weir_gateway_requests_running", [], String(levels.running))
            text.family(
                "weir_gateway_requests_queued", .gauge, help: "Requests that wait for a place.")
            for (tier, count) in levels.queued.sorted(by: { $0.key < $1.key }) {
                text.sample("weir_gateway_requests_queued", [("tier", tier)], String(count))
            }
            text.family(
                "weir_gateway_shed_total", .counter,
                help: "Requests that found no place, and why.")
            let shed = levels.shed.sorted {
                ($0.key.tier, $0.key.cause.rawValue) < ($1.key.tier, $1.key.cause.rawValue)
            }
            for (key, count) in shed {
                let labels = [("tier", key.tier), ("cause", key.cause.rawValue)]
                text.sample("weir_gateway_shed_total", labels, String(count))
            }
        }
    }
}
