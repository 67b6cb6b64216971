import WeirCore

/// A database that a program under test writes, read by the sqlite3 tool from outside.
struct SQLiteFile {
    let path: String

    /// The rows of a query, each a JSON object.
    func rows(_ query: String) async throws -> [JSONValue] {
        let result = try await Tools.run(
            try Tools.path("sqlite3"), ["-readonly", "-json", "-cmd", ".timeout 5000", path, query])
        guard result.status == 0 else { throw TestProcess.Failed(description: result.output) }
        guard !result.output.isEmpty else { return [] }
        return try JSON.parse(result.output).array ?? []
    }
}
