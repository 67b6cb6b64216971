import SidecarCore
import Synchronization
import WeirCore
import WeirPolicy

/// The rate of each user by the tier's `rateLimit`, over all workers of this process. Its scope is
/// the instance: a user who is spread over several gateways has the rate at each of them. Daily
/// requests and money, which must hold for all of them together, are the ledger's.
final class UserRates: Sendable {
    private let rates: Mutex<SubjectRates>

    init(capacity: Int = GatewayLimits.ratedUsersMax) {
        rates = Mutex(SubjectRates(capacity: capacity))
    }

    /// Before anything is counted or paid for, so that a refused request costs its user nothing.
    /// A tier that only observes is never refused.
    func take(_ caller: Caller, nowNanoseconds now: UInt64) throws(GatewayRefusal) {
        guard let rate = caller.tier.rateLimit else { return }
        let limit = GCRA(rate)
        let decision = rates.withLock { $0.take(caller.user, limit, nowNanoseconds: now) }
        guard !caller.tier.observe else { return }
        switch decision {
        case .decided(.admit): return
        case .decided(.refuse(let wait)): throw refusal(caller.tier, limit, wait)
        case .tableFull:
            throw GatewayRefusal(
                .overloaded, "This gateway counts as many users as it can.", retryAfterSeconds: 1)
        }
    }

    private func refusal(
        _ tier: TierPolicy, _ limit: GCRA, _ wait: UInt64
    ) -> GatewayRefusal {
        // In whole seconds, rounded up: coming back earlier would be in vain.
        let seconds = wait / 1_000_000_000 + (wait % 1_000_000_000 > 0 ? 1 : 0)
        var refusal = GatewayRefusal(
            .rateLimited, "You are above the rate of tier \(tier.name).",
            retryAfterSeconds: Int64(clamping: max(seconds, 1)),
            members: ["scope": "instance"])
        let fields = RateLimitFields(name: "tier", limit: limit, remaining: 0, reset: wait)
        refusal.fields = [
            GatewayField("ratelimit-policy", fields.policy),
            GatewayField("ratelimit", fields.state),
        ]
        return refusal
    }
}
