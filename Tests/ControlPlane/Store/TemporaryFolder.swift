import Glibc
import Testing

/// A folder of the test's own for a database file.
final class TemporaryFolder: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/weir-archive-XXXXXX".utf8CString)
        path = String(cString: try #require(mkdtemp(&template)))
    }

    deinit {
        for suffix in ["", "-wal", "-shm"] { unlink(database + suffix) }
        rmdir(path)
    }

    var database: String { path + "/archive.db" }
}
