import WeirCore
import WeirLedger
import WeirMeshProtocol

/// A record with its names.
package struct ArchivedRecord: Hashable, Sendable {
    package var record: AttemptRecord
    package var subject: String
    package var tier: String
    package var tenant: String
    /// As `Tags.text`.
    package var tags: String
    package var agent: String
    package var model: String
    package var requestType: String
}

extension Archive {
    /// The place of a record in the order of the archive: when it began, then its number.
    package struct Position: Hashable, Sendable {
        package var startedAt: UnixTime
        package var incarnation: Incarnation
        package var sequence: UInt64

        package init(startedAt: UnixTime, incarnation: Incarnation, sequence: UInt64) {
            self.startedAt = startedAt
            self.incarnation = incarnation
            self.sequence = sequence
        }

        package init(of record: AttemptRecord) {
            self.init(
                startedAt: record.startedAt, incarnation: record.incarnation,
                sequence: record.sequence)
        }
    }

    /// Records that a filter means, the newest first; those older than a position where one is
    /// given. A record that arrives late is found in its place, so pages never repeat one.
    package func records(
        where filter: RecordFilter, olderThan position: Position? = nil, limit: Int
    ) async throws(ArchiveError) -> [ArchivedRecord] {
        var conditions = filter.conditions
        if let position {
            conditions.add(
                "(started_at, incarnation, sequence) < (?, ?, ?)",
                .integer(position.startedAt.milliseconds),
                .integer(position.incarnation.rawValue),
                .integer(Int64(clamping: position.sequence)))
        }
        let count = min(max(1, limit), StoreLimits.recordsPageMax)
        let sql = ArchiveSQL.records(where: conditions.sql)
        let parameters = conditions.parameters + [.integer(Int64(count))]
        let rows = try await read { database throws(ArchiveError) in
            try database.query(sql, parameters)
        }
        return rows.compactMap(Self.archivedRecord)
    }

    private static func archivedRecord(_ row: [SQLValue]) -> ArchivedRecord? {
        let names = row.dropFirst().compactMap(\.text)
        guard names.count == 7, let bytes = row.first?.blob,
            let record = AttemptRecord(bytes: bytes)
        else { return nil }
        return ArchivedRecord(
            record: record, subject: names[0], tier: names[1], tenant: names[2],
            tags: names[6], agent: names[3], model: names[4], requestType: names[5])
    }
}
