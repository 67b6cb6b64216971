import SidecarCore
import Synchronization
import WeirCore
import WeirLedger

/// An account of which so much is spent that its tier warns.
package struct BudgetWarning: Hashable, Sendable {
    package var account: AccountKey
    /// Above 100 where the tier only observes, or where the limit was lowered.
    package var spentPercent: Int

    /// "user/month 83%". Whose account it is the caller knows, but for tags: a request may have
    /// several.
    var text: String {
        let owner = account.scope == .tag ? "tag:\(account.id)" : account.scope.rawValue
        return "\(owner)/\(account.period.kind.rawValue) \(spentPercent)%"
    }
}

extension BudgetPosition {
    /// Spent money counts, money set aside does not; everything of a limit of nothing is spent.
    var spentPercent: Int {
        guard limit > .zero else { return 100 }
        let spent = Int128(max(0, (consumedByOthers + ownConsumed).rawValue))
        return Int(clamping: spent * 100 / Int128(limit.rawValue))
    }
}

/// Which accounts were said to have reached which share. Pure. An account that falls below a share,
/// because its limit was raised, may reach it again.
struct BudgetCrossings {
    private var reached: [AccountKey: Int] = [:]
    private let accountsMax: Int

    init(accountsMax: Int) { self.accountsMax = accountsMax }

    /// The share that the account has reached since it was looked at last, the highest of several.
    mutating func look(at account: AccountKey, spentPercent: Int, shares: [Int]) -> Int? {
        guard let share = shares.last(where: { $0 <= spentPercent }) else {
            reached[account] = nil
            return nil
        }
        let before = reached[account]
        if before == nil, reached.count >= accountsMax { makeRoom(for: account) }
        reached[account] = share
        return before.map { $0 < share } ?? true ? share : nil
    }

    /// Earlier months first; if there are none, an account may be told of twice.
    private mutating func makeRoom(for account: AccountKey) {
        reached = reached.filter { $0.key.period == account.period }
        if reached.count >= accountsMax { _ = reached.popFirst() }
    }
}

/// Tells operators when an account reaches a share at which its tier warns: once at each gateway
/// that serves the user, in the log and in `weir_budget_warnings_total`.
package final class BudgetWatch: Sendable {
    private let crossings = Mutex(BudgetCrossings(accountsMax: GatewayLimits.warnedAccountsMax))
    private let registry: Metrics
    private let family: Metrics.Family
    private let log: Log

    package init(_ registry: Metrics, _ log: Log) {
        self.registry = registry
        self.log = log
        family = registry.family(
            .counter, "weir_budget_warnings_total",
            help: "Accounts that reached a share of their limit at which their tier warns.",
            labels: ["scope", "tier", "percent"])
    }

    func look(at account: AccountKey, spentPercent: Int, shares: [Int], tier: String) {
        let reached = crossings.withLock {
            $0.look(at: account, spentPercent: spentPercent, shares: shares)
        }
        guard let reached else { return }
        registry.add(registry.series(family, [account.scope.rawValue, tier, String(reached)]))
        log.warning(
            "an account has reached a share of its limit", ("account", account.description),
            ("percent", String(reached)), ("spent_percent", String(spentPercent)))
    }
}
