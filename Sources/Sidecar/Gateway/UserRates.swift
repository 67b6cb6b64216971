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
    /// - Returns: what would have refused it, where the tier only observes.
    func take(_ caller: Caller, nowNanoseconds now: UInt64) throws(GatewayRefusal) -> Reason? {
        guard let rate = caller.tier.rateLimit else { return nil }
        let limit = GCRA(rate)
        let decision = rates.withLock { $0.take(caller.user, limit, nowNanoseconds: now) }
        switch decision {
        case .decided(.admit): return nil
        case .decided(.refuse(let wait)):
            if caller.tier.observe { return .rateLimited }
            throw refusal(caller.tier, limit, wait)
        case .tableFull:
            if caller.tier.observe { return .overloaded }
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
