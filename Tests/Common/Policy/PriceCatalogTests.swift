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

    // MARK: Dates

    private static let dated = #"""
        [{"model":"tiny","perRequest":"3","validFrom":"2027-01-01","version":3},
         {"model":"tiny","perRequest":"1","validFrom":"2026-11-01"},
         {"model":"tiny","perRequest":"2","validFrom":"2026-12-01T12:00:00Z","version":2}]
        """#

    @Test(
        arguments: [
            // Before the first of them, too: no model is without a price.
            ("2026-10-01T00:00:00Z", 1, "2026-12-01T12:00:00Z"),
            ("2026-12-01T11:59:59.999Z", 1, "2026-12-01T12:00:00Z"),
            ("2026-12-01T12:00:00Z", 2, "2027-01-01T00:00:00Z"),
            ("2026-12-31T23:59:59Z", 2, "2027-01-01T00:00:00Z"),
            ("2027-01-01T00:00:00Z", 3, nil),
        ] as [(String, Int64, String?)])
    func aPriceHoldsFromItsDayOnUntilTheNext(_ now: String, _ usd: Int64, _ next: String?) throws {
        let documents = try documents(
            model: "tiny-2026-01-02", prices: try JSON.parse(Self.dated))
        let time = try #require(UnixTime(rfc3339: now))
        // In the projection of its sidecar as in the whole, and by a name with a version.
        for documents in [documents, Policy.projection(of: documents, agent: "scribe")] {
            let policy = try PolicyReader.read(documents)
            let price = try #require(policy.priced(at: time).prices["tiny-2026-01-02"])
            #expect(price.perRequest == NanoUSD(usd * NanoUSD.nanoPerUSD))
            #expect(price.version == usd)
            #expect(price.model == "tiny-2026-01-02")
            #expect(policy.nextPriceChange(after: time)?.rfc3339 == next)
            #expect(policy.hasSamePrices(at: time, and: time))
            let late = UnixTime(milliseconds: time.milliseconds + 366 * 86_400_000)
            #expect(policy.hasSamePrices(at: time, and: late) == (next == nil))
        }
    }

    @Test func aroundTheMomentTheDearerPriceBounds() throws {
        let prices = try JSON.parse(
            #"""
            [{"model":"tiny","tokens":{"input":"4","output":"5"},"perRequest":"1"},
             {"model":"tiny","tokens":{"input":"3","output":"6"},"validFrom":"2026-12-01",
              "version":2,"steps":[{"inputTokensAbove":9,"tokens":{"input":"7","output":"1"}}]}]
            """#)
        let policy = try PolicyReader.read(documents(model: "tiny", prices: prices))
        let moment = try #require(UnixTime(rfc3339: "2026-12-01T00:00:00Z")).milliseconds
        func price(_ offset: Int64) throws -> ModelPrice {
            let time = UnixTime(milliseconds: moment + offset)
            return try #require(policy.priced(at: time, slackMilliseconds: 100).prices["tiny"])
        }
        func dollars(_ price: ModelPrice) -> [Int64] {
            let all =
                [price.tokens.input, price.tokens.output, price.perRequest]
                + price.steps.flatMap { [$0.tokens.input, $0.tokens.output] }
            return all.map { $0.rawValue / NanoUSD.nanoPerUSD }
        }
        #expect(try dollars(price(-101)) == [4, 5, 1])
        for offset in [-100, 0, 99] as [Int64] {
            #expect(try dollars(price(offset)) == [4, 6, 1, 7, 5])
        }
        #expect(try dollars(price(100)) == [3, 6, 0, 7, 1])
    }

    @Test func aTablesDayIsThatOfItsPricesWithoutOne() throws {
        let later = try JSON.parse(
            #"""
            {"apiVersion": "weir.mesh/v1", "kind": "PriceTable", "metadata": {"name": "later"},
             "spec": {"dated": "2026-11-20", "validFrom": "2026-12-01", "prices": [
               {"model": "small", "perRequest": "2", "version": 2},
               {"model": "big", "perRequest": "2", "version": 2, "validFrom": "2026-12-02"}]}}
            """#)
        let policy = try PolicyReader.read(PolicyFixture.documents() + [later])
        let days = ["small", "big"].map { policy.prices[$0]?.later.first?.validFrom.rfc3339 }
        #expect(days == ["2026-12-01T00:00:00Z", "2026-12-02T00:00:00Z"])
    }

    @Test(
        arguments: [
            (
                #"{"model":"tiny","perRequest":"2","validFrom":"2026-12-01"}"#,
                "versions of \"tiny\" must rise with validFrom: records name them"
            ),
            (
                #"{"model":"tiny","perRequest":"2","version":2}"#,
                "\"tiny\" has a price already"
            ),
            (
                #"{"model":"tiny","perRequest":"2","version":2,"validFrom":"soon"}"#,
                "must be a date in UTC: \"2026-11-01\" or \"2026-11-01T12:00:00Z\""
            ),
        ])
    func pricesOfOneModelAreToldApart(_ second: String, _ message: String) throws {
        let prices = #"[{"model":"tiny","perRequest":"1"},"# + second + "]"
        let documents = try documents(model: "tiny", prices: try JSON.parse(prices))
        #expect(PolicyFixture.problems(documents).contains { $0.message == message })
    }
}
