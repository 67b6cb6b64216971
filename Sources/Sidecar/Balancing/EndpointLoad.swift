/// What is known of one endpoint, and what it would cost to send it one more request. Pure: times
/// come in, a cost comes out.
///
/// The cost is the peak-EWMA of Finagle: an average of latency that rises at once with a slow
/// response and falls slowly, times the requests outstanding. Two endpoints are drawn and the
/// cheaper one is taken (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing",
/// 2001).
package struct EndpointLoad {
    /// Half of an old peak is forgotten after about 7 s.
    static let decayNanoseconds: Double = 10_000_000_000
    /// Back-off after failures to connect: doubled each time, from one second to thirty.
    static let ejectionNanoseconds: UInt64 = 1_000_000_000
    static let ejectionDoublingsMax = 5

    package private(set) var outstanding = 0
    private var averageNanoseconds: Double = 0
    private var updatedNanoseconds: UInt64 = 0
    private var connectFailures = 0
    private var ejectedUntilNanoseconds: UInt64 = 0

    package init() {}

    package mutating func requestStarted() { outstanding += 1 }

    /// `latencyNanoseconds` is `nil` when the request says nothing about the endpoint's speed.
    package mutating func requestEnded(latencyNanoseconds: UInt64?, now: UInt64) {
        outstanding -= 1
        precondition(outstanding >= 0, "a request ended twice")
        guard let latencyNanoseconds else { return }
        let sample = Double(latencyNanoseconds)
        let elapsed = Double(now &- updatedNanoseconds)
        updatedNanoseconds = now
        if sample > averageNanoseconds {
            averageNanoseconds = sample
        } else {
            // 1 / (1 + x) instead of exp(-x): as good for this, without libm.
            let keep = 1 / (1 + elapsed / Self.decayNanoseconds)
            averageNanoseconds = averageNanoseconds * keep + sample * (1 - keep)
        }
    }

    package mutating func connectFailed(now: UInt64) {
        let doublings = min(connectFailures, Self.ejectionDoublingsMax)
        connectFailures += 1
        ejectedUntilNanoseconds = now &+ Self.ejectionNanoseconds << UInt64(doublings)
    }

    package mutating func connectSucceeded() {
        connectFailures = 0
        ejectedUntilNanoseconds = 0
    }

    package func isEjected(now: UInt64) -> Bool { now < ejectedUntilNanoseconds }

    package var cost: Double { (averageNanoseconds + 1) * Double(outstanding + 1) }
}
