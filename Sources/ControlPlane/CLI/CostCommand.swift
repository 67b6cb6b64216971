import ArgumentParser
import Foundation
import WeirCore

struct CostCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cost", abstract: "Checks what was spent.",
        subcommands: [CostReconcile.self])
}

struct CostReconcile: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reconcile",
        abstract: "Compares every account of a month with the records that it paid for.",
        discussion: """
            Exit code 0 only when all of them agree to the billionth of a dollar. Settlements and
            records travel apart, so while money is spent an account is right once it was seen to
            agree: what differs is looked at again until --wait is over.
            """)

    @Option(help: "A month, as 2026-11 (default: this one).")
    var period: String?

    @Option(help: "Seconds to look again at what differs.")
    var wait: Int64 = 10

    @Flag(help: "Shows the accounts that agree, too.")
    var all = false

    @OptionGroup var output: OutputOptions
    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        var result = ReconcileResult()
        try await reportingFailures {
            guard wait >= 0 else { throw Failure("--wait needs a number of seconds") }
            let server = try connection.connect()
            let deadline = ContinuousClock.now + .seconds(wait)
            while true {
                let answers = try await Self.pages { try await server.resource(path(cursor: $0)) }
                result.look(answers)
                guard !result.agrees, ContinuousClock.now < deadline else { break }
                try await Task.sleep(for: .milliseconds(500))
            }
            try output.output.print(result.json(all: all)) { result.table(all: all) }
            if output.output == .table { Console.print(result.summary) }
        }
        if !result.agrees { throw ExitCode(Failure.refused) }
    }

    static func pages(_ page: (_ cursor: String?) async throws -> JSONValue) async throws
        -> [JSONValue]
    {
        var answers: [JSONValue] = []
        var cursor: String?
        repeat {
            let answer = try await page(cursor)
            answers.append(answer)
            cursor = answer["next"]?.string
        } while cursor != nil
        return answers
    }

    private func path(cursor: String?) throws -> String {
        var components = URLComponents()
        components.path = "/v1/ledger/reconciliation"
        components.queryItems = [("period", period), ("cursor", cursor)].compactMap { name, value in
            value.map { URLQueryItem(name: name, value: $0) }
        }
        guard let path = components.string else { throw Failure("the period cannot be sent") }
        return path
    }
}

/// What several looks at the accounts found. An account that agreed in one of them is right.
struct ReconcileResult {
    private(set) var period = ""
    private(set) var accounts: [String: JSONValue] = [:]
    private(set) var omitted: Int64 = 0
    private(set) var unnamed: Int64 = 0

    mutating func look(_ answers: [JSONValue]) {
        period = answers.first?["period"]?.string ?? period
        omitted = answers.reduce(0) { $0 + ($1["omitted"]?.int64 ?? 0) }
        unnamed = answers.reduce(0) { $0 + ($1["not_named_by_records"]?.int64 ?? 0) }
        for account in answers.flatMap({ $0["accounts"]?.array ?? [] }) {
            let name = account["account"]?.string ?? ""
            if accounts[name]?["state"] != "agrees" { accounts[name] = account }
        }
    }

    private func rows(_ state: String) -> [JSONValue] {
        accounts.sorted { $0.key < $1.key }.map(\.value).filter { $0["state"]?.string == state }
    }

    var agrees: Bool { omitted == 0 && rows("differs").isEmpty }

    private func shown(all: Bool) -> [JSONValue] {
        rows("differs") + rows("not_compared") + (all ? rows("agrees") : [])
    }

    func json(all: Bool) -> JSONValue {
        [
            "period": .string(period), "agrees": .bool(agrees),
            "accounts_agreeing": .number(JSONNumber(rows("agrees").count)),
            "accounts_differing": .number(JSONNumber(Int64(rows("differs").count) + omitted)),
            "not_named_by_records": .number(JSONNumber(unnamed)),
            "accounts": .array(shown(all: all)),
        ]
    }

    func table(all: Bool) -> Table {
        var table = Table(headings: [
            "ACCOUNT", "STATE", "CONSUMED USD", "RECORDED USD", "DIFFERENCE", "HELD USD", "WHY",
        ])
        table.placeholder = "No account differs."
        table.rows = shown(all: all).map { account in
            func text(_ name: String) -> String { account[name]?.string ?? "-" }
            let causes = (account["causes"]?.array ?? []).map {
                "\($0["cause"]?.string ?? "") \($0["amount_usd"]?.string ?? "")"
            }
            let why = account["obstacle"]?.string ?? causes.joined(separator: ", ")
            return [
                text("account"), text("state"), text("consumed_usd"), text("recorded_usd"),
                text("difference_usd"), text("held_usd"), why,
            ]
        }
        return table
    }

    var summary: String {
        let (right, wrong) = (rows("agrees"), rows("differs"))
        let consumed = right.reduce(NanoUSD.zero) { sum, account in
            // Tenants and tiers pay for the same requests a second time.
            let isUsers = account["account"]?.string?.hasPrefix("usd/user/") ?? false
            let text = account["consumed_usd"]?.string ?? ""
            return isUsers ? sum + (NanoUSD(usd: text) ?? .zero) : sum
        }
        let verb = right.count == 1 ? "account agrees" : "accounts agree"
        var words = "\(period): \(right.count) \(verb)"
        if consumed > .zero { words += " (users' \(consumed.usd) USD)" }
        words +=
            wrong.isEmpty && omitted == 0
            ? "" : "; \(Int64(wrong.count) + omitted) DIFFER"
        let unknown = Int64(rows("not_compared").count) + unnamed
        if unknown > 0 { words += "; \(unknown) cannot be told from records" }
        return words
    }
}
