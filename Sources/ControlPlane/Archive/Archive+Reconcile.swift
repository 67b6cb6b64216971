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
    /// Σ records of each user, tenant, tier or tag within a period, after a given name. A record
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
        case .tag: column = "tag"
        case .run, .mesh, .key, .standby: return []
        }
        let start = period.kind == .forever ? 0 : period.beginning.milliseconds
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

/// Σ records of one account.
package struct RecordedSum: Hashable, Sendable {
    package var id: String
    package var cost: NanoUSD
    package var records: Int64
}

/// Which accounts of a scope are meant.
package enum AccountSelection: Hashable, Sendable {
    /// In their order, after a given id.
    case after(String)
    case these([String])
}

extension Archive {
    /// Σ records of accounts as the ledger counts them: a record belongs to the period of the lease
    /// that paid, which is the one in which the lease's first record began. What ran over midnight
    /// is so on the side on which the account has it; only a lease whose very first attempt was
    /// reserved before and began after midnight is not.
    ///
    /// `meshUser` is who pays from the mesh's own account: its records are no user's, tenant's or
    /// tier's. Scopes that records do not name have no sums.
    package func recorded(
        of scope: AccountKey.Scope, in period: Period, _ selection: AccountSelection,
        meshUser: String, limit: Int
    ) async throws(ArchiveError) -> [RecordedSum] {
        let column: String
        switch scope {
        case .user, .mesh: column = "subject"
        case .tenant: column = "tenant"
        case .tier: column = "tier"
        case .tag: column = "tag"
        case .run, .key, .standby: return []
        }
        let start = period.kind == .forever ? 0 : period.beginning.milliseconds
        let end = period.end?.milliseconds ?? .max
        let drift = StoreLimits.reconcileLeaseMilliseconds
        var inner = SQLConditions()
        inner.add("subject \(scope == .mesh ? "=" : "<>") ?", .text(meshUser))
        inner.add("cost > 0")
        var outer = SQLConditions()
        switch selection {
        case .after(let id): outer.add("account > ?", .text(SQLText.storable(id)))
        case .these(let ids):
            let places = Array(repeating: "?", count: ids.count).joined(separator: ",")
            outer.add("account <> ''")
            inner.add("\(column) IN (\(places))", ids.map { .text(SQLText.storable($0)) })
        }
        let sql = ArchiveSQL.byAccount(
            column, leasesWhere: inner.sql, accountsWhere: outer.sql)
        let parameters: [SQLValue] =
            [.integer(start &- drift), .integer(end == .max ? end : end + drift)]
            + inner.parameters + [.integer(start), .integer(end)] + outer.parameters
            + [.integer(Int64(min(max(1, limit), StoreLimits.reconcileRowsMax)))]
        let rows = try await read { database throws(ArchiveError) in
            try database.query(sql, parameters)
        }
        return rows.compactMap { row in
            guard row.count == 3, let id = row[0].text, let cost = row[1].integer,
                let records = row[2].integer
            else { return nil }
            return RecordedSum(id: id, cost: NanoUSD(cost), records: records)
        }
    }

    /// Σ records of each child that a lease paid for, the holder's own attempts as child 0.
    package func sums(paidBy lease: LeaseID, limit: Int) async throws(ArchiveError) -> [PayerSum] {
        let count = Int64(min(max(1, limit), StoreLimits.reconcileRowsMax))
        let rows = try await read { database throws(ArchiveError) in
            try database.query(
                ArchiveSQL.byChild,
                [.integer(lease.incarnation.rawValue), .integer(lease.number), .integer(count)])
        }
        return rows.compactMap(PayerSum.init)
    }
}

extension PayerSum {
    fileprivate init?(_ row: [SQLValue]) {
        let numbers = row.compactMap(\.integer)
        guard numbers.count == 5 else { return nil }
        let lease = LeaseID(incarnation: Incarnation(numbers[0]), number: numbers[1])
        self.init(
            payer: ChildKey(lease: lease, child: numbers[2]), cost: NanoUSD(numbers[3]),
            records: numbers[4])
    }
}
