import WeirCore

/// Which records are meant: those that began in [from, to) and have every value that is named.
package struct RecordFilter: Hashable, Sendable {
    package var from: UnixTime
    package var to: UnixTime
    package var subject: String?
    package var tenant: String?
    package var tier: String?
    package var tag: String?
    package var agent: String?
    package var model: String?
    package var requestType: String?
    package var run: Identifier?
    package var request: Identifier?
    /// What the agent answered, 0 for nothing.
    package var status: UInt16?
    package var reason: Reason?

    package init(from: UnixTime, to: UnixTime, subject: String? = nil) {
        self.from = from
        self.to = to
        self.subject = subject
    }

    /// Conditions for WHERE, and their parameters.
    var conditions: SQLConditions {
        var conditions = SQLConditions()
        conditions.add("started_at >= ?", .integer(from.milliseconds))
        conditions.add("started_at < ?", .integer(to.milliseconds))
        let texts = [
            ("subject", subject), ("tenant", tenant), ("tier", tier), ("agent", agent),
            ("model", model), ("request_type", requestType), ("run", run?.description),
            ("request", request?.description), ("reason", reason?.name),
        ]
        for (column, text) in texts {
            if let text { conditions.add("\(column) = ?", .text(SQLText.storable(text))) }
        }
        if let tag { conditions.add(ArchiveSQL.hasTag, .text(SQLText.storable(tag))) }
        if let status { conditions.add("status = ?", .integer(Int64(status))) }
        return conditions
    }
}

/// Conditions that all must hold; values are parameters, never text of the statement.
struct SQLConditions {
    private(set) var terms: [String] = []
    private(set) var parameters: [SQLValue] = []

    var sql: String { terms.joined(separator: " AND ") }

    mutating func add(_ term: String, _ values: SQLValue...) { add(term, values) }

    mutating func add(_ term: String, _ values: [SQLValue]) {
        terms.append(term)
        parameters += values
    }
}

enum SQLText {
    /// PostgreSQL has no text with a zero byte. Names come from tokens and policies, and one of
    /// them must not keep a record out of the archive, so the byte is shown as what it is not.
    static func storable(_ text: String) -> String {
        guard text.utf8.contains(0) else { return text }
        return String(
            String.UnicodeScalarView(text.unicodeScalars.map { $0.value == 0 ? "\u{FFFD}" : $0 }))
    }
}
