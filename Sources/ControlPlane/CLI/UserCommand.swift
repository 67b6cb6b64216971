import ArgumentParser
import NIOHTTP1
import WeirCore

struct UserCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "user", abstract: "Shows users, and changes their tiers and budgets.",
        subcommands: [UserGet.self, UserSetTier.self, UserSetLimit.self])
}

struct UserGet: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "get", abstract: "Shows a user's tier, limits and what is spent.")

    @Argument(help: "The user.")
    var user: String

    @OptionGroup var output: OutputOptions
    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        try await reportingFailures {
            let answer = try await connection.connect().resource(
                "/v1/users/" + (try PathSegment.encode(user)))
            try output.output.print(answer) { Table.user(answer) }
        }
    }
}

struct UserSetTier: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "set-tier",
        abstract: "Binds a user to a tier, whatever the user's tokens say.")

    @Argument(help: "The user.")
    var user: String

    @Argument(help: "The tier.")
    var tier: String

    @Option(help: "The tenant too.")
    var tenant: String?

    @Option(help: "Why; kept in the log.")
    var reason: String?

    @OptionGroup var output: OutputOptions
    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        try await reportingFailures {
            var body: JSONObject = ["tier": .string(tier)]
            body["tenant"] = tenant.map { .string($0) }
            body["reason"] = reason.map { .string($0) }
            let server = try connection.connect()
            let answer = try await server.succeeded(
                try await server.send(
                    .PUT, "/v1/users/" + (try PathSegment.encode(user)) + "/tier",
                    body: .object(body)))
            try output.output.print(answer) { Table.user(answer) }
        }
    }
}

struct UserSetLimit: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "set-limit",
        abstract: "Sets a user's monthly limit in place of the tier's, or takes it back.")

    @Argument(help: "The user.")
    var user: String

    @Argument(help: "USD a month, as 25.50; or \"tier\" for the tier's own.")
    var limit: String

    @Option(help: "Why; kept in the log.")
    var reason: String?

    @OptionGroup var output: OutputOptions
    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        try await reportingFailures {
            var body: JSONObject = ["monthly_limit_usd": limit == "tier" ? .null : .string(limit)]
            body["reason"] = reason.map { .string($0) }
            let server = try connection.connect()
            let answer = try await server.succeeded(
                try await server.send(
                    .PUT, "/v1/users/" + (try PathSegment.encode(user)) + "/limit",
                    body: .object(body)))
            try output.output.print(answer) { Table.user(answer) }
        }
    }
}

extension Table {
    fileprivate static func user(_ user: JSONValue) -> Table {
        var table = Table(headings: [
            "USER", "TIER", "TENANT", "LIMIT USD", "BY ADMIN", "BY USER", "SPENT USD", "RESETS",
        ])
        let limits = user["limits_usd"]
        table.rows = [
            [
                user["user"]?.string ?? "", user["tier"]?.string ?? "",
                user["tenant"]?.string ?? "-", user["monthly_limit_usd"]?.string ?? "-",
                limits?["admin"]?.string ?? "-", limits?["user"]?.string ?? "-",
                user["spent_usd"]?.string ?? "-", user["resets_at"]?.string ?? "-",
            ]
        ]
        return table
    }
}
