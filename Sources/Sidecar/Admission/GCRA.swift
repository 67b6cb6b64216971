import WeirPolicy

/// The generic cell rate algorithm (ITU-T I.371, virtual scheduling): a leaky bucket whose whole
/// state is one number, the theoretical arrival time of the next request. Integers throughout, so
/// that it is exact to the request: in any stretch of time t no more than burst + t ÷ interval
/// requests pass.
///
/// Pure: the caller keeps the state (`arrival`), one `UInt64` that starts at 0.
package struct GCRA: Hashable, Sendable {
    /// Between two requests at the steady rate, rounded up: the rate is never exceeded.
    let intervalNanoseconds: UInt64
    /// How far ahead of the steady rate a burst may run: (burst − 1) intervals.
    let toleranceNanoseconds: UInt64
    package let burst: Int64

    package enum Decision: Equatable, Sendable {
        /// The new state, and how many more would pass now.
        case admit(arrival: UInt64, remaining: Int64)
        case refuse(retryAfterNanoseconds: UInt64)
    }

    package init(_ limit: AgentPolicy.RateLimit) {
        self.init(requestsPerSecond: limit.requestsPerSecond, burst: limit.burst)
    }

    package init(requestsPerSecond: Double, burst: Int64) {
        // A rate of zero, or one that is none, lets one burst through and then nothing for a year.
        let interval = (1e9 / requestsPerSecond).rounded(.up)
        let year = 31_536_000e9
        intervalNanoseconds = interval >= 1 && interval <= year ? UInt64(interval) : UInt64(year)
        self.burst = min(max(burst, 1), 1_000_000)
        toleranceNanoseconds =
            intervalNanoseconds.multipliedReportingOverflow(by: UInt64(self.burst - 1)).overflow
            ? .max >> 1 : intervalNanoseconds * UInt64(self.burst - 1)
    }

    /// One request at `now`. A clock that stands still is fine; CLOCK_MONOTONIC never goes back.
    package func decide(arrival: UInt64, nowNanoseconds now: UInt64) -> Decision {
        let due = max(arrival, now)
        let ahead = due - now
        guard ahead <= toleranceNanoseconds else {
            return .refuse(retryAfterNanoseconds: ahead - toleranceNanoseconds)
        }
        let remaining = (toleranceNanoseconds - ahead) / intervalNanoseconds
        return .admit(
            arrival: due.addingReportingOverflow(intervalNanoseconds).partialValue,
            remaining: Int64(clamping: remaining))
    }

    /// After this the bucket is as if it had never been used.
    func isIdle(arrival: UInt64, nowNanoseconds now: UInt64) -> Bool { arrival <= now }

    /// How long until all of the burst is there again.
    func resetNanoseconds(arrival: UInt64, nowNanoseconds now: UInt64) -> UInt64 {
        max(arrival, now) - now
    }

    /// The window in which the quota `burst` renews itself, in whole seconds, at least 1.
    package var windowSeconds: UInt64 {
        let (product, overflow) = intervalNanoseconds.multipliedReportingOverflow(by: UInt64(burst))
        return max(1, ((overflow ? .max : product) / 1_000_000_000))
    }
}
