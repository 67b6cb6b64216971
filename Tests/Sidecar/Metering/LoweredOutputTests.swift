import Testing
import WeirCore
import WeirPolicy

@testable import SidecarCore

/// LEDGER, "Worst case of an attempt": the output limit is lowered to what there is money for.
@Suite struct LoweredOutputTests {
    private let path = "/v1/chat/completions"
    private let body = Array(
        #"{"messages":[{"role":"user","content":"Hello"}],"max_tokens":500,"n":2}"#.utf8)

    private var bounder: WorstCase {
        let price = AdmissionFixture.price()
        return WorstCase(
            agent: AdmissionFixture.openAI(), prices: [price.model: price], outputTokensMax: nil)
    }

    @Test(arguments: [400, 419, 420, 421, 1_000, 5_000, 10_098, 10_099, 20_000] as [Int64])
    func asMuchAsTheAmountPaysFor(_ amount: Int64) throws {
        let whole = try bounder.bound(method: "POST", path: path, body: body)
        let lowered = try bounder.bound(
            method: "POST", path: path, body: body, bound: whole, within: NanoUSD(amount))
        let input = whole.inputTokensMax
        let each = min(500, (amount - input) / 20)
        guard each >= WorstCase.loweredOutputMin else {
            return #expect(lowered == nil)
        }
        let bound = try #require(lowered)
        #expect(bound.worstCase == NanoUSD(input + each * 20))
        guard each < 500 else { return #expect(bound == whole) }
        #expect(bound.writtenOutputMax == each)
        let sent = try JSON.parse(try #require(bound.body))
        #expect(sent["max_tokens"]?.int64 == each && sent["n"] == 2)
    }

    @Test func whatOutputDoesNotChangeIsNotLowered() throws {
        var price = AdmissionFixture.price()
        price.tokens.output = .zero
        let free = WorstCase(
            agent: AdmissionFixture.openAI(), prices: [price.model: price], outputTokensMax: nil)
        let whole = try free.bound(method: "POST", path: path, body: body)
        #expect(
            try free.bound(
                method: "POST", path: path, body: body, bound: whole, within: NanoUSD(1)) == nil)
    }
}
