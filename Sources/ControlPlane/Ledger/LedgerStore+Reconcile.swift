import WeirCore
import WeirLedger
import WeirMeshProtocol

/// An account as the ledger has it.
package struct AccountBooks: Hashable, Sendable {
    package var account: AccountKey
    package var consumed: NanoUSD
    /// At holders: leased, set aside for calls under way, or not given back yet.
    package var held: NanoUSD
    /// Of `consumed`: what lost holders held, counted as spent by an operator.
    package var writtenOff: NanoUSD
    /// Of `consumed`: what was taken from the archive after the store had lost it.
    package var restored: NanoUSD

    package init(
        account: AccountKey, consumed: NanoUSD, held: NanoUSD = .zero,
        writtenOff: NanoUSD = .zero, restored: NanoUSD = .zero
    ) {
        self.account = account
        self.consumed = consumed
        self.held = held
        self.writtenOff = writtenOff
        self.restored = restored
    }
}

/// A lease that an account remembers: closed ones are forgotten when their holder is done with all
/// of its earlier ones.
package struct LeaseBooks: Hashable, Sendable {
    package var lease: LeaseID
    package var consumed: NanoUSD
}

/// What the ledger knows, for comparing it with the records.
extension LedgerStore {
    package func books(of accounts: [AccountKey]) async throws -> [AccountBooks] {
        var books: [AccountBooks] = []
        for start in stride(from: 0, to: accounts.count, by: StoreLimits.redisPipelineMax) {
            let batch = accounts[start..<min(accounts.count, start + StoreLimits.redisPipelineMax)]
            let replies = try await redis.readAll(
                batch.map {
                    [
                        "HMGET", StoreKeys.account($0), "consumed", "held", "written_off",
                        "restored",
                    ]
                })
            for (account, reply) in zip(batch, replies) {
                let amounts = (reply.array ?? []).map { NanoUSD($0.integer ?? 0) }
                guard amounts.count == 4 else { throw RedisError.unexpectedReply("HMGET") }
                books.append(
                    AccountBooks(
                        account: account, consumed: amounts[0], held: amounts[1],
                        writtenOff: amounts[2], restored: amounts[3]))
            }
        }
        return books
    }

    /// Every account of money of a period, in the order of their names.
    package func accounts(in period: Period) async throws -> [AccountKey] {
        try await redis.keys(
            matching: StoreKeys.accounts(.usd, in: period), max: StoreLimits.reconcileAccountsMax
        ).sorted().compactMap { StoreKeys.account(ofKey: $0, in: period) }
    }

    /// The leases that an account remembers, and what all of its holders have consumed by its own
    /// second count.
    package func leases(
        of account: AccountKey
    ) async throws -> (leases: [LeaseBooks], consumedByHolders: NanoUSD) {
        let fields = try await redis.read("HGETALL", StoreKeys.holders(account)).fields
        var incarnations: Set<Incarnation> = []
        var consumed = NanoUSD.zero
        for (name, text) in fields {
            let parts = name.split(separator: ":")
            guard parts.count == 2, let number = Int64(parts[0]) else { continue }
            incarnations.insert(Incarnation(number))
            if parts[1] == "consumed" { consumed += NanoUSD(Int64(text) ?? 0) }
        }
        let newest = Array(
            incarnations.sorted().reversed().prefix(StoreLimits.reconcileHoldersMax))
        let replies = try await redis.readAll(
            newest.map { ["HGETALL", StoreKeys.leases(account, $0)] })
        var leases: [LeaseBooks] = []
        for (incarnation, reply) in zip(newest, replies) {
            for (number, row) in reply.fields {
                // "holder granted consumed released", as the scripts pack it.
                let numbers = row.split(separator: " ").compactMap { Int64($0) }
                guard let number = Int64(number), numbers.count == 4 else { continue }
                leases.append(
                    LeaseBooks(
                        lease: LeaseID(incarnation: incarnation, number: number),
                        consumed: NanoUSD(numbers[2])))
            }
        }
        return (leases.sorted { $0.lease < $1.lease }, consumed)
    }
}
