import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import ControlPlaneServer
@testable import ControlPlaneStore

/// Suggestions alone, each figure computed by hand.
@Suite struct CostSuggestionsTests {
    private func attempt(
        input: UInt32, cached: UInt32 = 0, cost: Int64, reason: Reason = .admitted
    ) -> ArchivedRecord {
        var record = AttemptRecord()
        record.tokens.input = input
        record.tokens.cachedInput = cached
        record.tokens.output = 100
        record.cost = NanoUSD(cost)
        record.reason = reason
        return ArchivedRecord(
            record: record, subject: "ann", tier: "enterprise", tenant: "", tags: "",
            agent: "gpt4-turbo",
            model: "gpt-4-turbo", requestType: "chat_completions")
    }

    private func suggestions(_ records: [ArchivedRecord]) throws -> [CostSuggestions.Suggestion] {
        var policy = try PolicyReader.read(try SamplePolicy.documents())
        // $10 a million plain, $1 from the cache.
        policy.prices["gpt-4-turbo"]?.tokens.cachedInput = NanoUSD(NanoUSD.nanoPerUSD)
        let tier = try #require(policy.tiers["enterprise"])
        return CostSuggestions(records: records, policy: policy, tier: tier).list()
    }

    @Test func inputFarBeyondTheMedianIsContextThatOthersDoWithout() throws {
        let usual = (0..<19).map { _ in attempt(input: 1_000, cost: 13_000_000) }
        let long = attempt(input: 10_000, cost: 103_000_000)
        let found = try suggestions(usual + [long])
        #expect(found.map(\.kind) == ["unused_context"])
        // 9,000 tokens at $10 a million.
        #expect(found.first?.saving == NanoUSD(90_000_000))
        #expect(found.first?.attempts == 1 && found.first?.cost == NanoUSD(103_000_000))
        #expect(found.first?.figures["median_input_tokens"] == 1_000)
        #expect(found.first?.figures["excess_input_tokens"] == 9_000)
    }

    @Test func whatCameFromACacheCountsAtItsPrice() throws {
        let usual = (0..<19).map { _ in attempt(input: 1_000, cost: 13_000_000) }
        // 8,000 of them at $1 a million, and 1,000 at $10.
        let long = attempt(input: 10_000, cached: 8_000, cost: 31_000_000)
        #expect(try suggestions(usual + [long]).map(\.saving) == [NanoUSD(18_000_000)])
        // All of the excess came from the cache.
        let cached = attempt(input: 10_000, cached: 9_500, cost: 17_500_000)
        #expect(try suggestions(usual + [cached]).map(\.saving) == [NanoUSD(9_000_000)])
    }

    @Test func twiceTheMedianIsUsualAndFewAttemptsSayNothing() throws {
        let usual = (0..<19).map { _ in attempt(input: 1_000, cost: 13_000_000) }
        #expect(try suggestions(usual + [attempt(input: 2_000, cost: 23_000_000)]).isEmpty)
        let failed = attempt(input: 90_000, cost: 0, reason: .upstreamError)
        #expect(try suggestions(usual + [failed]).isEmpty)
        // Nineteen that were answered, and one that was not: no habit of answers.
        let long = attempt(input: 10_000, cost: 103_000_000)
        #expect(try suggestions(Array(usual.dropLast()) + [long, failed]).isEmpty)
    }

    @Test func countsThatFitNothingDoNoHarm() throws {
        let usual = (0..<19).map { _ in attempt(input: 1_000, cost: 13_000_000) }
        var odd = attempt(input: .max, cached: .max, cost: 5)
        odd.record.tokens.cacheWrite = .max
        // Never more than what was paid.
        #expect(try suggestions(usual + [odd]).map(\.saving) == [NanoUSD(5)])
    }
}
