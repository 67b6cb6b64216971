import Synchronization
import WeirCore
import WeirPolicy

/// How much the gateway takes in: of everybody, and of each user by the tier. Requests that call
/// agents pass here; those that only look something up do not.
package final class WorkloadAdmission: Sendable {
    private let max: Int
    private let inHand = Mutex(0)
    private let perUser = Mutex<[String: Int]>([:])
    private let rates = UserRates()

    /// - Parameter max: requests at once, of all users.
    package init(max: Int) { self.max = max }

    package var requestsInHand: Int { inHand.withLock { $0 } }

    /// Takes a place of this gateway; each success is paired with one `leave()`.
    func enter() throws(GatewayRefusal) {
        let entered = inHand.withLock { count in
            guard count < max else { return false }
            count += 1
            return true
        }
        guard entered else {
            throw GatewayRefusal(
                .overloaded, "This gateway has as many requests in hand as it takes.",
                retryAfterSeconds: 1)
        }
    }

    func leave() { inHand.withLock { $0 -= 1 } }

    /// Takes a request of the user's rate and a place among the user's own requests at once; each
    /// success is paired with one `leave(_:)`.
    func enter(_ caller: Caller, nowNanoseconds: UInt64) throws(GatewayRefusal) {
        try rates.take(caller, nowNanoseconds: nowNanoseconds)
        guard let max = caller.tier.concurrentRequestsMax else { return }
        let entered = perUser.withLock { counts in
            guard counts[caller.user, default: 0] < max else { return false }
            counts[caller.user, default: 0] += 1
            return true
        }
        guard entered else {
            throw GatewayRefusal(
                .concurrency, "Tier \(caller.tier.name) allows \(max) requests at once.",
                retryAfterSeconds: 1)
        }
    }

    func leave(_ caller: Caller) {
        guard caller.tier.concurrentRequestsMax != nil else { return }
        perUser.withLock { counts in
            // A count of nobody would keep the name for ever.
            counts[caller.user] = counts[caller.user].flatMap { $0 > 1 ? $0 - 1 : nil }
        }
    }
}
