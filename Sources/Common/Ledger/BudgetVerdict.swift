import WeirCore

/// 402 or wait (rule 9): a user is told that the budget is exhausted only if no settlement, release
/// or recall anywhere could make room for the request. Everything else is contention, which passes.
package struct BudgetPosition: Hashable, Sendable {
    package var limit: NanoUSD
    package var consumedByOthers: NanoUSD
    package var ownConsumed: NanoUSD
    /// What this holder's opened attempts and children cost at least. A fixed price is due once
    /// bytes went upstream, so for those it is the worst case. What other holders have open is not
    /// known here and counts as nothing: that errs towards waiting.
    package var leastOutstanding: NanoUSD

    package init(
        limit: NanoUSD, consumedByOthers: NanoUSD, ownConsumed: NanoUSD, leastOutstanding: NanoUSD
    ) {
        self.limit = limit
        self.consumedByOthers = consumedByOthers
        self.ownConsumed = ownConsumed
        self.leastOutstanding = leastOutstanding
    }

    package func isExhausted(for worstCase: NanoUSD) -> Bool {
        consumedByOthers + ownConsumed + leastOutstanding + worstCase > limit
    }

    /// Spent above the limit: while a policy only observed, or above a limit that was lowered.
    package var beyond: NanoUSD { max(.zero, consumedByOthers + ownConsumed - limit) }

    /// What users are told is left: spent money counts, money set aside does not.
    package var remaining: NanoUSD {
        max(.zero, limit - consumedByOthers - ownConsumed)
    }
}
