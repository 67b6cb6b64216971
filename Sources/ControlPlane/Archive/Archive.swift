import WeirCore
import WeirLedger
import WeirMeshProtocol

/// Where records are kept.
package enum ArchiveLocation: Hashable, Sendable {
    /// A file, made where there is none.
    case sqlite(path: String)
    case postgreSQL(PostgreSQLSettings)
}

/// Records for good, each exactly once by (incarnation, sequence), whoever stores them: one
/// transaction, and so one flush of the disk, for each message of blocks. What reads has
/// connections of its own, so that a long answer does not keep records waiting.
package final class Archive: Sendable {
    package let location: ArchiveLocation
    private let writers: DatabasePool
    private let readers: DatabasePool

    /// Opens a file or throws why not. PostgreSQL is connected to when it is needed and may be away
    /// now and later: what needs it throws `unreachable` then.
    package init(at location: ArchiveLocation) throws(ArchiveError) {
        self.location = location
        switch location {
        case .sqlite(let path):
            try ArchiveMigration.run(on: try SQLite(path: path))
            writers = DatabasePool(name: "weir-archive", size: 1) { () throws(ArchiveError) in
                try SQLite(path: path)
            }
            readers = DatabasePool(name: "weir-archive-rd", size: 1) { () throws(ArchiveError) in
                try SQLite(path: path, isReadOnly: true)
            }
        case .postgreSQL(let settings):
            // A quarter writes: transactions of the same hours wait for each other anyway.
            let writing = max(1, settings.connections / 4)
            writers = Self.pool("weir-archive", writing, settings)
            readers = Self.pool("weir-archive-rd", settings.connections - writing, settings)
        }
    }

    private static func pool(
        _ name: String, _ size: Int, _ settings: PostgreSQLSettings
    ) -> DatabasePool {
        DatabasePool(name: name, size: size) { () throws(ArchiveError) in
            let database = try PostgreSQL(settings)
            // With each connection: the server behind the address may be another one by now.
            try ArchiveMigration.run(on: database)
            return database
        }
    }

    deinit {
        writers.close()
        readers.close()
    }

    /// Throws why records cannot be stored now.
    package func check() async throws(ArchiveError) {
        try await writers.perform { database throws(ArchiveError) in
            _ = try database.query("SELECT 1")
        }
    }

    /// Stores blocks; answers how far each incarnation's records are stored without a gap. Blocks
    /// may repeat what is stored; another record under a stored number refuses all of them.
    package func store(_ blocks: [RecordBlock]) async throws(ArchiveError) -> [Incarnation: UInt64]
    {
        try await writers.perform { database throws(ArchiveError) in
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
        _ body: @escaping @Sendable (any SQLConnection) throws(ArchiveError) -> T
    ) async throws(ArchiveError) -> T {
        try await readers.perform(body)
    }
}
