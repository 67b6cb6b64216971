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

    package enum WriteOff: Sendable {
        /// How much of each account counts as spent from now on.
        case done([(AccountKey, NanoUSD)])
        /// Nobody of this number has joined.
        case unknown
        /// It was heard lately, and nobody adopted it: it may be spending.
        case alive
    }

    /// Counts everything that a lost incarnation still holds as spent, and delegations that were
    /// addressed to it, once their parents ask; the caller audits it. From then on it is granted
    /// nothing, and nobody adopts it. Repeating it finds what a grant under way left behind.
    package func writeOff(_ incarnation: Incarnation) async throws -> WriteOff {
        let reply = try await redis.run(
            MeshScripts.writeOff,
            keys: [StoreKeys.incarnation(incarnation), StoreKeys.live],
            arguments: [
                incarnation.description, String(StoreLimits.endpointFreshMilliseconds),
            ])
        switch reply.text {
        case "ok": break
        case "unknown": return .unknown
        case "alive": return .alive
        default: throw RedisError.unexpectedReply("write_off")
        }
        return .done(try await spend(whatIsHeldBy: incarnation))
    }

    private func spend(
        whatIsHeldBy incarnation: Incarnation
    ) async throws -> [(AccountKey, NanoUSD)] {
        let entries = try await redis.read("HGETALL", StoreKeys.accounts(incarnation)).fields
        let accounts = entries.compactMap { name, token in
            AccountKey(name).map { (key: $0, name: name, token: token) }
        }.sorted { $0.name < $1.name }
        let (replies, origins) = try await redis.runAllNoting(
            LedgerScripts.writeOff,
            accounts.map { (StoreKeys.ledger($0.key, incarnation), [incarnation.description]) })
        try await mustBeKept(origins)
        _ = try await redis.runAll(
            MeshScripts.unindex,
            accounts.map { ([StoreKeys.accounts(incarnation)], [$0.name, $0.token]) })
        return zip(accounts, replies).map { ($0.key, NanoUSD($1.integer ?? 0)) }
    }
}
