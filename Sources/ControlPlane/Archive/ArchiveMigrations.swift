/// How the schema came to be, step by step. A step is never changed once it was released, and only
/// adds: a replica of the version before goes on beside one of the version after. Plain SQL that
/// SQLite and PostgreSQL both read, but for the types that `SQLDialect` names.
struct ArchiveMigration: Sendable {
    let version: Int64
    let statements: @Sendable (SQLDialect) -> [String]

    static let all = [
        ArchiveMigration(version: 1, statements: records),
        ArchiveMigration(version: 2, statements: performance),
        ArchiveMigration(version: 3, statements: tags),
    ]

    /// Brings the schema up to date. Safe when several processes do it at once.
    static func run(on database: any SQLConnection) throws(ArchiveError) {
        try database.transaction { () throws(ArchiveError) in
            for statement in database.dialect.beforeMigration { _ = try database.query(statement) }
            try database.execute(
                "CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT NOT NULL PRIMARY KEY)")
            let rows = try database.query("SELECT MAX(version) FROM schema_versions")
            let current = rows.first?.first?.integer ?? 0
            for migration in all where migration.version > current {
                for statement in migration.statements(database.dialect) {
                    try database.execute(statement)
                }
                try database.execute(
                    "INSERT INTO schema_versions VALUES (?)", [.integer(migration.version)])
            }
        }
    }

    /// `IF NOT EXISTS`, because the first files had no version.
    private static func records(_ dialect: SQLDialect) -> [String] {
        let text = dialect.text
        return [
            """
            CREATE TABLE IF NOT EXISTS records (
              incarnation BIGINT NOT NULL, sequence BIGINT NOT NULL, started_at BIGINT NOT NULL,
              day \(text) NOT NULL, run \(text) NOT NULL, request \(text) NOT NULL,
              lease_incarnation BIGINT NOT NULL, lease_number BIGINT NOT NULL,
              child BIGINT NOT NULL, reserved BIGINT NOT NULL, cost BIGINT NOT NULL,
              input_tokens BIGINT NOT NULL, cached_input_tokens BIGINT NOT NULL,
              cache_write_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL,
              reasoning_tokens BIGINT NOT NULL, latency_us BIGINT NOT NULL,
              first_byte_us BIGINT NOT NULL, status BIGINT NOT NULL, reason \(text) NOT NULL,
              source \(text) NOT NULL, subject \(text) NOT NULL, tier \(text) NOT NULL,
              tenant \(text) NOT NULL, agent \(text) NOT NULL, model \(text) NOT NULL,
              request_type \(text) NOT NULL, policy_number BIGINT NOT NULL,
              price_version BIGINT NOT NULL, flags BIGINT NOT NULL,
              bytes \(dialect.bytes) NOT NULL, PRIMARY KEY (incarnation, sequence))
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
    }

    /// A record's tags as one text, and each of them to sum by. The second table's columns have
    /// names of their own, so that conditions on records stay what they are where both are joined.
    private static func tags(_ dialect: SQLDialect) -> [String] {
        let text = dialect.text
        return [
            "ALTER TABLE records ADD COLUMN tags \(text) NOT NULL DEFAULT ''",
            """
            CREATE TABLE record_tags (
              tag \(text) NOT NULL, tagged_incarnation BIGINT NOT NULL,
              tagged_sequence BIGINT NOT NULL,
              PRIMARY KEY (tagged_incarnation, tagged_sequence, tag))
            """,
            "CREATE INDEX record_tags_by_tag ON record_tags (tag)",
        ]
    }

    /// Sums by hour, and what reads the records page by page.
    private static func performance(_ dialect: SQLDialect) -> [String] {
        let text = dialect.text
        return [
            """
            CREATE TABLE performance (
              hour BIGINT NOT NULL, agent \(text) NOT NULL, model \(text) NOT NULL,
              tier \(text) NOT NULL, reason \(text) NOT NULL, attempts BIGINT NOT NULL,
              succeeded BIGINT NOT NULL, cost BIGINT NOT NULL, input_tokens BIGINT NOT NULL,
              cached_input_tokens BIGINT NOT NULL, cache_write_tokens BIGINT NOT NULL,
              output_tokens BIGINT NOT NULL, reasoning_tokens BIGINT NOT NULL,
              PRIMARY KEY (agent, hour, model, tier, reason))
            """,
            """
            CREATE TABLE latencies (
              hour BIGINT NOT NULL, agent \(text) NOT NULL, model \(text) NOT NULL,
              tier \(text) NOT NULL, bucket BIGINT NOT NULL, attempts BIGINT NOT NULL,
              PRIMARY KEY (agent, hour, model, tier, bucket))
            """,
            """
            INSERT INTO performance
            SELECT started_at / 3600000 * 3600000, agent, model, tier, reason,
              \(ArchiveSQL.sums(succeededIf: ArchiveSQL.succeeded)) FROM records
            GROUP BY started_at / 3600000 * 3600000, agent, model, tier, reason
            """,
            """
            INSERT INTO latencies
            SELECT started_at / 3600000 * 3600000, agent, model, tier,
              \(LatencyHistogram.bucketSQL(of: "latency_us")) AS bucket, COUNT(*) FROM records
            WHERE \(ArchiveSQL.succeeded)
            GROUP BY started_at / 3600000 * 3600000, agent, model, tier, bucket
            """,
            "DROP INDEX records_by_time",
            "CREATE INDEX records_in_order ON records (started_at, incarnation, sequence)",
            "CREATE INDEX records_by_agent ON records (agent, started_at)",
            "CREATE INDEX records_by_run ON records (run)",
            "CREATE INDEX records_by_request ON records (request)",
        ]
    }
}
