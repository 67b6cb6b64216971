import WeirCore
import WeirLedger
import WeirMeshProtocol

/// Leases that others need, sent to their holder's watch.
package struct LeaseRecall: Hashable, Sendable, Codable {
    package var holder: Incarnation
    package var leases: [LeaseID]
}

/// What people ask of accounts, and what a contended account asks of its holders.
extension LedgerStore {
    /// Accounts as the store sees them; `nil` for one without a limit. Nobody is the asking holder
    /// here, so `consumedByOthers` is all that is consumed.
    package func states(of accounts: [AccountKey]) async throws -> [AccountState?] {
        let replies = try await redis.readAll(
            accounts.flatMap { account in
                [
                    ["HMGET", StoreKeys.limit(account), "limit", "admin", "user"],
                    ["HMGET", StoreKeys.account(account), "consumed", "held"],
                ]
            })
        return accounts.enumerated().map { position, account in
            guard let limits = replies[position * 2].array, limits.count == 3,
                let amounts = replies[position * 2 + 1].array, amounts.count == 2,
                let byPolicy = limits[0].integer
            else { return nil }
            let limit = min(limits[1].integer ?? byPolicy, limits[2].integer ?? .max)
            return LedgerCalls.accountState(
                account, limit: limit, consumed: amounts[0].integer ?? 0, own: 0,
                held: amounts[1].integer ?? 0)
        }
    }
}
