/// So many frames of a kind at once, and so many a second: a token bucket without a clock.
package struct FrameAllowance: Equatable, Sendable {
    private let burst: Int
    private let perSecond: Int
    private var left: Int
    private var sinceNanoseconds: UInt64 = 0

    package init(burst: Int, perSecond: Int) {
        self.burst = burst
        self.perSecond = perSecond
        left = burst
    }

    /// False when this one is too many.
    package mutating func take(nowNanoseconds now: UInt64) -> Bool {
        if left > 0 {
            left -= 1
            return true
        }
        // Only now, so that the usual case is a comparison and a subtraction.
        let elapsed = now - min(sinceNanoseconds, now)
        let earned = min(elapsed / 1_000_000 * UInt64(perSecond) / 1000, UInt64(burst))
        guard earned > 0 else { return false }
        sinceNanoseconds = now
        left = Int(earned) - 1
        return true
    }

    /// What we did ourselves gives the peer cause for `count` more.
    package mutating func add(_ count: Int) { left = min(left + count, burst) }

    /// The bucket as it is full at `now`.
    package func starting(atNanoseconds now: UInt64) -> FrameAllowance {
        var allowance = self
        allowance.sinceNanoseconds = now
        return allowance
    }
}
