/// Why the archive cannot do what it was asked.
package enum ArchiveError: Error, Hashable, Sendable {
    /// Too much waits for the archive already.
    case busy
    case closed
    /// The database's own words.
    case database(String)
    /// The database cannot be reached, or the connection to it broke; in its own words.
    case unreachable(String)
    /// Another record is stored under the same (incarnation, sequence): somebody changed history.
    case conflict(incarnation: Int64, sequence: UInt64)
    /// The answer has more rows than this: fewer dimensions or a shorter time are needed. A sum
    /// over a part of the rows would be wrong, so none is given.
    case tooManyRows(max: Int)
}

/// A value of a column, or a parameter.
enum SQLValue: Hashable, Sendable {
    case null
    case integer(Int64)
    case text(String)
    case blob([UInt8])

    var integer: Int64? { if case .integer(let value) = self { value } else { nil } }
    var text: String? { if case .text(let value) = self { value } else { nil } }
    var blob: [UInt8]? { if case .blob(let value) = self { value } else { nil } }
}

/// The types that a schema spells differently for each database.
struct SQLDialect: Sendable {
    /// Bytes, and text that sorts by its bytes.
    let bytes: String
    let text: String
    /// Run first in the transaction of a migration: it may take long, and two processes must not
    /// migrate at once.
    let beforeMigration: [String]
}

/// One connection to a database, used by one thread at a time. Statements are written once, for
/// all databases: `?` for parameters, integers of 64 bits, text and bytes.
protocol SQLConnection: AnyObject {
    var dialect: SQLDialect { get }

    /// Rows changed.
    @discardableResult
    func execute(_ sql: String, _ parameters: [SQLValue]) throws(ArchiveError) -> Int
    func query(_ sql: String, _ parameters: [SQLValue]) throws(ArchiveError) -> [[SQLValue]]

    /// What begins a transaction that writes.
    var begin: String { get }

    /// Whether there is any sense in another statement. Asks nobody.
    var isUsable: Bool { get }
    /// Asks the database.
    func answers() -> Bool
}

extension SQLConnection {
    @discardableResult
    func execute(_ sql: String) throws(ArchiveError) -> Int { try execute(sql, []) }

    func query(_ sql: String) throws(ArchiveError) -> [[SQLValue]] { try query(sql, []) }

    /// All of it or nothing.
    func transaction<T>(_ body: () throws(ArchiveError) -> T) throws(ArchiveError) -> T {
        try execute(begin)
        do {
            let result = try body()
            try execute("COMMIT")
            return result
        } catch {
            // The first error is the one to tell; a failed COMMIT may have ended it already.
            _ = try? execute("ROLLBACK")
            throw error
        }
    }
}
