import WeirCore
import WeirLedger
import WeirMeshProtocol

/// Σ records by what paid for them.
package struct PayerSum: Hashable, Sendable {
    package var payer: ChildKey
    package var cost: NanoUSD
    package var records: Int64
}

extension Archive {
    /// Σ records by (parent lease, child), in their order, after a given one: pages for
    /// reconciling.
    package func sumsByPayer(
        after: ChildKey?, limit: Int
    ) async throws(ArchiveError) -> [PayerSum] {
        let start =
            after ?? ChildKey(lease: LeaseID(incarnation: Incarnation(-1), number: 0), child: 0)
        let count = Int64(min(max(1, limit), StoreLimits.reconcileRowsMax))
        let rows = try await read { database throws(ArchiveError) in
            try database.query(
                ArchiveSQL.byPayer,
                [
                    .integer(start.lease.incarnation.rawValue), .integer(start.lease.number),
                    .integer(start.child), .integer(count),
                ])
        }
        return rows.compactMap { row in
            let numbers = row.compactMap(\.integer)
            guard numbers.count == 5 else { return nil }
            let lease = LeaseID(incarnation: Incarnation(numbers[0]), number: numbers[1])
            return PayerSum(
                payer: ChildKey(lease: lease, child: numbers[2]), cost: NanoUSD(numbers[3]),
                records: numbers[4])
        }
    }

    /// Σ records that one lease paid, its children's included.
    package func sum(paidBy lease: LeaseID) async throws(ArchiveError) -> NanoUSD {
        let rows = try await read { database throws(ArchiveError) in
            try database.query(
                ArchiveSQL.byLease,
                [.integer(lease.incarnation.rawValue), .integer(lease.number)])
        }
        return NanoUSD(rows.first?.first?.integer ?? 0)
    }

    /// Σ records of each user, tenant or tier within a period, after a given name. A record
    /// belongs to the period in which its attempt began; an account to that of its lease, so the
    /// two may differ by what ran over midnight.
    package func sums(
        of scope: AccountKey.Scope, period: Period, after name: String = "", limit: Int
    ) async throws(ArchiveError) -> [(id: String, cost: NanoUSD)] {
        let column: String
        switch scope {
        case .user: column = "subject"
        case .tenant: column = "tenant"
        case .tier: column = "tier"
        case .run, .mesh, .key: return []
        }
        let start = period.kind == .forever ? 0 : UnixTime(period.start).milliseconds
        let end = period.end?.milliseconds ?? .max
        let count = Int64(min(max(1, limit), StoreLimits.reconcileRowsMax))
        let rows = try await read { database throws(ArchiveError) in
            try database.query(
                ArchiveSQL.byAccount(column),
                [.integer(start), .integer(end), .text(name), .integer(count)])
        }
        return rows.compactMap { row in
            guard row.count == 2, let id = row[0].text, let cost = row[1].integer else {
                return nil
            }
            return (id, NanoUSD(cost))
        }
    }
}
