import ArgumentParser
import WeirCore
import WeirPolicy

/// The price tables of the policy that is active, as one catalogue.
struct Prices: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "prices",
        abstract: "Shows what each model costs, by the policy that is active.",
        discussion: "Tokens in USD per million. What is not stated costs what its kind does.")

    @Option(help: "Only what this model costs: by its id, an alias, or with its version.")
    var model: String?

    @OptionGroup var output: OutputOptions
    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        try await reportingFailures {
            let policy = try await connection.connect().resource("/v1/policy")
            let prices = Self.prices(policy["documents"]?.array ?? [], model: model)
            try output.output.print(["prices": .array(prices)]) { Self.table(prices) }
        }
    }

    /// Each price with the table that it stands in and the date of that. A model is looked up as
    /// policies do it: by its id, by an alias, then without its version.
    static func prices(_ documents: [JSONValue], model: String?) -> [JSONValue] {
        let all = all(documents)
        guard let model else { return all }
        let undated = ModelName.withoutVersion(model)
        for name in [model, undated].compactMap(\.self) {
            if let listed = all.first(where: { $0["model"]?.string == name }) { return [listed] }
            if let aliased = all.first(where: {
                ($0["aliases"]?.array ?? []).contains(.string(name))
            }) {
                return [aliased]
            }
        }
        return []
    }

    private static func all(_ documents: [JSONValue]) -> [JSONValue] {
        documents.filter { $0["kind"] == "PriceTable" }.flatMap { document -> [JSONValue] in
            (document["spec"]?["prices"]?.array ?? []).compactMap { price in
                guard var object = price.object else { return nil }
                object["table"] = document["metadata"]?["name"]
                object["dated"] = document["spec"]?["dated"]
                return .object(object)
            }
        }
    }

    static func table(_ prices: [JSONValue]) -> Table {
        var table = Table(headings: [
            "MODEL", "INPUT", "CACHED", "CACHE WRITE", "OUTPUT", "REASONING", "REQUEST", "SECOND",
            "VERSION", "TABLE", "DATED", "ALIASES",
        ])
        for price in prices {
            table.rows.append(row(price, name: price["model"]?.string ?? "", price["tokens"]))
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
                price["table"]?.string ?? "", price["dated"]?.string ?? "",
                aliases.joined(separator: ", "),
            ]
    }
}
