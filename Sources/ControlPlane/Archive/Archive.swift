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
        try ArchiveMigration.run(on: database)
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
        _ body: @escaping @Sendable (any SQLConnection) throws(ArchiveError) -> T
    ) async throws(ArchiveError) -> T {
        try await reader.perform(body)
    }
}
