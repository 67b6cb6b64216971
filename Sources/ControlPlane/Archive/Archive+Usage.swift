import WeirCore
import WeirLedger
import WeirMeshProtocol

/// What sums are grouped by.
package enum UsageDimension: String, Sendable, CaseIterable {
    case agent, model, tier, user, tenant, day, type, provenance, reason

    fileprivate var column: String {
        switch self {
        case .agent: "agent"
        case .model: "model"
        case .tier: "tier"
        case .user: "subject"
        case .tenant: "tenant"
        case .day: "day"
        case .type: "request_type"
        case .provenance: "source"
        case .reason: "reason"
        }
    }
}

/// A sum over records. Attempts, not users' requests: a retry is an attempt of its own.
package struct UsageRow: Hashable, Sendable {
    /// In the order of the dimensions that were asked for.
    package var keys: [String]
    package var attempts: Int64
    package var cost: NanoUSD
    package var inputTokens: Int64
    package var cachedInputTokens: Int64
    package var cacheWriteTokens: Int64
    package var outputTokens: Int64
    package var reasoningTokens: Int64
    /// Attempts that ended for any other reason than `admitted`.
    package var failures: Int64
}

/// Σ records by what paid for them.
package struct PayerSum: Hashable, Sendable {
    package var payer: ChildKey
    package var cost: NanoUSD
    package var records: Int64
}

extension Archive {
    /// Sums over [from, to), by at most four dimensions; of one user where one is named.
    package func usage(
        by dimensions: [UsageDimension], from: UnixTime, to: UnixTime, user: String? = nil
    ) async throws(ArchiveError) -> [UsageRow] {
        let columns = dimensions.prefix(4).map(\.column)
        var parameters: [SQLValue] = [.integer(from.milliseconds), .integer(to.milliseconds)]
        if let user { parameters.append(.text(user)) }
        parameters.append(.integer(Int64(StoreLimits.usageRowsMax)))
        let sql = ArchiveSQL.usage(by: columns, hasUser: user != nil)
        let bound = parameters
        let rows = try await read { database throws(ArchiveError) in
            try database.query(sql, bound)
        }
        return rows.compactMap { row in
            let keys = row.prefix(columns.count).map { $0.text ?? "" }
            let sums = row.dropFirst(columns.count).map { $0.integer ?? 0 }
            // Sums over nothing are one row of nulls.
            guard sums.count == 8, sums[0] > 0 else { return nil }
            return UsageRow(
                keys: keys, attempts: sums[0], cost: NanoUSD(sums[1]), inputTokens: sums[2],
                cachedInputTokens: sums[3], cacheWriteTokens: sums[4], outputTokens: sums[5],
                reasoningTokens: sums[6], failures: sums[7])
        }
    }

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
        case .run, .mesh: return []
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
            guard row.count == 3, let id = row[0].text, let cost = row[1].integer else {
                return nil
            }
            return (id, NanoUSD(cost))
        }
    }

    /// Latencies of an agent's successful attempts in µs, the newest first, at most so many: for
    /// percentiles.
    package func latencies(
        ofAgent agent: String, from: UnixTime, to: UnixTime, limit: Int
    ) async throws(ArchiveError) -> [Int64] {
        let count = Int64(min(max(1, limit), StoreLimits.reconcileRowsMax))
        let rows = try await read { database throws(ArchiveError) in
            try database.query(
                ArchiveSQL.latencies,
                [
                    .text(agent), .integer(from.milliseconds), .integer(to.milliseconds),
                    .integer(count),
                ])
        }
        return rows.compactMap { $0.first?.integer }
    }
}
