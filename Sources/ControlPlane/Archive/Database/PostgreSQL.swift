import CPQ
import Glibc

/// One connection to PostgreSQL by libpq, with its prepared statements. Owned by one thread, which
/// waits in libpq's calls; the timeouts that are set when it opens bound every wait. Values are
/// always parameters, in libpq's binary form both ways: 64-bit integers, UTF-8 text, bytes.
final class PostgreSQL: SQLConnection {
    let dialect = SQLDialect(
        bytes: "BYTEA", text: "TEXT COLLATE \"C\"",
        // The number is arbitrary and ours: "weir" in ASCII.
        beforeMigration: [
            "SET LOCAL statement_timeout = 0", "SELECT pg_advisory_xact_lock(2003134834)",
        ])
    let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"

    // SAFETY: made in `init`, finished in `deinit`, never handed out.
    private let raw: OpaquePointer
    private var statements: [String: String] = [:]
    private var statementNumber = 0
    /// The server said that it cannot be written to (any more): another one is.
    private var isReadOnly = false
    /// An error came from libpq and not from the server; its status may still say otherwise.
    private var isLost = false

    init(_ settings: PostgreSQLSettings) throws(ArchiveError) {
        let parameters = settings.parameters
        let opened = Self.withCStrings(parameters.map(\.keyword)) { keywords in
            Self.withCStrings(parameters.map(\.value)) { values in
                PQconnectdbParams(keywords, values, 1)
            }
        }
        guard let opened else { throw .unreachable("no memory for a connection") }
        raw = opened
        // Notices ("relation exists, skipping") would go to stderr.
        PQsetNoticeProcessor(raw, { _, _ in }, nil)
        guard PQstatus(raw) == CONNECTION_OK else { throw .unreachable(message) }
        for setting in [
            "statement_timeout = \(StoreLimits.databaseStatementMilliseconds)",
            "idle_in_transaction_session_timeout = \(StoreLimits.databaseStatementMilliseconds)",
            // What is said to be stored leaves the sidecar's journal.
            "synchronous_commit = on",
        ] {
            try execute("SET " + setting)
        }
    }

    deinit { PQfinish(raw) }

    var isUsable: Bool { PQstatus(raw) == CONNECTION_OK && !isReadOnly && !isLost }

    func answers() -> Bool {
        guard isUsable, (try? query("SELECT 1")) != nil else { return false }
        return isUsable
    }

    func execute(_ sql: String, _ parameters: [SQLValue]) throws(ArchiveError) -> Int {
        let result = try run(sql, parameters)
        return Int(result.changedRows) ?? 0
    }

    func query(_ sql: String, _ parameters: [SQLValue]) throws(ArchiveError) -> [[SQLValue]] {
        try run(sql, parameters).rows()
    }

    private func run(
        _ sql: String, _ parameters: [SQLValue]
    ) throws(ArchiveError) -> PostgreSQLResult {
        let values = PostgreSQLParameters(parameters)
        // Without parameters it is said once or seldom: settings, schema, transactions.
        guard !parameters.isEmpty else {
            return try checked(PQexecParams(raw, sql, 0, nil, nil, nil, nil, 1))
        }
        let name = try prepared(sql, values)
        return try checked(
            values.withPointers { pointers, lengths, formats in
                PQexecPrepared(
                    raw, name, Int32(parameters.count), pointers, lengths, formats, 1)
            })
    }

    private func prepared(
        _ sql: String, _ values: PostgreSQLParameters
    ) throws(ArchiveError) -> String {
        if let known = statements[sql] { return known }
        // Filters and dimensions make many statements; beyond this, begin anew.
        if statements.count >= StoreLimits.preparedStatementsMax {
            try execute("DEALLOCATE ALL")
            statements = [:]
        }
        statementNumber += 1
        let name = "weir_\(statementNumber)"
        _ = try checked(PQprepare(raw, name, sql.numberingParameters, values.count, values.types))
        statements[sql] = name
        return name
    }

    private func checked(_ result: OpaquePointer?) throws(ArchiveError) -> PostgreSQLResult {
        guard let result else { throw .unreachable(message) }
        let owned = PostgreSQLResult(result)
        switch PQresultStatus(result) {
        case PGRES_TUPLES_OK, PGRES_COMMAND_OK: return owned
        default:
            // 25006: read_only_sql_transaction.
            isReadOnly = isReadOnly || owned.sqlState == "25006"
            // Every error of a server has a state.
            isLost = isLost || owned.sqlState == nil
            throw isUsable ? .database(message) : .unreachable(message)
        }
    }

    /// libpq's words on what went wrong, which never hold the password, on one line.
    private var message: String {
        String(cString: PQerrorMessage(raw))
            .split(whereSeparator: \.isNewline).joined(separator: " ")
    }

    /// The texts as a list of C strings that ends with NULL.
    private static func withCStrings<T>(
        _ texts: [String], _ body: ([UnsafePointer<CChar>?]) -> T
    ) -> T {
        let copies = texts.map { strdup($0) }
        defer { for copy in copies { free(copy) } }
        return body(copies.map { UnsafePointer($0) } + [nil])
    }
}

extension String {
    /// `?` as PostgreSQL spells it: `$1`, `$2`, … Our statements have no other question marks.
    var numberingParameters: String {
        var number = 0
        var result = ""
        for character in self {
            if character == "?" {
                number += 1
                result += "$\(number)"
            } else {
                result.append(character)
            }
        }
        return result
    }
}
