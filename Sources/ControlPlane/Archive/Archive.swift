import Synchronization
import WeirCore
import WeirLedger
import WeirMeshProtocol

/// Records for good, each exactly once by (incarnation, sequence). One thread writes, one
/// transaction and so one flush of the disk for each message of blocks; another one reads beside
/// it.
package final class Archive: Sendable {
    private let writer: ArchiveThread
    private let reader: ArchiveThread

    /// Opens or makes the database file.
    package init(path: String) throws(ArchiveError) {
        let database = try SQLite(path: path)
        try database.transaction { () throws(ArchiveError) in
            for statement in ArchiveSQL.schema { try database.execute(statement) }
        }
        writer = ArchiveThread(name: "weir-archive", path: path, isReadOnly: false)
        reader = ArchiveThread(name: "weir-archive-rd", path: path, isReadOnly: true)
    }

    deinit {
        writer.close()
        reader.close()
    }

    /// Stores blocks; answers how far each incarnation's records are stored without a gap. Blocks
    /// may repeat what is stored; another record under a stored number refuses all of them.
    package func store(_ blocks: [RecordBlock]) async throws(ArchiveError) -> [Incarnation: UInt64]
    {
        try await writer.perform { database throws(ArchiveError) in
            try database.transaction { () throws(ArchiveError) in
                try ArchiveWriting.store(blocks, in: database)
            }
        }
    }

    /// 0 before the first record.
    package func storedThrough(_ incarnation: Incarnation) async throws(ArchiveError) -> UInt64 {
        try await read { database throws(ArchiveError) in
            try ArchiveWriting.storedThrough(incarnation, in: database)
        }
    }

    /// Whether anything was ever recorded: a mesh with a past.
    package func hasRecords() async throws(ArchiveError) -> Bool {
        try await read { database throws(ArchiveError) in
            try !database.query(ArchiveSQL.hasRecords).isEmpty
        }
    }

    func read<T: Sendable>(
        _ body: @escaping @Sendable (SQLite) throws(ArchiveError) -> T
    ) async throws(ArchiveError) -> T {
        try await reader.perform(body)
    }
}

/// What storing means in statements.
enum ArchiveWriting {
    /// Sequences that are looked at in one step when a gap has closed.
    private static let followingMax: Int64 = 4_096

    static func store(
        _ blocks: [RecordBlock], in database: SQLite
    ) throws(ArchiveError) -> [Incarnation: UInt64] {
        var through: [Incarnation: UInt64] = [:]
        for block in blocks {
            for record in block.records { try store(record, block.names, in: database) }
            through[block.incarnation] = 0
        }
        for incarnation in through.keys.sorted() {
            through[incarnation] = try advance(incarnation, in: database)
        }
        return through
    }

    private static func store(
        _ record: AttemptRecord, _ names: [UInt32: String], in database: SQLite
    ) throws(ArchiveError) {
        guard let sequence = Int64(exactly: record.sequence) else {
            throw .database("a sequence beyond 2^63")
        }
        let bytes = record.bytes
        let inserted = try database.execute(
            ArchiveSQL.insertRecord, row(record, names, sequence, bytes))
        guard inserted == 0 else { return }
        let stored = try database.query(
            ArchiveSQL.recordBytes, [.integer(record.incarnation.rawValue), .integer(sequence)])
        guard stored.first?.first?.blob == bytes else {
            throw .conflict(incarnation: record.incarnation.rawValue, sequence: record.sequence)
        }
    }

    private static func row(
        _ record: AttemptRecord, _ names: [UInt32: String], _ sequence: Int64, _ bytes: [UInt8]
    ) -> [SQLValue] {
        func name(_ number: UInt32) -> SQLValue { .text(names[number] ?? "") }
        func count(_ value: UInt32) -> SQLValue { .integer(Int64(value)) }
        let tokens = record.tokens
        return [
            .integer(record.incarnation.rawValue), .integer(sequence),
            .integer(record.startedAt.milliseconds),
            .text(Period(.day, at: record.startedAt).description),
            .text(record.run.description), .text(record.request.description),
            .integer(record.paidBy.lease.incarnation.rawValue),
            .integer(record.paidBy.lease.number), .integer(record.paidBy.child),
            .integer(record.reserved.rawValue), .integer(record.cost.rawValue),
            count(tokens.input), count(tokens.cachedInput), count(tokens.cacheWrite),
            count(tokens.output), count(tokens.reasoning), count(record.latencyMicroseconds),
            count(record.firstByteMicroseconds), .integer(Int64(record.status)),
            .text(record.reason.name), .text(record.source.name), name(record.subject),
            name(record.tier), name(record.tenant), name(record.agent), name(record.model),
            name(record.requestType), .integer(record.policyNumber),
            .integer(record.priceVersion), .integer(Int64(record.flags.rawValue)), .blob(bytes),
        ]
    }

    static func storedThrough(
        _ incarnation: Incarnation, in database: SQLite
    ) throws(ArchiveError) -> UInt64 {
        let rows = try database.query(
            ArchiveSQL.storedThrough, [.integer(incarnation.rawValue)])
        return UInt64(clamping: rows.first?.first?.integer ?? 0)
    }

    /// Moves the mark over everything that follows it without a gap. Sequences begin at 1.
    private static func advance(
        _ incarnation: Incarnation, in database: SQLite
    ) throws(ArchiveError) -> UInt64 {
        let before = Int64(clamping: try storedThrough(incarnation, in: database))
        var through = before
        var hasMore = true
        while hasMore {
            let rows = try database.query(
                ArchiveSQL.following,
                [.integer(incarnation.rawValue), .integer(through), .integer(followingMax)])
            hasMore = rows.count == followingMax
            for row in rows {
                guard row.first?.integer == through + 1 else {
                    hasMore = false
                    break
                }
                through += 1
            }
        }
        if through > before {
            try database.execute(
                ArchiveSQL.advance, [.integer(incarnation.rawValue), .integer(through)])
        }
        return UInt64(clamping: through)
    }
}
