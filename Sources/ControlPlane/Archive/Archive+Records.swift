import WeirCore
import WeirMeshProtocol

/// A record with its names.
package struct ArchivedRecord: Hashable, Sendable {
    package var record: AttemptRecord
    package var subject: String
    package var tier: String
    package var tenant: String
    package var agent: String
    package var model: String
    package var requestType: String
}

extension Archive {
    /// Records of [from, to), the newest first.
    package func records(
        from: UnixTime, to: UnixTime, limit: Int
    ) async throws(ArchiveError) -> [ArchivedRecord] {
        let count = Int64(min(max(1, limit), StoreLimits.usageRowsMax))
        let rows = try await read { database throws(ArchiveError) in
            try database.query(
                ArchiveSQL.latest,
                [.integer(from.milliseconds), .integer(to.milliseconds), .integer(count)])
        }
        return rows.compactMap { row in
            let names = row.dropFirst().compactMap(\.text)
            guard names.count == 6, let bytes = row.first?.blob,
                let record = AttemptRecord(bytes: bytes)
            else { return nil }
            return ArchivedRecord(
                record: record, subject: names[0], tier: names[1], tenant: names[2],
                agent: names[3], model: names[4], requestType: names[5])
        }
    }
}
