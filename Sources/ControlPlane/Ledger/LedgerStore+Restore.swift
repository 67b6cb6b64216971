import WeirCore
import WeirLedger

/// After Redis lost its data: the archive knows what was recorded, so no budget of the present
/// month begins anew. What was spent and not yet recorded is missing still, and is shown when the
/// ledger is reconciled; daily requests begin anew.
extension LedgerStore {
    /// Repeating it changes nothing: an account is only raised to what the archive knows.
    func restore(from archive: Archive) async throws {
        let month = Period(.month, at: try await redis.time())
        for scope in [AccountKey.Scope.user, .tenant, .tier, .tag] {
            var last = ""
            while true {
                let page = try await archive.sums(
                    of: scope, period: month, after: last, limit: StoreLimits.restorePage)
                _ = try await redis.runAll(
                    LedgerScripts.restore, page.map { call(scope, month, $0.id, $0.cost) })
                guard page.count == StoreLimits.restorePage, let next = page.last else { break }
                last = next.id
            }
        }
        try await redis.command(["HSET", StoreKeys.epoch, "restored", "1"], isIdempotent: true)
    }

    private func call(
        _ scope: AccountKey.Scope, _ month: Period, _ id: String, _ cost: NanoUSD
    ) -> LedgerCalls.Call {
        let account = AccountKey(unit: .usd, scope: scope, period: month, id: id)
        let keepUntil = (month.end?.milliseconds ?? 0) + StoreLimits.accountKeepMilliseconds
        let amount = min(cost.rawValue, LedgerLimits.amountMax)
        return ([StoreKeys.account(account)], [String(amount), String(keepUntil)])
    }
}
