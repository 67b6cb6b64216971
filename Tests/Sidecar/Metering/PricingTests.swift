import Testing
import WeirCore
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarCore

/// n$ per million tokens from USD per million.
private func usd(_ text: String) -> NanoUSD { NanoUSD(usd: text) ?? NanoUSD(-1) }

private func tokens(
    input: UInt32 = 0, cached: UInt32 = 0, written: UInt32 = 0, output: UInt32 = 0,
    reasoning: UInt32 = 0
) -> AttemptRecord.Tokens {
    var tokens = AttemptRecord.Tokens()
    tokens.input = input
    tokens.cachedInput = cached
    tokens.cacheWrite = written
    tokens.output = output
    tokens.reasoning = reasoning
    return tokens
}

private func turbo() -> ModelPrice {
    var price = ModelPrice(model: "gpt-4-turbo")
    price.tokens.input = usd("10")
    price.tokens.cachedInput = usd("5")
    price.tokens.cacheWrite = usd("12.5")
    price.tokens.output = usd("30")
    price.tokens.reasoning = usd("60")
    return price
}

@Suite struct PricingTests {
    @Test func eachKindOfTokenHasItsPrice() {
        let price = turbo()
        #expect(price.cost(tokens(input: 1_000), nanoseconds: 0) == usd("0.01"))
        #expect(price.cost(tokens(input: 1_000, cached: 400), nanoseconds: 0) == usd("0.008"))
        #expect(price.cost(tokens(input: 1_000, written: 400), nanoseconds: 0) == usd("0.011"))
        #expect(price.cost(tokens(output: 1_000), nanoseconds: 0) == usd("0.03"))
        #expect(price.cost(tokens(output: 1_000, reasoning: 500), nanoseconds: 0) == usd("0.045"))
    }

    @Test func aPriceThatIsNotStatedIsNotZero() {
        var price = turbo()
        price.tokens.cachedInput = .zero
        price.tokens.reasoning = .zero
        #expect(price.cost(tokens(input: 1_000, cached: 1_000), nanoseconds: 0) == usd("0.01"))
        #expect(price.cost(tokens(output: 10, reasoning: 10), nanoseconds: 0) == usd("0.0003"))
    }

    @Test func roundsUpOnce() {
        var price = ModelPrice(model: "m")
        price.tokens.input = NanoUSD(1)
        price.tokens.output = NanoUSD(1)
        #expect(price.cost(tokens(input: 1, output: 1), nanoseconds: 0) == NanoUSD(1))
        #expect(price.cost(tokens(input: 999_999, output: 1), nanoseconds: 0) == NanoUSD(1))
        #expect(price.cost(tokens(input: 999_999, output: 2), nanoseconds: 0) == NanoUSD(2))
        price.perSecond = NanoUSD(10)
        #expect(price.cost(tokens(), nanoseconds: 1) == NanoUSD(1))
        #expect(price.cost(tokens(), nanoseconds: 1_000_000_001) == NanoUSD(11))
    }

    @Test func theSizeOfTheInputChoosesTheStep() {
        var price = ModelPrice(model: "m")
        price.tokens.input = NanoUSD(1_000_000)
        var long = ModelPrice.TokenPrices()
        long.input = NanoUSD(2_000_000)
        var longer = ModelPrice.TokenPrices()
        longer.input = NanoUSD(500_000)
        price.steps = [
            .init(inputTokensAbove: 1_000, tokens: longer),
            .init(inputTokensAbove: 100, tokens: long),
        ]
        #expect(price.cost(tokens(input: 100), nanoseconds: 0) == NanoUSD(100))
        #expect(price.cost(tokens(input: 101), nanoseconds: 0) == NanoUSD(202))
        #expect(price.cost(tokens(input: 1_001), nanoseconds: 0) == NanoUSD(501))
        // The bound knows that a shorter input may cost more than the longest one.
        let bound = price.worstCase(inputTokensMax: 1_001, outputTokensMax: 0, nanosecondsMax: 0)
        #expect(bound == NanoUSD(2_002))
    }

    @Test func hugeUsageSaturates() {
        var price = ModelPrice(model: "m")
        price.tokens.input = NanoUSD(.max)
        price.tokens.output = NanoUSD(.max)
        price.perRequest = NanoUSD(.max)
        price.perSecond = NanoUSD(.max)
        let all = tokens(input: .max, cached: .max, written: .max, output: .max, reasoning: .max)
        #expect(price.cost(all, nanoseconds: .max) == NanoUSD(.max))
        let bound = price.worstCase(
            inputTokensMax: .max, outputTokensMax: .max, nanosecondsMax: .max)
        #expect(bound == NanoUSD(.max))
    }

    /// No usage inside the bounds may cost more than the worst case.
    @Test func theWorstCaseBoundsEveryUsage() {
        var random = SplitMix64(seed: 11)
        for _ in 0..<5_000 {
            var price = ModelPrice(model: "m")
            func prices() -> ModelPrice.TokenPrices {
                var prices = ModelPrice.TokenPrices()
                prices.input = NanoUSD(Int64.random(in: 0...50_000_000_000, using: &random))
                prices.cachedInput = NanoUSD(Int64.random(in: 0...50_000_000_000, using: &random))
                prices.cacheWrite = NanoUSD(Int64.random(in: 0...50_000_000_000, using: &random))
                prices.output = NanoUSD(Int64.random(in: 0...50_000_000_000, using: &random))
                prices.reasoning = NanoUSD(Int64.random(in: 0...50_000_000_000, using: &random))
                return prices
            }
            price.tokens = prices()
            price.steps = (0..<Int.random(in: 0...3, using: &random)).map { _ in
                .init(
                    inputTokensAbove: Int64.random(in: 0...5_000, using: &random), tokens: prices())
            }
            price.perRequest = NanoUSD(Int64.random(in: 0...1_000, using: &random))
            price.perSecond = NanoUSD(Int64.random(in: 0...1_000_000, using: &random))
            let inputMax = UInt32.random(in: 0...6_000, using: &random)
            let outputMax = UInt32.random(in: 0...6_000, using: &random)
            let timeMax = UInt64.random(in: 0...10_000_000_000, using: &random)
            let input = UInt32.random(in: 0...inputMax, using: &random)
            let cached = UInt32.random(in: 0...input, using: &random)
            let output = UInt32.random(in: 0...outputMax, using: &random)
            let usage = tokens(
                input: input, cached: cached,
                written: UInt32.random(in: 0...(input - cached), using: &random),
                output: output, reasoning: UInt32.random(in: 0...output, using: &random))
            let bound = price.worstCase(
                inputTokensMax: Int64(inputMax), outputTokensMax: Int64(outputMax),
                nanosecondsMax: timeMax)
            let cost = price.cost(
                usage, nanoseconds: UInt64.random(in: 0...timeMax, using: &random))
            #expect(cost <= bound)
        }
    }
}
