import WeirCore

/// What the models of one provider cost (kind `PriceTable`). An unknown price is never zero: where
/// a model has none, the policy is refused or the request is.
package struct PriceTable: Hashable, Sendable {
    package var name: String
    /// The prices' own date, for people: "2026-11-01".
    package var dated: String
    package var prices: [ModelPrice]

    package init(name: String, dated: String, prices: [ModelPrice]) {
        self.name = name
        self.dated = dated
        self.prices = prices
    }
}

/// The unit prices of one model, in n$ per million tokens, per request and per second.
package struct ModelPrice: Hashable, Sendable {
    /// Other unit prices above a size of the input (long context).
    package struct Step: Hashable, Sendable {
        package var inputTokensAbove: Int64
        package var tokens: TokenPrices
        package init(inputTokensAbove: Int64, tokens: TokenPrices) {
            self.inputTokensAbove = inputTokensAbove
            self.tokens = tokens
        }
    }

    /// n$ per million tokens.
    package struct TokenPrices: Hashable, Sendable {
        package var input: NanoUSD = .zero
        package var cachedInput: NanoUSD = .zero
        package var cacheWrite: NanoUSD = .zero
        package var output: NanoUSD = .zero
        package var reasoning: NanoUSD = .zero
        package init() {}
    }

    package var model: String
    /// Other names of the model, as providers give them.
    package var aliases: [String] = []
    package var tokens = TokenPrices()
    package var steps: [Step] = []
    package var perRequest: NanoUSD = .zero
    package var perSecond: NanoUSD = .zero
    package var validFrom = UnixTime(milliseconds: 0)
    /// The entries of the same model that follow this one, by the time from which they hold.
    package var later: [ModelPrice] = []
    /// Increases with each change of this price; records name it.
    package var version: Int64 = 1

    package init(model: String) { self.model = model }

    package var isPerToken: Bool {
        tokens.input.rawValue > 0 || tokens.output.rawValue > 0 || !steps.isEmpty
    }
}
