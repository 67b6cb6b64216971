import SidecarCore
import WeirCore
import WeirPolicy

/// Says when other prices of a policy come into force. On the control loop.
final class PriceWatch {
    private let control: EventLoop
    private let changed: () -> Void
    private var policy = Policy()
    private var pricedAt = UnixTime(milliseconds: 0)
    private let slackMilliseconds: Int64

    /// - Parameter changed: has the policy priced again.
    init(
        _ control: EventLoop, slackMilliseconds: Int64 = 0, changed: @escaping () -> Void
    ) {
        self.control = control
        self.slackMilliseconds = slackMilliseconds
        self.changed = changed
    }

    /// The policy with the prices of this moment.
    func priced(_ policy: Policy) -> Policy {
        self.policy = policy
        pricedAt = WallClock.now
        return policy.priced(at: pricedAt, slackMilliseconds: slackMilliseconds)
    }

    /// Once. Looks at least each second, because clocks are set.
    func start() {
        let now = WallClock.now
        let isSame = policy.hasSamePrices(
            at: pricedAt, and: now, slackMilliseconds: slackMilliseconds)
        if !isSame { changed() }
        let wait = policy.nextPriceChange(after: now).map { $0.milliseconds - now.milliseconds }
        let milliseconds = UInt64(clamping: min(max(1, wait ?? 1_000), 1_000))
        control.schedule(afterNanoseconds: milliseconds * 1_000_000) { [weak self] in
            self?.start()
        }
    }
}
