import ArgumentParser
import WeirCore

struct Get: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Shows the policy, the sidecars, what was spent or what was changed.",
        subcommands: [GetPolicy.self, GetSidecars.self, GetUsage.self, GetAdminLog.self])
}

struct OutputOptions: ParsableArguments {
    @Option(name: .shortAndLong, help: "table, json or yaml.")
    var output: OutputFormat = .table
}

extension OutputFormat: ExpressibleByArgument {}

struct GetPolicy: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "policy", abstract: "Shows the policy that is active.")

    @Option(help: "An earlier version, by its number.")
    var version: Int64?

    @OptionGroup var output: OutputOptions
    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        try await reportingFailures {
            let server = try connection.connect()
            let path = version.map { "/v1/policy/versions/\($0)" } ?? "/v1/policy"
            let policy = try await server.resource(path)
            try output.output.print(policy) {
                var table = Table(headings: ["KIND", "NAME"])
                table.rows = (policy["documents"]?.array ?? []).map {
                    [$0["kind"]?.string ?? "", $0["metadata"]?["name"]?.string ?? ""]
                }
                return table
            }
        }
    }
}

struct GetSidecars: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sidecars", abstract: "Shows every sidecar and the policy that it runs.")

    @OptionGroup var output: OutputOptions
    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        try await reportingFailures {
            let answer = try await connection.connect().resource("/v1/sidecars")
            try output.output.print(answer) {
                var table = Table(headings: [
                    "INSTANCE", "ROLE", "AGENT", "POLICY", "STATE", "HEALTH", "ENDPOINT",
                    "PROBLEMS",
                ])
                table.rows = (answer["sidecars"]?.array ?? []).map(Self.row)
                return table
            }
        }
    }

    private static func row(_ sidecar: JSONValue) -> [String] {
        let policy = sidecar["policy"]
        let isConnected = sidecar["connected"]?.bool == true
        return [
            sidecar["instance"]?.string ?? "", sidecar["role"]?.string ?? "",
            sidecar["agent"]?.string ?? "-",
            VersionText(policy?["applied"])?.description ?? "-",
            policy?["state"]?.string ?? "-",
            isConnected ? sidecar["health"]?["state"]?.string ?? "unknown" : "disconnected",
            sidecar["endpoint"]?.string ?? "-",
            // The sidecar's own words, where it refused a policy.
            (policy?["refused"]?["problems"]?.array ?? []).map {
                "\($0["path"]?.string ?? ""): \($0["message"]?.string ?? "")"
            }.joined(separator: "; "),
        ]
    }
}

struct GetUsage: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "usage", abstract: "Shows what was used and what it cost.")

    @Option(
        help: "Group by these, with commas: agent, model, tier, user, tenant, day, type, tag, team."
    )
    var by = "agent"

    @Option(help: "From this day on (YYYY-MM-DD, UTC).")
    var from: String?

    @Option(help: "Up to and with this day (YYYY-MM-DD, UTC).")
    var to: String?

    @Option(help: "Of this user only.")
    var user: String?

    @Option(help: "Of this tenant only.")
    var tenant: String?

    @Option(help: "Of requests with this tag only.")
    var tag: String?

    @OptionGroup var output: OutputOptions
    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        try await reportingFailures {
            let allowed = "abcdefghijklmnopqrstuvwxyz,0123456789-"
            let parameters = [("by", by), ("from", from), ("to", to)].compactMap { name, value in
                value.map { (name, $0) }
            }
            guard parameters.allSatisfy({ $0.1.allSatisfy(allowed.contains) }) else {
                throw Failure("--by takes names with commas, --from and --to take YYYY-MM-DD")
            }
            let names = try [("user", user), ("tenant", tenant), ("tag", tag)].compactMap {
                name, value in
                try value.map { (name, try PathSegment.encode($0)) }
            }
            let query = (parameters + names).map { "\($0.0)=\($0.1)" }.joined(separator: "&")
            let answer = try await connection.connect().resource("/v1/usage?" + query)
            try output.output.print(answer) { Self.table(answer) }
        }
    }

    private static func table(_ answer: JSONValue) -> Table {
        let dimensions = (answer["by"]?.array ?? []).compactMap(\.string)
        var table = Table(
            headings: dimensions.map { $0.uppercased() }
                + ["ATTEMPTS", "INPUT TOKENS", "OUTPUT TOKENS", "COST USD"])
        table.rows = (answer["usage"]?.array ?? []).map { row in
            dimensions.map { row[$0]?.string ?? "-" }
                + ["attempts", "input_tokens", "output_tokens"].map {
                    row[$0]?.int64.map { String($0) } ?? "-"
                } + [row["cost_usd"]?.string ?? "-"]
        }
        return table
    }
}

struct GetAdminLog: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "admin-log",
        abstract: "Shows who changed tiers, budgets and keys, and why, the newest first.")

    @Option(help: "How many changes.")
    var limit = 20

    @OptionGroup var output: OutputOptions
    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        try await reportingFailures {
            let answer = try await connection.connect().resource("/v1/admin-log?limit=\(limit)")
            try output.output.print(answer) {
                let names = ["at", "author", "action", "subject", "detail", "reason"]
                var table = Table(headings: names.map { $0.uppercased() })
                table.rows = (answer["actions"]?.array ?? []).map { action in
                    names.map { action[$0]?.string ?? "" }
                }
                return table
            }
        }
    }
}
