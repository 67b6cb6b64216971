import WeirPolicy

/// Decides whether an agent may be called at all. Pure: time and randomness come in.
///
///     closed --score is reached--> open --time over--> half-open --probe succeeds--> closed
///        '------- "come back later" ---------^  ^------------- probe fails ------'
///
/// # What counts
/// The score grows with each failure in a row by its kind (`Failure.weight`) and a success clears
/// it. A failure weighs 2 and the threshold is twice the policy's number, so that a 429 without a
/// time can weigh half: it says that the agent lives. A 429 or 503 that says when to come back
/// opens the circuit at once until then: asking earlier only costs.
///
/// # Recovery
/// After the back-off one request goes through as a probe and the others are still refused.
/// Back-off doubles with each failed probe up to the policy's maximum, and half of it is random, so
/// that many sidecars do not probe in step.
struct CircuitBreaker {
    enum Failure: Hashable, CaseIterable {
        case connect, serverError, timeout, firstByteStall, midStreamDeath, protocolError
        case rateLimited

        var weight: Int { self == .rateLimited ? 1 : 2 }
    }

    enum Outcome: Hashable {
        case success
        /// `retryAfterNanoseconds`: what a 429 or 503 asked for.
        case failure(Failure, retryAfterNanoseconds: UInt64?)
        /// Nothing was learned: a later stage refused, or the caller left before the answer.
        case unknown
    }

    /// What an admitted request holds until its outcome. Given back exactly once.
    struct Permit: Hashable {
        fileprivate let generation: UInt32
        let isProbe: Bool
    }

    enum Decision: Equatable {
        case admit(Permit)
        case refuse(retryAfterNanoseconds: UInt64)
    }

    /// What `circuit_breaker_state` shows.
    enum Position: Int { case closed = 0, halfOpen = 1, open = 2 }

    private enum State {
        case closed(score: Int)
        case open(untilNanoseconds: UInt64)
        case probing
    }

    private(set) var settings: AgentPolicy.Breaker
    private var state = State.closed(score: 0)
    /// Increases when the circuit opens or closes: outcomes of requests from before say nothing of
    /// the agent as it is now.
    private var generation: UInt32 = 0
    /// Openings in a row without a success between them.
    private var openings = 0

    init(_ settings: AgentPolicy.Breaker) { self.settings = settings }

    var position: Position {
        switch state {
        case .closed: .closed
        case .open: .open
        case .probing: .halfOpen
        }
    }

    /// True when `decide` would refuse; takes nothing.
    func refuses(nowNanoseconds now: UInt64) -> Bool {
        switch state {
        case .closed: false
        case .open(let until): now < until
        case .probing: true
        }
    }

    mutating func decide(nowNanoseconds now: UInt64) -> Decision {
        switch state {
        case .closed: return .admit(Permit(generation: generation, isProbe: false))
        case .open(let until) where now >= until:
            state = .probing
            return .admit(Permit(generation: generation, isProbe: true))
        case .open(let until): return .refuse(retryAfterNanoseconds: until - now)
        case .probing:
            // The probe decides soon; nobody knows when.
            return .refuse(retryAfterNanoseconds: 1_000_000_000)
        }
    }

    /// The outcome of an admitted request. `random` is any 64 bits.
    mutating func ended(
        _ permit: Permit, _ outcome: Outcome, nowNanoseconds now: UInt64, random: UInt64
    ) {
        // A request admitted before the trip can still end after it. Extending the back-off then
        // would let one slow burst hold the circuit open for ever.
        guard permit.generation == generation else { return }
        switch (state, outcome) {
        case (.probing, .unknown):
            guard permit.isProbe else { return }
            // The place goes to the next request at once.
            state = .open(untilNanoseconds: now)
        case (.probing, .success):
            generation &+= 1
            openings = 0
            state = .closed(score: 0)
        case (.closed, .success): state = .closed(score: 0)
        case (.probing, .failure(_, let retryAfter)): open(now, retryAfter, random)
        case (.closed(let score), .failure(let failure, let retryAfter)):
            let sum = score + failure.weight
            if retryAfter != nil || sum >= 2 * max(settings.consecutiveFailures, 1) {
                open(now, retryAfter, random)
            } else {
                state = .closed(score: sum)
            }
        case (.closed, .unknown), (.open, _): break
        }
    }

    /// A new policy for the same agent: what is known of the agent stays.
    mutating func change(_ settings: AgentPolicy.Breaker) { self.settings = settings }

    private mutating func open(_ now: UInt64, _ retryAfter: UInt64?, _ random: UInt64) {
        let ceiling = Self.nanoseconds(settings.openMillisecondsMax)
        var wait = Self.nanoseconds(settings.openMilliseconds)
        for _ in 0..<min(openings, 62) where wait < ceiling { wait = wait &* 2 }
        wait = min(wait, ceiling)
        let jittered = wait / 2 + (wait > 1 ? random % (wait / 2 + 1) : 0)
        // What the agent asks for holds even where it is shorter, but never beyond the maximum.
        let chosen = min(retryAfter ?? jittered, ceiling)
        generation &+= 1
        openings += 1
        state = .open(untilNanoseconds: now + chosen)
    }

    private static func nanoseconds(_ milliseconds: Int64) -> UInt64 {
        UInt64(clamping: min(max(milliseconds, 0), 86_400_000)) * 1_000_000
    }
}
