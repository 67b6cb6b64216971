import ArgumentParser
import NIOHTTP1
import WeirCore

struct LedgerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ledger", abstract: "Shows who holds money, and writes off who is lost.",
        subcommands: [LedgerHolders.self, LedgerWriteOff.self])
}

struct LedgerHolders: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "holders",
        abstract: "Lists who holds money or requests of accounts, with the last report.",
        discussion: """
            Living holders give back within seconds what they do not need. What a silent one holds
            stays set aside until it comes back with its log, or is written off.
            """)

    @Argument(help: "One incarnation, with each account that it holds something of.")
    var incarnation: Int64?

    @Option(help: "How many holders at most.")
    var limit = 500

    @Option(help: "Only those in this state: alive, silent, adopted or written_off.")
    var state: String?

    @OptionGroup var output: OutputOptions
    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        try await reportingFailures {
            let server = try connection.connect()
            if let incarnation {
                let holder = try await server.resource("/v1/ledger/holders/\(incarnation)")
                return try output.output.print(holder) { Table.shares(holder) }
            }
            guard limit > 0 else { throw Failure("--limit needs a number above 0") }
            let list = try await Self.list(limit: limit, state: state) {
                try await server.resource("/v1/ledger/holders" + $0)
            }
            try output.output.print(["holders": .array(list.holders)]) {
                Table.holders(list.holders)
            }
            if list.hasMore { Console.error("there are more: --limit \(limit * 2)") }
        }
    }

    /// Page by page until there are enough, or no more.
    static func list(
        limit: Int, state: String?, page: (_ query: String) async throws -> JSONValue
    ) async throws -> (holders: [JSONValue], hasMore: Bool) {
        var holders: [JSONValue] = []
        var cursor: String?
        repeat {
            let answer = try await page(cursor.map { "?cursor=" + $0 } ?? "")
            holders += (answer["holders"]?.array ?? []).filter {
                state == nil || $0["state"]?.string == state
            }
            cursor = answer["next"]?.string
        } while cursor != nil && holders.count <= limit
        return (Array(holders.prefix(limit)), cursor != nil || holders.count > limit)
    }
}

struct LedgerWriteOff: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "write-off",
        abstract: "Counts everything that a lost holder still holds as spent, for good.",
        discussion: """
            For a holder that will not come back with its log: nobody will ever say what it spent.
            Without --yes nothing is changed, and what would be counted is shown.
            """)

    @Argument(help: "The incarnation, as `weir ledger holders` shows it.")
    var incarnation: Int64

    @Flag(help: "Only shows what would be counted as spent.")
    var dryRun = false

    @Flag(help: "Does it.")
    var yes = false

    @Flag(help: "Also when it was heard lately: it has to join anew.")
    var force = false

    @Option(help: "Why; kept in the log.")
    var reason: String?

    @OptionGroup var output: OutputOptions
    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        try await reportingFailures {
            let isDryRun = dryRun || !yes
            guard isDryRun || reason != nil else {
                throw Failure("--reason is needed: why is this money gone?")
            }
            var body: JSONObject = ["dry_run": .bool(isDryRun), "force": .bool(force)]
            body["reason"] = reason.map { .string($0) }
            let server = try connection.connect()
            let answer = try await server.succeeded(
                try await server.send(
                    .POST, "/v1/ledger/holders/\(incarnation)/write-off", body: .object(body)))
            try output.output.print(answer) { Table.shares(answer) }
            Console.error(Self.summary(answer))
            if !dryRun, !yes { throw Failure("nothing was changed: repeat it with --yes") }
        }
    }

    static func summary(_ answer: JSONValue) -> String {
        let isDryRun = answer["dry_run"]?.bool == true
        let accounts = (answer["accounts"]?.array ?? []).count
        let all = Int64(accounts) + (answer["accounts_omitted"]?.int64 ?? 0)
        var words = "\(answer["incarnation"]?.int64 ?? 0) (\(answer["instance"]?.string ?? "")): "
        words += "\(answer["spent_usd"]?.string ?? "") USD"
        if let requests = answer["spent_requests"]?.int64, requests > 0 {
            words += " and \(requests) requests"
        }
        words += " of \(all == 1 ? "1 account" : "\(all) accounts") "
        words += isDryRun ? "would count as spent" : "count as spent"
        if let calls = answer["awaited_calls"]?.int64, calls > 0 {
            words += "; \(calls) calls of others to it cost their whole amount"
        }
        return words
    }
}

extension Table {
    static func holders(_ holders: [JSONValue]) -> Table {
        var table = Table(headings: [
            "INCARNATION", "ROLE", "AGENT", "INSTANCE", "STATE", "LAST REPORT", "ACCOUNTS",
            "HELD USD", "HELD REQUESTS", "AWAITED",
        ])
        table.placeholder = "Nobody holds anything."
        table.rows = holders.map { holder in
            func number(_ name: String) -> String { holder[name]?.int64.map { "\($0)" } ?? "-" }
            var state = holder["state"]?.string ?? ""
            if let by = holder["adopted_by"]?.int64 { state += " by \(by)" }
            if holder["missing_since"] != nil { state += ", maxLease withheld" }
            return [
                number("incarnation"), holder["role"]?.string ?? "",
                holder["agent"]?.string ?? "-", holder["instance"]?.string ?? "", state,
                holder["last_report_at"]?.string ?? "over a day ago", number("accounts_held"),
                holder["held_usd"]?.string ?? "", number("held_requests"), number("awaited_calls"),
            ]
        }
        return table
    }

    static func shares(_ holder: JSONValue) -> Table {
        var table = Table(headings: ["ACCOUNT", "HELD"])
        table.placeholder = "It holds nothing."
        table.rows = (holder["accounts"]?.array ?? []).map { share in
            let amount = share["amount"]
            return [
                share["account"]?.string ?? "",
                amount?.string.map { $0 + " USD" } ?? "\(amount?.int64 ?? 0) requests",
            ]
        }
        if let omitted = holder["accounts_omitted"]?.int64, omitted > 0 {
            table.rows.append(["and \(omitted) more", ""])
        }
        return table
    }
}
