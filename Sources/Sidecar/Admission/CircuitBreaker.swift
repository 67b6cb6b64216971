import WeirPolicy

/// Decides whether one endpoint of an agent may be called. Pure: time and randomness come in.
///
///     closed --score is reached--> open --time over--> half-open --probe succeeds--> closed
///        '------- "come back later" ---------^  ^------------- probe fails ------'
///
/// # What counts
/// The score is the number of failures in a row, of whatever kind; a success clears it. A 429
/// without a time is no failure: the endpoint lives and has said what it wants. A 429 or 503 that
/// says when to come back opens the circuit at once until then: asking earlier only costs.
///
/// # Recovery
/// After the back-off one request goes through as a probe and the others are still refused.
/// Back-off doubles with each failed probe up to the policy's maximum, and half of it is random, so
/// that many sidecars do not probe in step. Where every endpoint of several is out, the owner may
/// probe `early`: after the first back-off instead of the doubled one (`EndpointSet`).
package struct CircuitBreaker {
    package enum Failure: Int, Hashable, CaseIterable, Sendable {
        case connect, serverError, timeout, firstByteStall, midStreamDeath, protocolError
        case closedBeforeAnswer, rateLimited

        /// As metrics and refusals say it.
        package var name: String {
            switch self {
            case .connect: "connect"
            case .serverError: "5xx"
            case .timeout: "timeout"
            case .firstByteStall: "first_byte_stall"
            case .midStreamDeath: "mid_stream_death"
            case .protocolError: "protocol_error"
            case .closedBeforeAnswer: "closed_before_answer"
            case .rateLimited: "429"
            }
        }
    }

    package enum Outcome: Hashable, Sendable {
        case success
        /// `retryAfterNanoseconds`: what a 429 or 503 asked for.
        case failure(Failure, retryAfterNanoseconds: UInt64?)
        /// The caller's own deadline, shorter than the agent's, passed first.
        case callerTimedOut
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
    package enum Position: Int, Sendable { case closed = 0, halfOpen = 1, open = 2 }

    private struct Opening {
        var sinceNanoseconds: UInt64
        var untilNanoseconds: UInt64
        /// The endpoint named the time itself.
        var isAsked = false
    }

    private enum State {
        case closed(score: Int)
        case open(Opening)
        case probing
    }

    private(set) var settings: AgentPolicy.Breaker
    private var state = State.closed(score: 0)
    /// Increases when the circuit opens or closes: outcomes of requests from before say nothing of
    /// the endpoint as it is now.
    private var generation: UInt32 = 0
    /// Openings in a row without a success between them.
    private var openings = 0
    /// What opened it last.
    private(set) var openedBy: Failure?

    init(_ settings: AgentPolicy.Breaker) { self.settings = settings }

    var position: Position {
        switch state {
        case .closed: .closed
        case .open: .open
        case .probing: .halfOpen
        }
    }

    var isClosed: Bool { position == .closed }

    /// When `decide` would let a probe through; `nil` while it is closed or a probe is under way.
    func probeNanoseconds(early: Bool = false) -> UInt64? {
        guard case .open(let opening) = state else { return nil }
        guard early, !opening.isAsked else { return opening.untilNanoseconds }
        return min(
            opening.untilNanoseconds,
            opening.sinceNanoseconds &+ Self.nanoseconds(settings.openMilliseconds))
    }

    mutating func decide(nowNanoseconds now: UInt64, early: Bool = false) -> Decision {
        switch state {
        case .closed: return .admit(Permit(generation: generation, isProbe: false))
        case .open:
            let time = probeNanoseconds(early: early) ?? now
            guard now >= time else { return .refuse(retryAfterNanoseconds: time - now) }
            return .admit(probe())
        case .probing:
            // The probe decides soon; nobody knows when.
            return .refuse(retryAfterNanoseconds: 1_000_000_000)
        }
    }

    /// Probes whatever time it is; `nil` when a probe is under way. For those who would rather
    /// fail at the endpoint than refuse.
    mutating func permitNow() -> Permit? {
        switch state {
        case .closed: Permit(generation: generation, isProbe: false)
        case .open: probe()
        case .probing: nil
        }
    }

    private mutating func probe() -> Permit {
        state = .probing
        return Permit(generation: generation, isProbe: true)
    }

    /// The outcome of an admitted request. `random` is any 64 bits.
    mutating func ended(
        _ permit: Permit, _ outcome: Outcome, nowNanoseconds now: UInt64, random: UInt64
    ) {
        // A request admitted before the trip can still end after it. Extending the back-off then
        // would let one slow burst hold the circuit open for ever.
        guard permit.generation == generation else { return }
        switch (state, outcome) {
        case (.probing, .unknown), (.probing, .callerTimedOut):
            guard permit.isProbe else { return }
            // The place goes to the next request at once.
            state = .open(Opening(sinceNanoseconds: now, untilNanoseconds: now))
        case (.probing, .success), (.probing, .failure(.rateLimited, nil)):
            generation &+= 1
            openings = 0
            openedBy = nil
            state = .closed(score: 0)
        case (.closed, .success): state = .closed(score: 0)
        case (.probing, .failure(let failure, let retryAfter)):
            open(failure, now, retryAfter, random)
        case (.closed, .failure(.rateLimited, nil)): break
        case (.closed(let score), .failure(let failure, let retryAfter)):
            if retryAfter != nil || score + 1 >= max(settings.consecutiveFailures, 1) {
                open(failure, now, retryAfter, random)
            } else {
                state = .closed(score: score + 1)
            }
        case (.closed, .unknown), (.closed, .callerTimedOut), (.open, _): break
        }
    }

    /// A new policy for the same agent: what is known of the endpoint stays.
    mutating func change(_ settings: AgentPolicy.Breaker) { self.settings = settings }

    private mutating func open(
        _ failure: Failure, _ now: UInt64, _ retryAfter: UInt64?, _ random: UInt64
    ) {
        let ceiling = Self.nanoseconds(settings.openMillisecondsMax)
        var wait = Self.nanoseconds(settings.openMilliseconds)
        for _ in 0..<min(openings, 62) where wait < ceiling { wait = wait &* 2 }
        wait = min(wait, ceiling)
        let jittered = wait / 2 + (wait > 1 ? random % (wait / 2 + 1) : 0)
        // What the endpoint asks for holds even where it is shorter, but never beyond the maximum.
        let chosen = min(retryAfter ?? jittered, ceiling)
        generation &+= 1
        openings += 1
        openedBy = failure
        state = .open(
            Opening(
                sinceNanoseconds: now, untilNanoseconds: now + chosen, isAsked: retryAfter != nil))
    }

    private static func nanoseconds(_ milliseconds: Int64) -> UInt64 {
        UInt64(clamping: min(max(milliseconds, 0), 86_400_000)) * 1_000_000
    }
}
