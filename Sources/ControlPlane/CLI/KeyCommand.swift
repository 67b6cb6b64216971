import ArgumentParser
import Foundation
import NIOHTTP1
import WeirCore

struct KeyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "key", abstract: "Makes, lists and revokes users' API keys.",
        subcommands: [KeyCreate.self, KeyList.self, KeyRevoke.self])
}

struct KeyCreate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create",
        abstract: "Prints a new API key. It is shown this once; only its hash is kept.")

    @Option(help: "Whose key.")
    var user: String

    @Option(help: "The user's tier, where nobody has seen the user yet.")
    var tier: String?

    @Option(help: "The user's tenant, where nobody has seen the user yet.")
    var tenant: String?

    @Option(parsing: .singleValue, help: "A role: user, operator or admin; may be repeated.")
    var role: [String] = []

    @Option(
        parsing: .singleValue,
        help: "A tag of all its requests, as team:search; may be repeated.")
    var tag: [String] = []

    @Option(help: "How long it is valid: a number with s, m, h or d (default: until revoked).")
    var ttl: String?

    @Option(help: "USD that this key spends in a month at most, inside the user's own budget.")
    var budget: String?

    @Option(help: "What it is for; kept with the key and in the log.")
    var note: String?

    @OptionGroup var output: OutputOptions
    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        try await reportingFailures {
            let server = try connection.connect()
            let answer = try await server.send(.POST, "/v1/keys", body: try body())
            let key = try await server.succeeded(answer)
            guard output.output == .table else {
                return try output.output.print(key) { Table.keys([key]) }
            }
            // The key alone goes to standard output, so that it can be put where it belongs.
            Console.error("key \(key["id"]?.string ?? "") of \(user); it is not shown again")
            Console.print(key["key"]?.string ?? "")
        }
    }

    func body() throws -> JSONValue {
        var body: JSONObject = ["user": .string(user)]
        body["tier"] = tier.map { .string($0) }
        body["tenant"] = tenant.map { .string($0) }
        if !role.isEmpty { body["roles"] = .array(role.map { .string($0) }) }
        if !tag.isEmpty { body["tags"] = .array(tag.map { .string($0) }) }
        body["monthly_limit_usd"] = budget.map { .string($0) }
        body["note"] = note.map { .string($0) }
        if let ttl {
            guard let seconds = TokenMint.seconds(ttl) else {
                throw Failure("--ttl takes a number with s, m, h or d, not \(ttl)")
            }
            body["valid_seconds"] = .number(JSONNumber(seconds))
        }
        return .object(body)
    }
}

struct KeyList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "Lists the keys that are not revoked, the newest first.")

    @Option(help: "Of this user alone.")
    var user: String?

    @OptionGroup var output: OutputOptions
    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        try await reportingFailures {
            let query = try user.map { "?user=" + (try PathSegment.encode($0)) } ?? ""
            let answer = try await connection.connect().resource("/v1/keys" + query)
            try output.output.print(answer) { Table.keys(answer["keys"]?.array ?? []) }
        }
    }
}

struct KeyRevoke: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "revoke", abstract: "Revokes a key, at every gateway within seconds.")

    @Argument(help: "The key's id, as `weir key list` shows it.")
    var id: String

    @Option(help: "Why; kept in the log.")
    var reason: String?

    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        try await reportingFailures {
            let server = try connection.connect()
            let query = try reason.map { "?reason=" + (try PathSegment.encode($0)) } ?? ""
            let answer = try await server.send(
                .DELETE, "/v1/keys/" + (try PathSegment.encode(id)) + query)
            let key = try await server.succeeded(answer)
            Console.error("key \(id) of \(key["user"]?.string ?? "") is revoked")
        }
    }
}

extension Table {
    fileprivate static func keys(_ keys: [JSONValue]) -> Table {
        var table = Table(headings: [
            "ID", "USER", "TIER", "ROLES", "TAGS", "BUDGET USD", "EXPIRES", "CREATED", "NOTE",
        ])
        table.rows = keys.map { key in
            [
                key["id"]?.string ?? "", key["user"]?.string ?? "", key["tier"]?.string ?? "-",
                (key["roles"]?.array ?? []).compactMap(\.string).joined(separator: ","),
                (key["tags"]?.array ?? []).compactMap(\.string).joined(separator: ","),
                key["monthly_limit_usd"]?.string ?? "-", key["expires_at"]?.string ?? "never",
                key["created_at"]?.string ?? "", key["note"]?.string ?? "",
            ]
        }
        return table
    }
}

/// A name inside a URL (RFC 3986 §2.3): everything but unreserved characters is encoded.
enum PathSegment {
    private static let unreserved = CharacterSet(
        charactersIn: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

    static func encode(_ text: String) throws -> String {
        guard let encoded = text.addingPercentEncoding(withAllowedCharacters: unreserved),
            !encoded.isEmpty
        else { throw Failure("an empty name") }
        return encoded
    }
}
