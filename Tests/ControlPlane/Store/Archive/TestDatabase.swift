import PrivatePostgreSQL
import Testing

@testable import ControlPlaneStore

/// The databases that the archive runs on; each test of the archive runs on all of them.
enum Driver: CaseIterable, Sendable { case sqlite, postgreSQL }

/// An empty database of a test's own.
final class TestDatabase: Sendable {
    let location: ArchiveLocation
    // Kept, because its end removes the file.
    private let folder: TemporaryFolder?

    init(_ driver: Driver) throws {
        switch driver {
        case .sqlite:
            let folder = try TemporaryFolder()
            self.folder = folder
            location = .sqlite(path: folder.database)
        case .postgreSQL:
            let server = try PrivatePostgreSQL.shared.get()
            let url = server.url(of: try server.makeDatabase())
            location = .postgreSQL(
                try #require(PostgreSQLSettings(url: url, connections: 4)))
            folder = nil
        }
    }

    func archive() throws -> Archive { try Archive(at: location) }

    /// A connection beside the archive's.
    func connection() throws -> any SQLConnection {
        switch location {
        case .sqlite(let path): try SQLite(path: path)
        case .postgreSQL(let settings): try PostgreSQL(settings)
        }
    }
}
