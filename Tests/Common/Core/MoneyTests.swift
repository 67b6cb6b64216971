import Testing
import WeirCore

@Suite struct MoneyTests {
    @Test(
        arguments: [
            ("0", 0), ("5", 5_000_000_000), ("0.000120", 120_000), ("12.000000001", 12_000_000_001),
            ("-0.5", -500_000_000), ("9223372036.854775807", .max), ("00.10", 100_000_000),
            ("", nil), ("-", nil), (".5", nil), ("5.", nil), ("1e3", nil), ("+1", nil), (" 1", nil),
            ("1.0000000001", nil), ("9223372036.854775808", nil), ("99999999999999999999", nil),
            ("1,5", nil), ("١", nil), ("--1", nil), ("1.2.3", nil), ("1.-5", nil),
        ] as [(String, Int64?)])
    func readsDollars(text: String, nano: Int64?) {
        #expect(NanoUSD(usd: text)?.rawValue == nano)
    }

    @Test(
        arguments: [
            (0, "0.000000"), (1, "0.000000001"), (120_000, "0.000120"), (5_000_000_000, "5.000000"),
            (-1_500_000_000, "-1.500000"), (123_456_789, "0.123456789"), (1_000_100, "0.0010001"),
            (.max, "9223372036.854775807"), (.min, "-9223372036.854775808"),
        ] as [(Int64, String)])
    func writesDollars(nano: Int64, text: String) {
        #expect(NanoUSD(nano).usd == text)
    }

    @Test(arguments: [0, 1, -1, 999_999_999, 1_000_000_000, .max, .min + 1] as [Int64])
    func dollarsSurviveTheirText(nano: Int64) {
        #expect(NanoUSD(usd: NanoUSD(nano).usd)?.rawValue == nano)
    }

    @Test(
        arguments: [
            ("120000", 120_000), ("-5", -5), ("0", 0), ("+5", nil), ("", nil), ("1.0", nil),
            ("9223372036854775808", nil), ("1e15", nil), (" 1", nil),
        ] as [(String, Int64?)])
    func readsTheWireForm(text: String, nano: Int64?) {
        #expect(NanoUSD(wire: text)?.rawValue == nano)
    }

    @Test func arithmeticSaturates() {
        let most = NanoUSD(.max)
        let least = NanoUSD(.min)
        #expect(most + NanoUSD(1) == most)
        #expect(least - NanoUSD(1) == least)
        #expect(NanoUSD(1) - least == most)
        #expect(least + NanoUSD(-1) == least)
    }

    @Test(
        arguments: [
            (1, 1, 1), (1_000_000, 10, 10), (1, 10_000_000_000, 10_000), (3, 333_333, 1),
            (0, 5, 0), (-5, 5, 0), (5, -5, 0), (.max, .max, .max),
        ] as [(Int64, Int64, Int64)])
    func costRoundsUpAndSaturates(quantity: Int64, price: Int64, cost: Int64) {
        let result = NanoUSD.cost(quantity: quantity, pricePerMillion: NanoUSD(price))
        #expect(result.rawValue == cost)
    }

    @Test func codesAsADecimalString() throws {
        #expect(try JSON.encode([NanoUSD(120_000)]) == Array(#"["120000"]"#.utf8))
        let read = try JSON.decode([NanoUSD].self, from: Array(#"["120000"]"#.utf8))
        #expect(read == [NanoUSD(120_000)])
        for text in ["[120000]", #"["1.5"]"#, "[null]"] {
            #expect(throws: DecodingError.self) {
                try JSON.decode([NanoUSD].self, from: Array(text.utf8))
            }
        }
    }
}
