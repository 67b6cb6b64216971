import WeirCore
import WeirLedger

/// What sums are grouped by.
package enum UsageDimension: String, Sendable, CaseIterable {
    case agent, model, tier, user, tenant, day, type, provenance, reason
    /// A record counts once for each of its tags, or of its teams, and once where it has none.
    case tag, team

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
        case .tag: ArchiveSQL.tagColumn
        case .team: ArchiveSQL.teamColumn
        }
    }
}

extension UsageDimension {
    /// Records are joined with their tags once.
    package static func fit(_ dimensions: [UsageDimension]) -> Bool {
        !(dimensions.contains(.tag) && dimensions.contains(.team))
    }

    fileprivate var repeatsRecords: Bool { self == .tag || self == .team }
}

/// A sum over records. Attempts, not users' requests: a retry is an attempt of its own.
package struct UsageRow: Hashable, Sendable {
    /// In the order of the dimensions that were asked for.
    package var keys: [String]
    package var attempts: Int64
    /// Attempts without a whole answer of 2xx.
    package var failures: Int64
    package var cost: NanoUSD
    /// The cost by where the figure comes from; the parts add up to `cost`.
    package var costBySource: [CostSource: NanoUSD]
    package var tokens: TokenSums
}

extension Archive {
    /// Sums over the records that a filter means, by at most four dimensions: exactly what the
    /// ledger's records say, in integers. One row for each combination that occurs.
    package func breakdown(
        by dimensions: [UsageDimension], where filter: RecordFilter
    ) async throws(ArchiveError) -> [UsageRow] {
        let columns = dimensions.prefix(4).map(\.column)
        let conditions = filter.conditions
        let rowsMax = StoreLimits.usageRowsMax
        let parameters = conditions.parameters + [.integer(Int64(rowsMax) + 1)]
        let sql = ArchiveSQL.breakdown(by: columns, where: conditions.sql)
        let rows = try await read { database throws(ArchiveError) in
            try database.query(sql, parameters)
        }
        guard rows.count <= rowsMax else { throw .tooManyRows(max: rowsMax) }
        return rows.compactMap { Self.usageRow($0, keyCount: columns.count) }
    }

    /// Over all that a breakdown has in its rows, each record once.
    package func total(
        of rows: [UsageRow], by dimensions: [UsageDimension], where filter: RecordFilter
    ) async throws(ArchiveError) -> (cost: NanoUSD, costBySource: [CostSource: NanoUSD]) {
        let isExact = !dimensions.contains(where: \.repeatsRecords)
        let rows = isExact ? rows : try await breakdown(by: [], where: filter)
        var sources: [CostSource: NanoUSD] = [:]
        for row in rows { sources.merge(row.costBySource, uniquingKeysWith: +) }
        return (rows.reduce(.zero) { $0 + $1.cost }, sources)
    }

    private static func usageRow(_ row: [SQLValue], keyCount: Int) -> UsageRow? {
        let keys = row.prefix(keyCount).map { $0.text ?? "" }
        let sums = row.dropFirst(keyCount).map { $0.integer ?? 0 }
        // Sums over nothing are one row of nulls.
        let sources = CostSource.allCases
        guard sums.count == ArchiveSQL.performanceSums.count + sources.count, sums[0] > 0 else {
            return nil
        }
        let amounts = sums.suffix(sources.count).map(NanoUSD.init)
        return UsageRow(
            keys: keys, attempts: sums[0], failures: sums[0] - sums[1], cost: NanoUSD(sums[2]),
            costBySource: Dictionary(uniqueKeysWithValues: zip(sources, amounts)),
            tokens: TokenSums(sums[3..<8]))
    }
}
