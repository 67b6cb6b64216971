import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarCore

private func agent(_ wireProtocol: AgentPolicy.WireProtocol) -> AgentPolicy {
    AgentPolicy(
        name: "a", wireProtocol: wireProtocol, path: "/v1/chat/completions",
        models: [.init(id: "m", aliases: [])])
}

private func bound(perToken: Bool, isPolicyCeiling: Bool = false) -> AttemptBound {
    var price = ModelPrice(model: "m")
    price.perRequest = NanoUSD(5)
    price.perSecond = NanoUSD(100)
    if perToken {
        price.tokens.input = NanoUSD(1_000_000)
        price.tokens.output = NanoUSD(2_000_000)
    }
    var bound = AttemptBound(
        worstCase: NanoUSD(1_000), model: "m", price: price, inputTokensMax: 90,
        outputTokensMax: 40, nanosecondsMax: 2_000_000_000)
    bound.isPolicyCeiling = isPolicyCeiling
    return bound
}

private func meter(
    _ wireProtocol: AgentPolicy.WireProtocol, _ bound: AttemptBound, _ body: String,
    events: Bool = false
) -> UsageMeter {
    var meter = UsageMeter()
    meter.begin(
        wireProtocol, countsTokens: bound.price.countsTokens, isEventStream: events)
    Array(body.utf8).withUnsafeBytes { meter.feed($0) }
    meter.finish()
    return meter
}

private let answer = #"{"usage":{"prompt_tokens":10,"completion_tokens":20}}"#

@Suite struct UsageMeterTests {
    @Test(arguments: [AgentPolicy.WireProtocol.json, .openai])
    func reportedUsageIsPriced(_ wireProtocol: AgentPolicy.WireProtocol) {
        let bound = bound(perToken: true)
        let cost = bound.cost(
            of: meter(wireProtocol, bound, answer), isWhole: true, nanoseconds: 1_000_000_000,
            whenMissing: .ceiling)
        #expect(cost.amount == NanoUSD(10 + 40 + 5 + 100))
        #expect(cost.source == .reported)
        #expect(cost.tokens.output == 20)
        #expect(!cost.isOverrun)
    }

    @Test func aBrokenAnswerCostsTheWorstCase() {
        let bound = bound(perToken: true)
        let cost = bound.cost(
            of: meter(.openai, bound, answer), isWhole: false, nanoseconds: 1,
            whenMissing: .ceiling)
        #expect(cost.amount == NanoUSD(1_000))
        #expect(cost.source == .ceiling)
    }

    @Test func anEstimateStaysBelowTheWorstCase() {
        let bound = bound(perToken: true)
        let text = String(repeating: "data: {\"choices\":[]}\n\n", count: 12)
        let cost = bound.cost(
            of: meter(.openai, bound, text, events: true), isWhole: false, nanoseconds: 0,
            whenMissing: .estimated)
        #expect(cost.source == .estimated)
        #expect(cost.tokens.output == 12)
        #expect(cost.amount == NanoUSD(30 + 24 + 5))
        let long = meter(.openai, bound, String(repeating: "x", count: 100_000))
        let capped = bound.cost(
            of: long, isWhole: true, nanoseconds: .max, whenMissing: .estimated)
        #expect(capped.tokens.output == 40)
        #expect(capped.amount == NanoUSD(30 + 80 + 5 + 200))
    }

    @Test func aFixedPriceIsDueWhateverTheAnswerSays() {
        let bound = bound(perToken: false)
        for whole in [true, false] {
            let cost = bound.cost(
                of: meter(.huggingface, bound, answer), isWhole: whole, nanoseconds: 500_000_000,
                whenMissing: .ceiling)
            #expect(cost.amount == NanoUSD(55))
            #expect(cost.source == .reported)
        }
    }

    @Test func timeCountsUpToTheTimeout() {
        let bound = bound(perToken: false)
        let cost = bound.cost(
            of: meter(.json, bound, ""), isWhole: true, nanoseconds: .max, whenMissing: .ceiling)
        #expect(cost.amount == NanoUSD(205))
    }

    @Test func whatOnlyThePolicyBoundsCostsItsCeiling() {
        let bound = bound(perToken: true, isPolicyCeiling: true)
        let cost = bound.cost(
            of: meter(.openai, bound, answer), isWhole: true, nanoseconds: 0,
            whenMissing: .estimated)
        #expect(cost.amount == NanoUSD(1_000))
        #expect(cost.source == .ceiling)
    }

    @Test func aProviderThatBreaksItsWordIsNoticed() {
        let bound = bound(perToken: true)
        let much = #"{"usage":{"prompt_tokens":10,"completion_tokens":2000}}"#
        let cost = bound.cost(
            of: meter(.openai, bound, much), isWhole: true, nanoseconds: 0, whenMissing: .ceiling)
        #expect(cost.isOverrun)
        #expect(cost.amount == NanoUSD(4_015))
    }
}
