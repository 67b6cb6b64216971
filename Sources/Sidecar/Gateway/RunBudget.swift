import Synchronization
import WeirCore

/// What one request may spend at most (`max_cost_usd`), over all its steps, fallbacks included.
/// Like the accounts it counts worst cases while calls are open, so steps that run at once cannot
/// pass it together.
final class RunBudget: Sendable {
    private let limit: NanoUSD?
    private let committed = Mutex(NanoUSD.zero)

    init(limit: NanoUSD?) { self.limit = limit }

    func take(_ worstCase: NanoUSD) -> Bool {
        committed.withLock { committed in
            if let limit, committed + worstCase > limit { return false }
            committed += worstCase
            return true
        }
    }

    /// As much of an amount as is left.
    func takeUpTo(_ amount: NanoUSD) -> NanoUSD {
        committed.withLock { committed in
            let taken = limit.map { min(amount, max(.zero, $0 - committed)) } ?? amount
            committed += taken
            return taken
        }
    }

    func settle(_ worstCase: NanoUSD, cost: NanoUSD) {
        committed.withLock { $0 = $0 - worstCase + cost }
    }
}
