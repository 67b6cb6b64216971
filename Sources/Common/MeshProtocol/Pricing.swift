import WeirCore
import WeirPolicy

// From usage to money. The rules of the quantities, whatever a provider calls them:
//
// - `input` counts every input token, those read from and written to a cache among them;
// - `output` counts every output token, reasoning among them.
//
// Arithmetic is exact in 128 bits and rounded up once for each attempt: token counts have 32 bits
// and prices 63, so that no sum of five products leaves 128.

extension ModelPrice.TokenPrices {
    // A unit price that is not stated is never zero (LEDGER, "Worst case of an attempt"): cached
    // and written input falls back to plain input, reasoning to output.
    private var cachedInputOrInput: NanoUSD { cachedInput.rawValue > 0 ? cachedInput : input }
    private var cacheWriteOrInput: NanoUSD { cacheWrite.rawValue > 0 ? cacheWrite : input }
    private var reasoningOrOutput: NanoUSD { reasoning.rawValue > 0 ? reasoning : output }

    /// n$ × 10⁶.
    fileprivate func millionths(_ tokens: AttemptRecord.Tokens) -> Int128 {
        let special = UInt64(tokens.cachedInput) + UInt64(tokens.cacheWrite)
        let plainInput = UInt64(tokens.input) - min(UInt64(tokens.input), special)
        let reasoning = min(tokens.reasoning, tokens.output)
        return Self.product(plainInput, input)
            + Self.product(UInt64(tokens.cachedInput), cachedInputOrInput)
            + Self.product(UInt64(tokens.cacheWrite), cacheWriteOrInput)
            + Self.product(UInt64(tokens.output - reasoning), output)
            + Self.product(UInt64(reasoning), reasoningOrOutput)
    }

    /// n$ × 10⁶ for tokens whose kind is not known: the dearest kind of each side.
    fileprivate func millionthsMax(inputTokens: UInt32, outputTokens: UInt32) -> Int128 {
        let dearestInput = max(input, cachedInputOrInput, cacheWriteOrInput)
        let dearestOutput = max(output, reasoningOrOutput)
        return Self.product(UInt64(inputTokens), dearestInput)
            + Self.product(UInt64(outputTokens), dearestOutput)
    }

    fileprivate var cheapestOutput: NanoUSD { min(output, reasoningOrOutput) }

    fileprivate var countOutput: Bool { output.rawValue > 0 || reasoning.rawValue > 0 }

    fileprivate var countSomething: Bool {
        input.rawValue > 0 || cachedInput.rawValue > 0 || cacheWrite.rawValue > 0 || countOutput
    }

    private static func product(_ quantity: UInt64, _ price: NanoUSD) -> Int128 {
        Int128(quantity) * Int128(max(price.rawValue, 0))
    }
}

extension ModelPrice {
    /// What an attempt costs: tokens at the unit prices that its size calls for, the request, and
    /// the time that it took.
    package func cost(_ tokens: AttemptRecord.Tokens, nanoseconds: UInt64) -> NanoUSD {
        let prices = tokenPrices(inputTokens: Int64(tokens.input))
        return Self.roundedUp(prices.millionths(tokens)) + perRequest
            + timeCost(nanoseconds: nanoseconds)
    }

    /// The least amount that no attempt with at most so many tokens and at most so much time can
    /// exceed: the dearest of all unit prices that an input of any size up to the bound reaches.
    package func worstCase(
        inputTokensMax: Int64, outputTokensMax: Int64, nanosecondsMax: UInt64
    ) -> NanoUSD {
        let input = UInt32(clamping: inputTokensMax)
        let output = UInt32(clamping: outputTokensMax)
        var dearest = tokens.millionthsMax(inputTokens: input, outputTokens: output)
        for step in steps where step.inputTokensAbove < Int64(input) {
            dearest = max(
                dearest, step.tokens.millionthsMax(inputTokens: input, outputTokens: output))
        }
        return Self.roundedUp(dearest) + perRequest + timeCost(nanoseconds: nanosecondsMax)
    }

    /// Whether tokens change the cost at all.
    package var countsTokens: Bool {
        tokens.countSomething || steps.contains { $0.tokens.countSomething }
    }

    /// Whether output tokens change the cost.
    package var countsOutput: Bool {
        tokens.countOutput || steps.contains { $0.tokens.countOutput }
    }

    /// The cheapest unit price of an output token, whatever its kind and the size of the input.
    package var outputMin: NanoUSD {
        steps.reduce(tokens.cheapestOutput) { min($0, $1.tokens.cheapestOutput) }
    }

    private func tokenPrices(inputTokens: Int64) -> TokenPrices {
        var best: Step?
        for step in steps where step.inputTokensAbove < inputTokens {
            if step.inputTokensAbove >= best?.inputTokensAbove ?? .min { best = step }
        }
        return best?.tokens ?? tokens
    }

    private func timeCost(nanoseconds: UInt64) -> NanoUSD {
        guard perSecond.rawValue > 0 else { return .zero }
        let product = Int128(nanoseconds) * Int128(perSecond.rawValue)
        return NanoUSD(Int64(clamping: (product + 999_999_999) / 1_000_000_000))
    }

    private static func roundedUp(_ millionths: Int128) -> NanoUSD {
        NanoUSD(Int64(clamping: (millionths + 999_999) / 1_000_000))
    }
}
