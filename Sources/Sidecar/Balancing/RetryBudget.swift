import WeirPolicy

/// Whether one more retry may be made: a share of the requests of the last seconds, and a few a
/// second for callers that send little (Finagle's and Linkerd's retry budget). When an agent fails
/// as a whole, retries then add a fifth to its load and do not multiply it. Pure: time comes in.
///
/// Requests and retries are counted with the memory of `EndpointLoad`, halved every five seconds.
package struct RetryBudget {
    /// What the memory holds of one event a second that goes on for ever: half-life / ln 2.
    private static let memorySeconds = 7.2

    private var settings: AgentPolicy.Retry
    private var requests = 0.0
    private var retries = 0.0
    private var updatedNanoseconds: UInt64 = 0

    package init(_ settings: AgentPolicy.Retry) { self.settings = settings }

    package mutating func change(_ settings: AgentPolicy.Retry) { self.settings = settings }

    package mutating func requestStarted(now: UInt64) {
        fade(now)
        requests += 1
    }

    /// True once for each retry that may be made.
    package mutating func takeRetry(now: UInt64) -> Bool {
        fade(now)
        let allowed =
            requests * Double(settings.budgetPercent) / 100
            + Double(settings.budgetPerSecond) * Self.memorySeconds
        guard retries + 1 <= allowed else { return false }
        retries += 1
        return true
    }

    private mutating func fade(_ now: UInt64) {
        let keep = EndpointLoad.share(left: now &- min(updatedNanoseconds, now))
        requests *= keep
        retries *= keep
        updatedNanoseconds = max(now, updatedNanoseconds)
    }
}
