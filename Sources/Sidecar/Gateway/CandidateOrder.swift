import WeirCore
import WeirPolicy

/// Which agents a step may go to, and in which order. Pure. Three have a say, each within what the
/// one below leaves: the plan orders its agents for the tier, the caller wishes, and the budget
/// tapers. Whenever a cheaper agent goes first than the plan says, the answer says why.
package struct CandidateOrder: Hashable, Sendable {
    /// Why another agent goes first than the plan says.
    package struct Downgrade: Hashable, Sendable {
        package let from: String
        /// `requested`, `preferred`, `optimize_cost`, `optimize_latency` or
        /// `budget_above_80_percent`.
        package let reason: String
    }

    /// A step of one request as its caller wants it: the request's own options go before the
    /// preferences that are stored with the account.
    package struct Wish: Hashable, Sendable {
        package var requested: String?
        package var preferred: String?
        package var optimize: Preferences.Goal?
        /// What this gateway measured, in nanoseconds, by agent.
        package var latencies: [String: UInt64] = [:]

        package init() {}
    }

    package let names: [String]
    package let downgrade: Downgrade?

    /// The agents that the plan names for the tier, and behind them their fallbacks.
    package static func names(
        of step: RequestTypePolicy.Step, tier: TierPolicy, policy: Policy,
        excluded: [String] = []
    ) -> [String] {
        policy.withFallbacks(step.agentsByTier[tier.name] ?? [], tier: tier)
            .filter { !excluded.contains($0) }
    }

    /// `priced`: in the plan's order, by worst case, which is what a budget has to bear.
    package init(
        _ priced: [(name: String, worstCase: NanoUSD)], tier: TierPolicy, spentPercent: Int?,
        wish: Wish = Wish()
    ) {
        let prices = Dictionary(priced.map { ($0.name, $0.worstCase) }) { first, _ in first }
        let planned = priced.map(\.name)
        let (wished, reason) = Self.apply(wish, to: planned, prices)
        // The taper takes agents away, which a tier that only observes does not.
        let spent = tier.observe ? 0 : spentPercent ?? 0
        guard let first = wished.first, let plannedFirst = planned.first else {
            names = []
            downgrade = nil
            return
        }
        var order = wished
        if spent >= tier.downgradePreferPercent {
            order = Self.sort(planned) { prices[$0] ?? .zero }
        }
        if spent >= tier.downgradeRequirePercent { order = Array(order.prefix(1)) }
        names = order
        if order.first != first {
            let isStrict = spent >= tier.downgradeRequirePercent
            let threshold = isStrict ? tier.downgradeRequirePercent : tier.downgradePreferPercent
            downgrade = Downgrade(from: first, reason: "budget_above_\(threshold)_percent")
        } else if let reason, prices[first] ?? .zero < prices[plannedFirst] ?? .zero {
            // A wish for a dearer agent that the plan allows is none.
            downgrade = Downgrade(from: plannedFirst, reason: reason)
        } else {
            downgrade = nil
        }
    }

    /// The order as the caller wants it, and what put another agent first.
    private static func apply(
        _ wish: Wish, to planned: [String], _ prices: [String: NanoUSD]
    ) -> (names: [String], reason: String?) {
        var names = planned
        var reason: String?
        switch wish.optimize {
        case .cost: (names, reason) = (sort(names) { prices[$0] ?? .zero }, "optimize_cost")
        case .latency:
            // Who was not measured yet comes behind who was.
            (names, reason) = (sort(names) { wish.latencies[$0] ?? .max }, "optimize_latency")
        // The plan's own order is that of quality.
        case .quality, nil: break
        }
        for (name, why) in [(wish.preferred, "preferred"), (wish.requested, "requested")] {
            guard let name, let index = names.firstIndex(of: name) else { continue }
            names.insert(names.remove(at: index), at: 0)
            reason = why
        }
        return (names, names.first == planned.first ? nil : reason)
    }

    /// Stable: among equals the plan decides.
    private static func sort<Key: Comparable>(
        _ names: [String], by key: (String) -> Key
    ) -> [String] {
        names.enumerated().map { (offset: $0.offset, name: $0.element, key: key($0.element)) }
            .sorted { ($0.key, $0.offset) < ($1.key, $1.offset) }
            .map(\.name)
    }
}
