import WeirCore
import WeirLedger

/// Every statement of the archive. Plain SQL that SQLite and PostgreSQL both read; what it says
/// comes from here, and values are always parameters. Amounts are integers in n$, times in
/// milliseconds.
enum ArchiveSQL {
    private static let recordColumns = [
        "incarnation", "sequence", "started_at", "day", "run", "request", "lease_incarnation",
        "lease_number", "child", "reserved", "cost", "input_tokens", "cached_input_tokens",
        "cache_write_tokens", "output_tokens", "reasoning_tokens", "latency_us", "first_byte_us",
        "status", "reason", "source", "subject", "tier", "tenant", "agent", "model",
        "request_type", "policy_number", "price_version", "flags", "bytes",
        "tags",
    ]

    // MARK: Storing

    /// Answers the sequences that were not there yet.
    static func insertRecords(count: Int) -> String {
        let row =
            "(" + Array(repeating: "?", count: recordColumns.count).joined(separator: ",") + ")"
        return "INSERT INTO records (" + recordColumns.joined(separator: ",") + ") VALUES "
            + Array(repeating: row, count: count).joined(separator: ",")
            + " ON CONFLICT (incarnation, sequence) DO NOTHING RETURNING sequence"
    }

    static func insertTags(count: Int) -> String {
        "INSERT INTO record_tags (tagged_incarnation, tagged_sequence, tag) VALUES "
            + Array(repeating: "(?,?,?)", count: count).joined(separator: ",")
            + " ON CONFLICT (tagged_incarnation, tagged_sequence, tag) DO NOTHING"
    }

    static let recordBytes = "SELECT bytes FROM records WHERE incarnation = ? AND sequence = ?"

    /// The mark of a chain, made where there was none. Writing it is what keeps a second writer of
    /// the same chain waiting until the first one is done.
    static let lockChain = """
        INSERT INTO chains (incarnation, stored_through) VALUES (?, 0)
        ON CONFLICT (incarnation) DO UPDATE SET stored_through = chains.stored_through
        RETURNING stored_through
        """

    static let storedThrough = "SELECT stored_through FROM chains WHERE incarnation = ?"

    /// The sequences after a point, to see how far they go without a gap.
    static let following = """
        SELECT sequence FROM records WHERE incarnation = ? AND sequence > ?
        ORDER BY sequence LIMIT ?
        """

    static let advance = "UPDATE chains SET stored_through = ? WHERE incarnation = ?"

    static let hasRecords = "SELECT incarnation FROM records LIMIT 1"

    static let addPerformance =
        "INSERT INTO performance (hour, agent, model, tier, reason, "
        + performanceSums.joined(separator: ", ") + ") VALUES ("
        + Array(repeating: "?", count: 5 + performanceSums.count).joined(separator: ",")
        + ") ON CONFLICT (agent, hour, model, tier, reason) DO UPDATE SET "
        + performanceSums.map { "\($0) = performance.\($0) + excluded.\($0)" }
        .joined(separator: ", ")

    static let addLatency = """
        INSERT INTO latencies (hour, agent, model, tier, bucket, attempts)
        VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (agent, hour, model, tier, bucket)
        DO UPDATE SET attempts = latencies.attempts + excluded.attempts
        """

    // MARK: Reading

    static let performanceSums = [
        "attempts", "succeeded", "cost", "input_tokens", "cached_input_tokens",
        "cache_write_tokens", "output_tokens", "reasoning_tokens",
    ]

    /// A whole answer of 2xx; an attempt that a policy only observed is judged by its answer, too.
    /// 8: `AttemptRecord.Flags.observed`.
    static let succeeded =
        "(status BETWEEN 200 AND 299 AND (reason = 'admitted' OR (flags & 8) <> 0))"

    /// A sum of 64 bits: PostgreSQL widens SUM(BIGINT) to a decimal.
    static func sum(_ expression: String) -> String { "CAST(SUM(\(expression)) AS BIGINT)" }

    /// COUNT and Σ over records, in the order of `performanceSums`.
    static func sums(succeededIf condition: String) -> String {
        let tokens = performanceSums.dropFirst(2).map(sum)
        return (["COUNT(*)", sum("CASE WHEN \(condition) THEN 1 ELSE 0 END")] + tokens)
            .joined(separator: ", ")
    }

    /// Records once for each of their tags, and once without any, where they are summed by them.
    private static func tagged(_ condition: String) -> String {
        """
        records LEFT JOIN record_tags ON tagged_incarnation = incarnation
          AND tagged_sequence = sequence\(condition)
        """
    }

    private static let withTags = tagged("")
    /// Of those tags alone that are teams'.
    private static let withTeams = tagged(
        " AND SUBSTR(tag, 1, \(Tags.teamPrefix.utf8.count)) = '\(Tags.teamPrefix)'")
    private static let onlyTagged = """
        records JOIN record_tags ON tagged_incarnation = incarnation
          AND tagged_sequence = sequence
        """

    static let tagColumn = "COALESCE(tag, '')"
    static let teamColumn = "COALESCE(SUBSTR(tag, \(Tags.teamPrefix.utf8.count + 1)), '')"

    /// Which records have a tag.
    static let hasTag = """
        EXISTS (SELECT 1 FROM record_tags AS wanted WHERE wanted.tagged_incarnation = incarnation
          AND wanted.tagged_sequence = sequence AND wanted.tag = ?)
        """

    static func breakdown(by columns: [String], where conditions: String) -> String {
        let source =
            columns.contains(tagColumn)
            ? withTags : columns.contains(teamColumn) ? withTeams : "records"
        let list = columns.joined(separator: ", ")
        let provenance = CostSource.allCases.map {
            sum("CASE WHEN source = '\($0.name)' THEN cost ELSE 0 END")
        }
        let all = [sums(succeededIf: succeeded)] + provenance
        return """
            SELECT \(columns.isEmpty ? "" : list + ", ")\(all.joined(separator: ", "))
            FROM \(source)
            WHERE \(conditions)
            \(columns.isEmpty ? "" : "GROUP BY \(list) ORDER BY \(list)") LIMIT ?
            """
    }

    static func performance(where conditions: String) -> String {
        """
        SELECT hour, reason, \(performanceSums.map(sum).joined(separator: ", ")) FROM performance
        WHERE \(conditions) GROUP BY hour, reason ORDER BY hour, reason LIMIT ?
        """
    }

    static func latencies(where conditions: String) -> String {
        """
        SELECT hour, bucket, \(sum("attempts")) FROM latencies
        WHERE \(conditions) GROUP BY hour, bucket ORDER BY hour, bucket LIMIT ?
        """
    }

    /// Σ records of each child that a lease paid for.
    static let byChild = """
        SELECT lease_incarnation, lease_number, child, \(sum("cost")), COUNT(*) FROM records
        WHERE lease_incarnation = ? AND lease_number = ?
        GROUP BY lease_incarnation, lease_number, child ORDER BY child LIMIT ?
        """

    /// Σ records of each holder of accounts whose leases began to be spent within a period. The
    /// inner part is given a wider stretch of time, so that it sees where each lease began.
    static func byAccount(
        _ column: String, leasesWhere conditions: String, accountsWhere more: String
    ) -> String {
        """
        SELECT account, \(sum("cost")), \(sum("records")) FROM (
          SELECT \(column) AS account, SUM(cost) AS cost, COUNT(*) AS records,
            MIN(started_at) AS began
          FROM \(column == "tag" ? onlyTagged : "records")
          WHERE started_at >= ? AND started_at < ? AND \(conditions)
          GROUP BY \(column), lease_incarnation, lease_number) AS leases
        WHERE began >= ? AND began < ? AND \(more)
        GROUP BY account ORDER BY account LIMIT ?
        """
    }

    /// Σ records of one holder of accounts (`column`: subject, tenant, tier or tag) within a
    /// period.
    static func byAccount(_ column: String) -> String {
        """
        SELECT \(column), \(sum("cost")) FROM \(column == "tag" ? onlyTagged : "records")
        WHERE started_at >= ? AND started_at < ? AND \(column) > ?
        GROUP BY \(column) ORDER BY \(column) LIMIT ?
        """
    }

    /// The newest first, in an order that no two records share.
    static func records(where conditions: String) -> String {
        """
        SELECT bytes, subject, tier, tenant, agent, model, request_type, tags FROM records
        WHERE \(conditions)
        ORDER BY started_at DESC, incarnation DESC, sequence DESC LIMIT ?
        """
    }
}
