import ArgumentParser
import Foundation
import WeirCore

struct Audit: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Shows what was done, by whom, and what it cost.",
        subcommands: [AuditList.self])
}

struct AuditList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "Lists the records of attempts, the newest first.")

    @Option(help: "From this time on (2026-11-22 or 2026-11-22T14:20:00Z).")
    var from: String?

    @Option(help: "Before this time.")
    var to: String?

    @Option var user: String?
    @Option var tenant: String?
    @Option var tier: String?
    @Option var tag: String?
    @Option var agent: String?
    @Option var model: String?

    @Option(help: "Of this request type.")
    var type: String?

    @Option(help: "Of this run (run_…).")
    var run: String?

    @Option(help: "Of this request (req_…).")
    var request: String?

    @Option(help: "What the agent answered, 0 for nothing.")
    var status: Int?

    @Option(help: "What became of it, as admitted or upstream_error.")
    var reason: String?

    @Option(help: "At most so many records.")
    var limit = 50

    @OptionGroup var output: OutputOptions
    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        try await reportingFailures {
            guard limit > 0 else { throw Failure("--limit needs a number above 0") }
            let server = try connection.connect()
            let records = try await Self.records(limit) { cursor, count in
                try await server.resource(path(cursor: cursor, limit: count))
            }
            try output.output.print(["records": .array(records)]) { Self.table(records) }
        }
    }

    /// Page after page, until there are enough or no more.
    static func records(
        _ limit: Int, page: (_ cursor: String?, _ limit: Int) async throws -> JSONValue
    ) async throws -> [JSONValue] {
        var records: [JSONValue] = []
        var cursor: String?
        repeat {
            let answer = try await page(cursor, min(limit - records.count, 500))
            records += answer["records"]?.array ?? []
            cursor = answer["next"]?.string
        } while cursor != nil && records.count < limit
        return records
    }

    func path(cursor: String?, limit: Int) throws -> String {
        var components = URLComponents()
        components.path = "/v1/audit"
        components.queryItems = [
            ("from", from), ("to", to), ("user", user), ("tenant", tenant), ("tier", tier),
            ("tag", tag),
            ("agent", agent), ("model", model), ("type", type), ("run", run),
            ("request", request), ("status", status.map { String($0) }), ("reason", reason),
            ("limit", String(limit)), ("cursor", cursor),
        ].compactMap { name, value in value.map { URLQueryItem(name: name, value: $0) } }
        // A plus sign is a space to many servers.
        components.percentEncodedQuery = components.percentEncodedQuery?
            .replacing("+", with: "%2B")
        guard let path = components.string else { throw Failure("a filter cannot be sent") }
        return path
    }

    static func table(_ records: [JSONValue]) -> Table {
        var table = Table(headings: [
            "STARTED", "REQUEST", "USER", "AGENT", "MODEL", "STATUS", "REASON", "LATENCY MS",
            "COST USD", "SOURCE",
        ])
        table.rows = records.map { record in
            func text(_ name: String) -> String { record[name]?.string ?? "-" }
            let status = record["status"]?.int64 ?? 0
            let latency = record["latency_us"]?.int64.map { String(($0 + 500) / 1_000) }
            return [
                text("started_at"), text("request"), text("user"), text("agent"), text("model"),
                status == 0 ? "-" : String(status), text("reason"), latency ?? "-",
                text("cost_usd"), text("cost_source"),
            ]
        }
        return table
    }
}
