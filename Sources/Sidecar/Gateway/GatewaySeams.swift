import Synchronization
import WeirCore
import WeirLedger

// Where the gateway meets what does: the ledger, the wire and the clock. The rules on this side are
// tested against plain stand-ins of these three.

/// What is left of a caller's money and requests, as far as this gateway knows.
package struct Balance: Hashable, Sendable {
    /// Of the account that is nearest to its end.
    package var limit: NanoUSD
    package var remaining: NanoUSD
    /// Spent above the limit.
    package var beyond = NanoUSD.zero
    package var resetsAt: UnixTime?
    /// `nil` where requests are unlimited.
    package var requestsLimit: Int64?
    package var requestsRemaining: Int64?
    package var requestsResetAt: UnixTime?
    /// In the order of the accounts.
    package var warnings: [BudgetWarning] = []

    package init(limit: NanoUSD, remaining: NanoUSD, resetsAt: UnixTime?) {
        self.limit = limit
        self.remaining = remaining
        self.resetsAt = resetsAt
    }

    /// Spent share of the limit; everything of a limit of nothing is spent.
    package var spentPercent: Int {
        guard limit.rawValue > 0 else { return 100 }
        let spent = Int128(max(0, (limit - remaining).rawValue))
        return Int(min(100, spent * 100 / Int128(limit.rawValue)))
    }
}

/// Why the ledger gives nothing: `budget_exhausted`, `budget_contended`, `quota_exhausted`,
/// `rate_limited`, `control_plane_lost` or `overloaded` (the journal is full).
package struct LedgerRefusal: Error, Hashable, Sendable {
    package var reason: Reason
    package var account: AccountKey?
    package var resetsAt: UnixTime?
    /// The account's, where its rate is the reason, and what was asked of it.
    package var limit: NanoUSD?
    package var needed: NanoUSD?

    package init(
        reason: Reason, account: AccountKey?, resetsAt: UnixTime? = nil, limit: NanoUSD? = nil,
        needed: NanoUSD? = nil
    ) {
        self.reason = reason
        self.account = account
        self.resetsAt = resetsAt
        self.limit = limit
        self.needed = needed
    }
}

/// A call of an agent, as the caller's accounts pay for it.
package struct PaidCall: Hashable, Sendable {
    package let key: ChildKey
    /// Its tokens, where the tier counts them.
    let tokens: Reservation?

    package init(key: ChildKey, tokens: Reservation? = nil) {
        self.key = key
        self.tokens = tokens
    }
}

/// What a call may take at most.
package struct CallBound: Hashable, Sendable {
    package var amount: NanoUSD
    /// Due once bytes went upstream, whatever comes back.
    package var least: NanoUSD
    /// In and out; 0 where the price of the agent counts none.
    package var tokens: Int64

    package init(amount: NanoUSD, least: NanoUSD, tokens: Int64 = 0) {
        self.amount = amount
        self.least = least
        self.tokens = tokens
    }
}

/// The accounts that one caller's request is charged to.
package protocol CallerLedger: Sendable {
    /// Counts one request of the day and of the minute. Called once for each request of a user, at
    /// the first hop.
    func takeRequest() async throws(LedgerRefusal)
    /// Sets an amount aside on every account, and tokens where they are counted, and journals it as
    /// an open child, all before it returns. Waits a bounded time where some is about to come back.
    /// - Parameter audience: the life of the sidecar that is called.
    func delegate(
        _ bound: CallBound, to audience: Incarnation
    ) async throws(LedgerRefusal) -> PaidCall
    /// What a call cost, for good. A second final of the same call changes nothing.
    /// - Parameter tokens: `nil` where nobody can tell: then it used all that it might.
    func callFinal(_ call: PaidCall, consumed: NanoUSD, tokens: Int64?)
    /// The call is over and did not say what it cost: its final comes by the control plane, and of
    /// its tokens none does.
    func callLost(_ call: PaidCall)
    var balance: Balance? { get }
    /// What would have been refused, where the caller's tier only observes.
    var observed: ObservedRefusals { get }
}

/// Gathers what would have refused one request, each reason once, in the order of its discovery.
package final class ObservedRefusals: Sendable {
    private let list = Mutex<[Reason]>([])

    package init() {}

    package var reasons: [Reason] { list.withLock { $0 } }
    /// As a delegation carries it.
    var first: Reason { list.withLock { $0.first ?? .admitted } }

    func note(_ reason: Reason?) {
        guard let reason else { return }
        list.withLock { if !$0.contains(reason) { $0.append(reason) } }
    }
}

/// One request to an agent's sidecar.
package struct AgentCall: Hashable, Sendable {
    package var agent: String
    package var method: String
    package var path: String
    /// Names in lower case.
    package var headers: [Header]
    package var body: [UInt8]
    /// On the clock of `GatewayClock.nowNanoseconds`.
    package var deadlineNanoseconds: UInt64

    package struct Header: Hashable, Sendable {
        package var name: String
        package var value: String
    }
}

/// An answer whose body comes piece by piece. What is not read is not taken from the connection
/// either, up to a small buffer. Letting go of it before its end cancels the call.
package protocol AgentAnswerStream: Sendable {
    var status: Int { get }
    /// The first value; `name` in lower case.
    func field(_ name: String) -> String?
    /// The next bytes; `nil` at the end of the body. Ends early when the task is cancelled.
    func next() async throws(AgentCallError) -> [UInt8]?
    /// The first value, once the body has ended; `name` in lower case.
    func trailer(_ name: String) -> String?
    /// Does nothing behind the end.
    func cancel()
}

/// Why there is no answer. What matters for money is whether a byte of the request was written:
/// only if none was can the sidecar not have accepted the delegation.
package struct AgentCallError: Error, Hashable, Sendable {
    package var reason: Reason
    package var wasSent: Bool

    package init(reason: Reason, wasSent: Bool) {
        self.reason = reason
        self.wasSent = wasSent
    }
}

/// Carries a call over the loop's connections. Ends early when its task is cancelled.
package protocol AgentTransport: Sendable {
    /// Returns when the head of the answer is there.
    func open(_ call: AgentCall, to endpoint: AgentEndpoint) async throws(AgentCallError)
        -> any AgentAnswerStream
}

package protocol GatewayClock: Sendable {
    /// Monotonic.
    var nowNanoseconds: UInt64 { get }
    var now: UnixTime { get }
    /// Throws when the task is cancelled.
    func sleep(untilNanoseconds: UInt64) async throws
}
