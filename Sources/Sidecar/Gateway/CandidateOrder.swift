import WeirCore
import WeirPolicy

/// Which agents a step may go to, and in which order. Pure.
package struct CandidateOrder: Hashable, Sendable {
    /// Why another agent goes first than the plan says.
    package struct Downgrade: Hashable, Sendable {
        package let from: String
        /// `budget_above_80_percent`.
        package let reason: String
    }

    package let names: [String]
    package let downgrade: Downgrade?

    /// The agents that the plan names for the tier, the caller's choice first, and behind each the
    /// chain of its fallbacks as far as the tier allows it. A name comes once, so chains end.
    package static func names(
        of step: RequestTypePolicy.Step, tier: TierPolicy, policy: Policy, chosen: String?
    ) -> [String] {
        var planned = step.agentsByTier[tier.name] ?? []
        if let chosen, let index = planned.firstIndex(of: chosen) {
            planned.insert(planned.remove(at: index), at: 0)
        }
        return chain(planned, tier: tier, policy: policy)
    }

    /// These agents, and behind them the chain of their fallbacks as far as the tier allows it.
    package static func chain(
        _ planned: [String], tier: TierPolicy, policy: Policy
    ) -> [String] {
        var names = planned
        var position = 0
        while position < names.count {
            for next in policy.agents[names[position]]?.fallbacks ?? []
            where !names.contains(next) && tier.agents.contains(next) {
                names.append(next)
            }
            position += 1
        }
        return names.filter { policy.agents[$0] != nil }
    }

    /// The taper (DESIGN §5): from the first threshold the cheapest agent goes first, from the
    /// second it goes alone. By worst case, which is what the budget has to bear.
    package init(
        _ priced: [(name: String, worstCase: NanoUSD)], tier: TierPolicy, spentPercent: Int?
    ) {
        let planned = priced.map(\.name)
        // The taper takes agents away, which a tier that only observes does not.
        let spent = tier.observe ? 0 : spentPercent ?? 0
        guard spent >= tier.downgradePreferPercent, let first = planned.first else {
            names = planned
            downgrade = nil
            return
        }
        let isStrict = spent >= tier.downgradeRequirePercent
        // Stable: among equals the plan decides.
        let cheapestFirst = priced.enumerated()
            .sorted { ($0.element.worstCase, $0.offset) < ($1.element.worstCase, $1.offset) }
            .map(\.element.name)
        names = isStrict ? Array(cheapestFirst.prefix(1)) : cheapestFirst
        let threshold = isStrict ? tier.downgradeRequirePercent : tier.downgradePreferPercent
        downgrade =
            names.first == first
            ? nil : Downgrade(from: first, reason: "budget_above_\(threshold)_percent")
    }
}
