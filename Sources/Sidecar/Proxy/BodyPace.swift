/// Until when a sender may go on. A limit between two reads alone lets a byte now and then hold a
/// request, and with it one of the agent's places, for as long as its sender likes. So silence is
/// bounded by the sender's patience, and what comes buys time at the slowest pace that is served:
/// who is faster than that never meets a deadline, who is slower is cut off after the patience.
struct BodyPace {
    private static let nanosecondsPerByte = 1_000_000_000 / Limits.bodyBytesPerSecondMin

    private var patienceNanoseconds: UInt64 = .max
    private(set) var dueNanoseconds: UInt64 = .max
    private var pausedNanoseconds: UInt64 = 0

    mutating func begin(patienceNanoseconds: UInt64, now: UInt64) {
        self.patienceNanoseconds = patienceNanoseconds
        dueNanoseconds = Self.sum(now, patienceNanoseconds)
        pausedNanoseconds = 0
    }

    mutating func received(_ count: Int, now: UInt64) {
        let bought = UInt64(count) &* Self.nanosecondsPerByte
        dueNanoseconds = min(Self.sum(dueNanoseconds, bought), Self.sum(now, patienceNanoseconds))
    }

    /// While nobody reads, the time is not the sender's.
    mutating func pause(now: UInt64) { pausedNanoseconds = now }

    mutating func resume(now: UInt64) {
        dueNanoseconds = Self.sum(dueNanoseconds, now - min(now, pausedNanoseconds))
    }

    private static func sum(_ left: UInt64, _ right: UInt64) -> UInt64 {
        let (sum, overflow) = left.addingReportingOverflow(right)
        return overflow ? .max : sum
    }
}
