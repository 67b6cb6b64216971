import Testing
import WeirCore

@testable import WeirPolicy

@Suite struct PriceCatalogTests {
    @Test(
        arguments: [
            ("gpt-4o-2024-08-06", "gpt-4o"), ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
            ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"), ("gpt-4-0613", "gpt-4"),
            ("gpt-4o", nil), ("gpt-4-turbo", nil), ("-0613", nil), ("2024-08-06", nil),
            ("o3-2025-4-16", nil), ("llama-2-7b-chat", nil), ("", nil),
        ] as [(String, String?)])
    func versionsAreCutOff(_ name: String, _ expected: String?) {
        #expect(ModelName.withoutVersion(name) == expected)
    }

    private func documents(model: String, prices: JSONValue) throws -> [JSONValue] {
        let named = try PolicyFixture.documents(
            "/documents/2/spec/models", [["id": .string(model)]])
        return named.map { document in
            guard document["kind"] == "PriceTable", var object = document.object,
                var spec = object["spec"]?.object
            else { return document }
            spec["prices"] = .array(
                (spec["prices"]?.array ?? []).filter { $0["model"] != "small" }
                    + (prices.array ?? []))
            object["spec"] = .object(spec)
            return .object(object)
        }
    }

    @Test(
        arguments: [
            ("tiny-2026-01-02", #"[{"model":"tiny","tokens":{"input":"1","output":"2"}}]"#, 2),
            (
                "tiny-v1",
                #"[{"model":"tiny","aliases":["tiny-v1"],"tokens":{"input":"1","output":"3"}}]"#, 3
            ),
            // A version with a price of its own.
            (
                "tiny-2026-01-02",
                #"[{"model":"tiny","tokens":{"input":"1","output":"2"}},"#
                    + #"{"model":"tiny-2026-01-02","tokens":{"input":"1","output":"4"}}]"#, 4
            ),
        ] as [(String, String, Int64)])
    func aModelFindsItsPrice(_ model: String, _ prices: String, _ output: Int64) throws {
        let documents = try documents(model: model, prices: try JSON.parse(prices))
        let policy = try PolicyReader.read(documents)
        let price = try #require(policy.prices[model])
        #expect(price.model == model)
        #expect(price.tokens.output == NanoUSD(output * NanoUSD.nanoPerUSD))
        // And so it does in the projection of its sidecar.
        let projected = try PolicyReader.read(
            Policy.projection(of: documents, agent: "scribe"))
        #expect(projected.prices[model] == price)
    }

    @Test func anUnknownPriceIsStillAProblem() throws {
        let unpriced = try documents(model: "tiny-2026-01-02", prices: [])
        #expect(
            PolicyFixture.problems(unpriced).contains { $0.path == "/documents/2/spec/models/0" })
        let twice = try documents(
            model: "tiny",
            prices: try JSON.parse(
                #"[{"model":"tiny","tokens":{"input":"1","output":"2"}},"#
                    + #"{"model":"other","aliases":["tiny"],"perRequest":"1"}]"#))
        #expect(
            PolicyFixture.problems(twice).contains {
                $0.message == "\"tiny\" has a price already"
            })
    }
}
