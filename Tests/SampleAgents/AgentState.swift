import Synchronization

/// What an agent saw and what it is told to do; shared by all requests of one listener.
final class AgentState: Sendable {
    /// One request as it arrived, so that a test can see what a proxy let through.
    struct Seen: Encodable {
        let method: String
        let path: String
        let headers: [[String]]
        let body: String
    }

    /// What came of a call that the agent made.
    struct Called: Encodable {
        let status: Int
        let headers: [String: String]
        let body: String
    }

    struct Stats: Encodable {
        /// Requests for work whose head arrived.
        var requests = 0
        /// Those whose whole body arrived: what a proxy that refuses must keep at zero.
        var bodies = 0
        var bodyBytes = 0
        /// Answers written to their last byte, errors included.
        var completed = 0
        /// Answers that a fault or the other side broke off.
        var aborted = 0
        var inFlight = 0
        /// Tokens of all completed answers by the agent's own count, whatever it reported.
        var inputTokens = 0
        var outputTokens = 0
        var last: Seen?
        /// The last call of its own.
        var called: Called?
    }

    private struct Contents {
        var stats = Stats()
        var fault: Fault?
        /// How many more requests the fault is for; nil means all.
        var times: Int?
    }

    private let contents: Mutex<Contents>

    init(fault: Fault?) { contents = Mutex(Contents(fault: fault)) }

    var stats: Stats { contents.withLock { $0.stats } }
    var fault: Fault? { contents.withLock { $0.fault } }

    func update(_ change: (inout Stats) -> Void) { contents.withLock { change(&$0.stats) } }

    /// Requests in flight stay counted, because they will still end.
    func reset() {
        contents.withLock {
            let inFlight = $0.stats.inFlight
            $0.stats = Stats()
            $0.stats.inFlight = inFlight
        }
    }

    func setFault(_ fault: Fault?, times: Int?) {
        contents.withLock {
            $0.fault = fault
            $0.times = times
        }
    }

    /// The fault for the request that arrives now.
    func takeFault() -> Fault? {
        contents.withLock {
            guard let fault = $0.fault else { return nil }
            guard let times = $0.times else { return fault }
            $0.times = times - 1
            if times <= 1 { $0.fault = nil }
            return times > 0 ? fault : nil
        }
    }
}
