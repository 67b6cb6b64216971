/// Every statement of the archive. Plain SQL that SQLite and PostgreSQL both read, except for the
/// spelling of parameters; amounts are integers in n$.
enum ArchiveSQL {
    static let schema = [
        """
        CREATE TABLE IF NOT EXISTS records (
          incarnation BIGINT NOT NULL, sequence BIGINT NOT NULL, started_at BIGINT NOT NULL,
          day TEXT NOT NULL, run TEXT NOT NULL, request TEXT NOT NULL,
          lease_incarnation BIGINT NOT NULL, lease_number BIGINT NOT NULL, child BIGINT NOT NULL,
          reserved BIGINT NOT NULL, cost BIGINT NOT NULL,
          input_tokens BIGINT NOT NULL, cached_input_tokens BIGINT NOT NULL,
          cache_write_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL,
          reasoning_tokens BIGINT NOT NULL, latency_us BIGINT NOT NULL,
          first_byte_us BIGINT NOT NULL, status BIGINT NOT NULL, reason TEXT NOT NULL,
          source TEXT NOT NULL, subject TEXT NOT NULL, tier TEXT NOT NULL, tenant TEXT NOT NULL,
          agent TEXT NOT NULL, model TEXT NOT NULL, request_type TEXT NOT NULL,
          policy_number BIGINT NOT NULL, price_version BIGINT NOT NULL, flags BIGINT NOT NULL,
          bytes BLOB NOT NULL,
          PRIMARY KEY (incarnation, sequence))
        """,
        "CREATE INDEX IF NOT EXISTS records_by_subject ON records (subject, started_at)",
        "CREATE INDEX IF NOT EXISTS records_by_time ON records (started_at)",
        """
        CREATE INDEX IF NOT EXISTS records_by_payer
          ON records (lease_incarnation, lease_number, child)
        """,
        """
        CREATE TABLE IF NOT EXISTS chains (
          incarnation BIGINT NOT NULL PRIMARY KEY, stored_through BIGINT NOT NULL)
        """,
    ]

    static let insertRecord =
        "INSERT INTO records VALUES (" + Array(repeating: "?", count: 31).joined(separator: ",")
        + ") ON CONFLICT (incarnation, sequence) DO NOTHING"

    static let recordBytes = "SELECT bytes FROM records WHERE incarnation = ? AND sequence = ?"

    static let storedThrough = "SELECT stored_through FROM chains WHERE incarnation = ?"

    /// The sequences after a point, to see how far they go without a gap.
    static let following = """
        SELECT sequence FROM records WHERE incarnation = ? AND sequence > ?
        ORDER BY sequence LIMIT ?
        """

    static let advance = """
        INSERT INTO chains VALUES (?, ?)
        ON CONFLICT (incarnation) DO UPDATE SET stored_through = excluded.stored_through
        """

    static let hasRecords = "SELECT 1 FROM records LIMIT 1"

    static let sums = """
        COUNT(*), SUM(cost), SUM(input_tokens), SUM(cached_input_tokens), SUM(cache_write_tokens),
        SUM(output_tokens), SUM(reasoning_tokens),
        SUM(CASE WHEN reason = 'admitted' THEN 0 ELSE 1 END)
        """

    static func usage(by columns: [String], hasUser: Bool) -> String {
        let list = columns.joined(separator: ", ")
        return """
            SELECT \(columns.isEmpty ? "" : list + ", ")\(sums) FROM records
            WHERE started_at >= ? AND started_at < ?\(hasUser ? " AND subject = ?" : "")
            \(columns.isEmpty ? "" : "GROUP BY \(list) ORDER BY \(list)") LIMIT ?
            """
    }

    /// Σ records by what paid for them, for reconciling with Σ childFinal and own attempts.
    static let byPayer = """
        SELECT lease_incarnation, lease_number, child, SUM(cost), COUNT(*) FROM records
        WHERE (lease_incarnation, lease_number, child) > (?, ?, ?)
        GROUP BY lease_incarnation, lease_number, child
        ORDER BY lease_incarnation, lease_number, child LIMIT ?
        """

    static let byLease = """
        SELECT SUM(cost), COUNT(*) FROM records
        WHERE lease_incarnation = ? AND lease_number = ?
        """

    /// Σ records of one holder of accounts (`column`: subject, tenant or tier) within a period.
    static func byAccount(_ column: String) -> String {
        """
        SELECT \(column), SUM(cost), COUNT(*) FROM records
        WHERE started_at >= ? AND started_at < ? AND \(column) > ?
        GROUP BY \(column) ORDER BY \(column) LIMIT ?
        """
    }

    static let latest = """
        SELECT bytes, subject, tier, tenant, agent, model, request_type FROM records
        WHERE started_at >= ? AND started_at < ? ORDER BY started_at DESC LIMIT ?
        """

    static let latencies = """
        SELECT latency_us FROM records
        WHERE agent = ? AND started_at >= ? AND started_at < ? AND status BETWEEN 200 AND 299
        ORDER BY started_at DESC LIMIT ?
        """
}
