import CSQLite

/// One connection to an SQLite database, with its prepared statements. Owned by one thread.
final class SQLite: SQLConnection {
    let dialect = SQLDialect(bytes: "BLOB", text: "TEXT", beforeMigration: [])
    // Takes the lock for writing at once: a reader that becomes a writer later may be refused.
    let begin = "BEGIN IMMEDIATE"
    let isUsable = true

    // SAFETY: opened in `init`, closed in `deinit` after its statements, never handed out.
    private let raw: OpaquePointer
    private var statements: [String: SQLiteStatement] = [:]

    /// Opens or makes the file. WAL with `synchronous = FULL`: what was committed survives a power
    /// cut, because a stored record leaves the sidecar's journal.
    init(path: String, isReadOnly: Bool = false) throws(ArchiveError) {
        var opened: OpaquePointer?
        let flags =
            (isReadOnly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)
            | SQLITE_OPEN_NOMUTEX
        let result = sqlite3_open_v2(path, &opened, flags, nil)
        guard let opened else { throw .database("no memory for a connection") }
        guard result == SQLITE_OK else {
            let message = String(cString: sqlite3_errmsg(opened))
            sqlite3_close_v2(opened)
            throw .database("\(path): \(message)")
        }
        raw = opened
        sqlite3_busy_timeout(raw, StoreLimits.archiveBusyMilliseconds)
        guard !isReadOnly else { return }
        for setting in ["journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"] {
            try execute("PRAGMA " + setting)
        }
    }

    deinit {
        statements = [:]
        sqlite3_close_v2(raw)
    }

    func answers() -> Bool { true }

    @discardableResult
    func execute(_ sql: String, _ parameters: [SQLValue]) throws(ArchiveError) -> Int {
        _ = try query(sql, parameters)
        return Int(sqlite3_changes(raw))
    }

    func query(_ sql: String, _ parameters: [SQLValue]) throws(ArchiveError) -> [[SQLValue]] {
        let statement: SQLiteStatement
        if let known = statements[sql] {
            statement = known
        } else {
            // Filters and dimensions make many statements; beyond this, begin anew.
            if statements.count >= StoreLimits.preparedStatementsMax { statements = [:] }
            statement = try SQLiteStatement(sql, on: raw)
            statements[sql] = statement
        }
        return try statement.run(parameters)
    }
}

/// A prepared statement of one connection.
private final class SQLiteStatement {
    // SAFETY: prepared in `init`, finalized in `deinit`; the connection outlives it, because
    // `SQLite` drops its statements before it closes.
    private let raw: OpaquePointer
    private let connection: OpaquePointer

    init(_ sql: String, on connection: OpaquePointer) throws(ArchiveError) {
        self.connection = connection
        var prepared: OpaquePointer?
        guard sqlite3_prepare_v2(connection, sql, -1, &prepared, nil) == SQLITE_OK, let prepared
        else { throw .database(String(cString: sqlite3_errmsg(connection))) }
        raw = prepared
    }

    deinit { sqlite3_finalize(raw) }

    func run(_ parameters: [SQLValue]) throws(ArchiveError) -> [[SQLValue]] {
        defer {
            sqlite3_reset(raw)
            sqlite3_clear_bindings(raw)
        }
        for (position, parameter) in parameters.enumerated() {
            try check(bind(parameter, at: Int32(position + 1)))
        }
        var rows: [[SQLValue]] = []
        while true {
            switch sqlite3_step(raw) {
            case SQLITE_ROW: rows.append((0..<sqlite3_column_count(raw)).map(column))
            case SQLITE_DONE: return rows
            default: throw .database(String(cString: sqlite3_errmsg(connection)))
            }
        }
    }

    private func check(_ result: Int32) throws(ArchiveError) {
        guard result == SQLITE_OK else {
            throw .database(String(cString: sqlite3_errmsg(connection)))
        }
    }

    private func bind(_ value: SQLValue, at index: Int32) -> Int32 {
        // SAFETY: SQLITE_TRANSIENT, the pointer −1, tells SQLite to copy before it returns.
        let transient = unsafeBitCast(-1, to: sqlite3_destructor_type.self)
        switch value {
        case .null: return sqlite3_bind_null(raw, index)
        case .integer(let integer): return sqlite3_bind_int64(raw, index, integer)
        case .text(let text):
            return sqlite3_bind_text(raw, index, text, Int32(text.utf8.count), transient)
        case .blob(let bytes):
            // An empty array may have no address, and a NULL pointer would bind NULL.
            guard !bytes.isEmpty else { return sqlite3_bind_zeroblob(raw, index, 0) }
            return sqlite3_bind_blob(raw, index, bytes, Int32(bytes.count), transient)
        }
    }

    private func column(_ index: Int32) -> SQLValue {
        let size = Int(sqlite3_column_bytes(raw, index))
        switch sqlite3_column_type(raw, index) {
        case SQLITE_INTEGER: return .integer(sqlite3_column_int64(raw, index))
        case SQLITE_TEXT:
            // SAFETY: the text is `size` bytes and lives until the next step; it is copied here.
            guard let text = sqlite3_column_text(raw, index) else { return .text("") }
            let bytes = UnsafeBufferPointer(start: text, count: size)
            return .text(String(decoding: bytes, as: UTF8.self))
        case SQLITE_BLOB:
            // SAFETY: as above.
            guard let blob = sqlite3_column_blob(raw, index) else { return .blob([]) }
            return .blob([UInt8](UnsafeRawBufferPointer(start: blob, count: size)))
        default: return .null
        }
    }
}
