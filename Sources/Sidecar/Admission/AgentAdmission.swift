import WeirCore
import WeirPolicy

/// The stages between an identified caller and the budget, for one agent: rate limit, concurrency
/// with its queue, and an endpoint whose circuit is not open (DESIGN §6). One for each process, so
/// that limits hold over its workers; the owner keeps it behind a short mutex. Pure: time and
/// randomness come in, decisions go out.
struct AgentAdmission {
    typealias Ticket = ConcurrencyGate.Ticket

    struct Caller: Hashable {
        var ticket: Ticket
        var subject = ""
        var priority = 0
        /// Of the tier: requests at once of one subject, and its rate.
        var subjectMax: Int?
        var subjectRate: GCRA?
        /// The tier only observes.
        var isObserved = false
    }

    /// What an admitted request holds until `finish`. Given back exactly once.
    struct Permit: Hashable {
        /// Where it goes; `nil` when the agent has no endpoint.
        var endpoint: EndpointSet<SocketAddress>.Choice?
        var hasPlace = false
        /// Which stages it holds them of: see `init(_:carrying:)`.
        var era: UInt32 = 0
        /// In observe mode: what would have refused it.
        var observed: Reason?
    }

    enum Decision: Equatable {
        case admitted(Permit)
        case queued(deadlineNanoseconds: UInt64, shed: Ticket?)
        case refused(StageRefusal)
    }

    private(set) var agent: AgentPolicy
    private var rate: GCRA?
    private var rateArrival: UInt64 = 0
    private var gate: ConcurrencyGate?
    private(set) var endpoints: EndpointSet<SocketAddress>
    private var retries: RetryBudget
    private var subjects: SubjectRates
    private var era: UInt32 = 0

    init(_ agent: AgentPolicy, endpoints: [SocketAddress], subjectsMax: Int = 65_536) {
        self.agent = agent
        rate = agent.rateLimit.map { GCRA($0) }
        gate = agent.concurrency.map { ConcurrencyGate($0) }
        self.endpoints = EndpointSet(endpoints, agent.breaker)
        retries = RetryBudget(agent.retry)
        subjects = SubjectRates(capacity: subjectsMax)
    }

    /// For a policy that `change` cannot take: stages anew, but what is known of endpoints goes on.
    /// Places held in the old stages are not known to the new ones.
    init(_ agent: AgentPolicy, carrying old: AgentAdmission) {
        self.init(agent, endpoints: [], subjectsMax: old.subjects.capacity)
        endpoints = old.endpoints
        endpoints.change(agent.breaker)
        retries = old.retries
        retries.change(agent.retry)
        era = old.era &+ 1
    }

    var inFlight: Int { gate?.inFlight ?? 0 }
    var waiting: Int { gate?.waiting ?? 0 }

    /// - Parameter random: any 64 bits, as everywhere here.
    mutating func arrive(
        _ caller: Caller, nowNanoseconds now: UInt64, random: UInt64
    ) -> Decision {
        let observes = agent.observe || caller.isObserved
        var permit = Permit(era: era)
        if let refusal = checkRates(caller, now) {
            guard observes else { return .refused(refusal) }
            permit.observed = refusal.reason
        }
        switch takePlace(caller, now) {
        case nil: break
        case .admitted: permit.hasPlace = true
        case .queued(let deadline, let shed):
            return .queued(deadlineNanoseconds: deadline, shed: shed)
        case .refused(let reason):
            guard observes else { return .refused(Self.concurrencyRefusal(reason, agent)) }
            permit.observed = permit.observed ?? reason
        }
        return chooseEndpoint(caller, &permit, now, random)
    }

    /// A waiting request has got its place (`finish` or `giveBack` named its ticket).
    mutating func leaveQueue(
        _ caller: Caller, nowNanoseconds now: UInt64, random: UInt64
    ) -> Decision {
        var permit = Permit(hasPlace: true, era: era)
        return chooseEndpoint(caller, &permit, now, random)
    }

    /// The end of an admitted request, whatever it was: gives the place and the choice of its
    /// endpoint back. A later stage's refusal is `.unknown` (LEDGER rule 15). Returns who may go
    /// next.
    mutating func finish(
        _ caller: Caller, _ permit: Permit, _ outcome: CircuitBreaker.Outcome,
        latencyNanoseconds: UInt64?, nowNanoseconds now: UInt64, random: UInt64
    ) -> Ticket? {
        if let choice = permit.endpoint {
            endpoints.ended(
                choice, outcome, latencyNanoseconds: latencyNanoseconds, nowNanoseconds: now,
                random: random)
        }
        return permit.hasPlace && permit.era == era ? givePlaceBack(caller) : nil
    }

    /// The endpoint could not be connected to, and nothing was sent: another one that is not among
    /// `tried`, under the retry budget. The permit changes hands only then.
    mutating func retry(
        _ permit: inout Permit, tried: [SocketAddress], nowNanoseconds now: UInt64, random: UInt64
    ) -> SocketAddress? {
        guard let failed = permit.endpoint, tried.count < agent.retry.attemptsMax,
            endpoints.count > tried.count, retries.takeRetry(now: now),
            case .chosen(let next) = endpoints.pick(
                nowNanoseconds: now, random: random, where: { !tried.contains($0) })
        else { return nil }
        endpoints.ended(
            failed, .failure(.connect, retryAfterNanoseconds: nil), latencyNanoseconds: nil,
            nowNanoseconds: now, random: random)
        permit.endpoint = next
        return next.key
    }

    mutating func update(endpoints keys: [SocketAddress]) { endpoints.update(keys) }

    mutating func setHealth(_ isHealthy: Bool, of endpoint: SocketAddress) {
        endpoints.setHealth(isHealthy, of: endpoint)
    }

    mutating func givePlaceBack(_ caller: Caller) -> Ticket? {
        gate?.release(subject: caller.subject, subjectMax: caller.subjectMax)
    }

    mutating func leave(_ ticket: Ticket) -> Bool { gate?.leave(ticket) ?? false }
    mutating func expire(nowNanoseconds now: UInt64) -> Ticket? {
        gate?.expire(nowNanoseconds: now)
    }
    var nextQueueDeadlineNanoseconds: UInt64? { gate?.nextDeadlineNanoseconds }

    /// What a waiting request hears whose time is over, or that was shed.
    var queueRefusal: StageRefusal { Self.concurrencyRefusal(.overloaded, agent) }

    /// A new policy. State goes on: buckets where the rate is the same, places in use always,
    /// endpoints always. False when the gate appears or vanishes while requests hold places in it:
    /// then nothing changed, and the owner begins anew with the next request.
    mutating func change(_ next: AgentPolicy) -> Bool {
        switch (gate, next.concurrency) {
        case (nil, nil): break
        case (_?, let limit?): gate?.change(limit)
        case (nil, _?), (_?, nil): return false
        }
        if agent.rateLimit != next.rateLimit {
            rate = next.rateLimit.map { GCRA($0) }
            rateArrival = 0
        }
        endpoints.change(next.breaker)
        retries.change(next.retry)
        agent = next
        return true
    }

    /// After `change`, a larger limit may admit those who wait.
    mutating func admitNext() -> Ticket? { gate?.admitNext() }

    // MARK: Stages

    private mutating func checkRates(_ caller: Caller, _ now: UInt64) -> StageRefusal? {
        if let limit = caller.subjectRate, !caller.subject.isEmpty {
            switch subjects.take(caller.subject, limit, nowNanoseconds: now) {
            case .decided(.refuse(let wait)):
                return StageRefusal(
                    .rateLimited, "You are above your tier's rate.", wait,
                    RateLimitFields(name: "tier", limit: limit, remaining: 0, reset: wait))
            case .tableFull:
                return StageRefusal(.overloaded, "Too many callers at once.", 1_000_000_000)
            case .decided(.admit): break
            }
        }
        guard let rate else { return nil }
        switch rate.decide(arrival: rateArrival, nowNanoseconds: now) {
        case .admit(let arrival, _):
            rateArrival = arrival
            return nil
        case .refuse(let wait):
            return StageRefusal(
                .rateLimited, "The agent \(agent.name) is at its rate limit.", wait,
                RateLimitFields(name: "agent", limit: rate, remaining: 0, reset: wait))
        }
    }

    /// Who is only watched goes past a gate that is full, and does not wait at it: watching must
    /// not slow anybody down.
    private mutating func takePlace(_ caller: Caller, _ now: UInt64) -> ConcurrencyGate.Arrival? {
        gate?.arrive(
            caller.ticket, priority: caller.priority, subject: caller.subject,
            subjectMax: caller.subjectMax, mayWait: !(agent.observe || caller.isObserved),
            nowNanoseconds: now)
    }

    private mutating func chooseEndpoint(
        _ caller: Caller, _ permit: inout Permit, _ now: UInt64, _ random: UInt64
    ) -> Decision {
        retries.requestStarted(now: now)
        let pick = endpoints.pick(nowNanoseconds: now, random: random)
        switch pick {
        case .chosen(let choice):
            permit.endpoint = choice
            return .admitted(permit)
        case .refused(let wait):
            if agent.observe || caller.isObserved {
                permit.observed = permit.observed ?? .circuitOpen
                return admitAnywhere(permit, now, random)
            }
            return .refused(
                StageRefusal(
                    .circuitOpen, circuitDetail, wait, holdsPlace: permit.hasPlace))
        case .none:
            return .refused(
                StageRefusal(
                    .noEndpoint, "The agent \(agent.name) has no address.", 1_000_000_000,
                    holdsPlace: permit.hasPlace))
        }
    }

    /// Observing refuses nothing: the least bad endpoint is called all the same.
    private mutating func admitAnywhere(
        _ permit: Permit, _ now: UInt64, _ random: UInt64
    ) -> Decision {
        var permit = permit
        let pick = endpoints.pick(
            nowNanoseconds: now, random: random, whenAllAreOut: .tryLeastBad)
        if case .chosen(let choice) = pick { permit.endpoint = choice }
        return .admitted(permit)
    }

    private var circuitDetail: String {
        let kinds = endpoints.openedBy.map(\.name).joined(separator: ", ")
        return "The circuit of \(agent.name) is open" + (kinds.isEmpty ? "." : " (\(kinds)).")
    }

    private static func concurrencyRefusal(_ reason: Reason, _ agent: AgentPolicy) -> StageRefusal {
        StageRefusal(
            reason,
            reason == .concurrency
                ? "You have as many requests in flight as your tier allows."
                : "The agent \(agent.name) has no place free, and its queue is full or too slow.",
            1_000_000_000)
    }
}

/// A stage's refusal with what the caller can do about it.
struct StageRefusal: Error, Equatable {
    let reason: Reason
    let detail: String
    let retryAfterNanoseconds: UInt64?
    let rateLimit: RateLimitFields?
    /// The refused request has a place that must be given back.
    let holdsPlace: Bool

    init(
        _ reason: Reason, _ detail: String, _ retryAfterNanoseconds: UInt64? = nil,
        _ rateLimit: RateLimitFields? = nil, holdsPlace: Bool = false
    ) {
        self.reason = reason
        self.detail = detail
        self.retryAfterNanoseconds = retryAfterNanoseconds
        self.rateLimit = rateLimit
        self.holdsPlace = holdsPlace
    }

    /// `Retry-After` in whole seconds, rounded up: coming back earlier would be in vain.
    var retryAfterSeconds: Int? {
        retryAfterNanoseconds.map {
            Int(clamping: ($0 / 1_000_000_000) &+ ($0 % 1_000_000_000 > 0 ? 1 : 0))
        }
    }
}

/// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11): structured field
/// lists, quota units are requests.
package struct RateLimitFields: Equatable, Sendable {
    let name: String
    let limit: GCRA
    let remaining: Int64
    let reset: UInt64

    package init(name: String, limit: GCRA, remaining: Int64, reset: UInt64) {
        self.name = name
        self.limit = limit
        self.remaining = remaining
        self.reset = reset
    }

    package var policy: String { "\"\(name)\";q=\(limit.burst);w=\(limit.windowSeconds)" }

    package var state: String {
        let seconds = reset / 1_000_000_000 + (reset % 1_000_000_000 > 0 ? 1 : 0)
        return "\"\(name)\";r=\(remaining);t=\(seconds)"
    }
}
