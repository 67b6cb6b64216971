/// What one endpoint's answers took lately, and what it would cost to send it one more request.
/// Pure: times come in, a cost comes out.
///
/// The cost is the peak-EWMA of Finagle: an average of latency that rises at once with a slow
/// answer and is halved by time, times the requests outstanding. It fades while nobody asks, too,
/// so that an endpoint that was slow once is tried again.
package struct EndpointLoad {
    /// Half of an old average is forgotten after this long.
    static let halfLifeNanoseconds: Double = 5_000_000_000
    /// What the first answer is expected to take while nothing is known and requests are out:
    /// without it, a new endpoint would get every request until its first answer.
    static let unknownNanoseconds: Double = 1_000_000_000
    /// Avoided after failures to connect: doubled each time, from one second to thirty.
    static let avoidNanoseconds: UInt64 = 1_000_000_000
    static let avoidDoublingsMax = 5

    package private(set) var outstanding = 0
    private var averageNanoseconds: Double = 0
    private var updatedNanoseconds: UInt64 = 0
    private var connectFailures = 0
    private var avoidedUntilNanoseconds: UInt64 = 0

    package init() {}

    package mutating func requestStarted() { outstanding += 1 }

    /// `latencyNanoseconds` is `nil` when the request says nothing about the endpoint's speed.
    package mutating func requestEnded(latencyNanoseconds: UInt64?, now: UInt64) {
        outstanding -= 1
        precondition(outstanding >= 0, "a request ended twice")
        guard let latencyNanoseconds else { return }
        let sample = Double(latencyNanoseconds)
        let keep = Self.share(left: now &- min(updatedNanoseconds, now))
        let faded = averageNanoseconds * keep
        averageNanoseconds = sample > faded ? sample : faded + sample * (1 - keep)
        updatedNanoseconds = now
    }

    package func average(now: UInt64) -> Double {
        averageNanoseconds * Self.share(left: now &- min(updatedNanoseconds, now))
    }

    package func cost(now: UInt64) -> Double {
        let expected =
            averageNanoseconds == 0 && outstanding > 0
            ? Self.unknownNanoseconds : average(now: now)
        return (expected + 1) * Double(outstanding + 1)
    }

    // MARK: Connecting

    /// `random` is any 64 bits: half of the time is drawn, so that many callers do not come back
    /// in step.
    package mutating func connectFailed(now: UInt64, random: UInt64) {
        let longest = Self.avoidNanoseconds << UInt64(min(connectFailures, Self.avoidDoublingsMax))
        connectFailures += 1
        avoidedUntilNanoseconds = now &+ longest / 2 &+ random % (longest / 2 + 1)
    }

    package mutating func connectSucceeded() {
        connectFailures = 0
        avoidedUntilNanoseconds = 0
    }

    package func isAvoided(now: UInt64) -> Bool { now < avoidedUntilNanoseconds }

    /// 2^(-elapsed / half-life): straight between the whole numbers: as good for this, without
    /// libm.
    static func share(left elapsed: UInt64) -> Double {
        let halves = Double(elapsed) / halfLifeNanoseconds
        if halves < 1 { return 1 - halves / 2 }
        guard halves < 60 else { return 0 }
        let whole = Int(halves)
        let rest = halves - Double(whole)
        return Double(sign: .plus, exponent: -whole, significand: 1 - rest / 2)
    }
}
