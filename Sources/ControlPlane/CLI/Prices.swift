import ArgumentParser
import Foundation
import WeirCore
import WeirPolicy

/// The price tables of the policy that is active, as one catalogue.
struct Prices: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "prices",
        abstract: "Shows what each model costs, by the policy that is active.",
        discussion: """
            Tokens in USD per million. What is not stated costs what its kind does. A model with \
            several prices has that with a star now.
            """)

    @Option(help: "Only what this model costs: by its id, an alias, or with its version.")
    var model: String?

    @OptionGroup var output: OutputOptions
    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        try await reportingFailures {
            let policy = try await connection.connect().resource("/v1/policy")
            let now = UnixTime(seconds: Int64(Date().timeIntervalSince1970))
            let prices = Self.prices(policy["documents"]?.array ?? [], model: model, at: now)
            try output.output.print(["prices": .array(prices)]) { Self.table(prices) }
        }
    }

    /// Each price with the table that it stands in and the date of that. A model is looked up as
    /// policies do it: by its id, by an alias, then without its version.
    static func prices(
        _ documents: [JSONValue], model: String?, at now: UnixTime
    ) -> [JSONValue] {
        let all = marked(all(documents), at: now)
        guard let model else { return all }
        let undated = ModelName.withoutVersion(model)
        for name in [model, undated].compactMap(\.self) {
            let listed = all.filter { $0["model"]?.string == name }
            if !listed.isEmpty { return listed }
            let aliased = all.first { ($0["aliases"]?.array ?? []).contains(.string(name)) }
            if let aliased { return all.filter { $0["model"] == aliased["model"] } }
        }
        return []
    }

    /// Those that hold now say so: of each model the last whose time has come, or the first.
    private static func marked(_ prices: [JSONValue], at now: UnixTime) -> [JSONValue] {
        func from(_ price: JSONValue) -> Int64 {
            time(price)?.milliseconds ?? .min
        }
        var inForce: [String: Int64] = [:]
        for (model, entries) in Dictionary(grouping: prices, by: { $0["model"]?.string ?? "" }) {
            let times = entries.map(from).sorted()
            inForce[model] = times.last { $0 <= now.milliseconds } ?? times.first
        }
        return prices.map { price in
            guard var object = price.object else { return price }
            object["in_force"] = .bool(inForce[price["model"]?.string ?? ""] == from(price))
            return .object(object)
        }
    }

    private static func time(_ price: JSONValue) -> UnixTime? {
        guard let text = price["validFrom"]?.string else { return nil }
        return UnixTime(rfc3339: text) ?? UnixTime(rfc3339: text + "T00:00:00Z")
    }

    private static func all(_ documents: [JSONValue]) -> [JSONValue] {
        documents.filter { $0["kind"] == "PriceTable" }.flatMap { document -> [JSONValue] in
            (document["spec"]?["prices"]?.array ?? []).compactMap { price in
                guard var object = price.object else { return nil }
                object["table"] = document["metadata"]?["name"]
                object["dated"] = document["spec"]?["dated"]
                object["validFrom"] = object["validFrom"] ?? document["spec"]?["validFrom"]
                return .object(object)
            }
        }
    }

    static func table(_ prices: [JSONValue]) -> Table {
        var table = Table(headings: [
            "MODEL", "INPUT", "CACHED", "CACHE WRITE", "OUTPUT", "REASONING", "REQUEST", "SECOND",
            "VERSION", "VALID FROM", "TABLE", "DATED", "ALIASES",
        ])
        let counts = Dictionary(grouping: prices) { $0["model"] ?? .null }.mapValues(\.count)
        for price in prices {
            let isOneOfSeveral = counts[price["model"] ?? .null] ?? 0 > 1
            let star = isOneOfSeveral && price["in_force"] == true ? " *" : ""
            table.rows.append(
                row(price, name: (price["model"]?.string ?? "") + star, price["tokens"]))
            for step in price["steps"]?.array ?? [] {
                let above = step["inputTokensAbove"]?.int64 ?? 0
                table.rows.append(row([:], name: "  above \(above) tokens", step["tokens"]))
            }
        }
        return table
    }

    private static func row(_ price: JSONValue, name: String, _ tokens: JSONValue?) -> [String] {
        let kinds = ["input", "cachedInput", "cacheWrite", "output", "reasoning"]
        let aliases = (price["aliases"]?.array ?? []).compactMap(\.string)
        return [name] + kinds.map { tokens?[$0]?.string ?? "-" }
            + ["perRequest", "perSecond"].map { price[$0]?.string ?? "-" }
            + [
                price["version"]?.int64.map { String($0) } ?? (price == [:] ? "" : "1"),
                price["validFrom"]?.string ?? "",
                price["table"]?.string ?? "", price["dated"]?.string ?? "",
                aliases.joined(separator: ", "),
            ]
    }
}
