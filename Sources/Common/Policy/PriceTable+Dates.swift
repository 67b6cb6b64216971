import WeirCore

// Which price holds when. A model may have several entries with different `validFrom`: each holds
// from then on, at every hop that prices, until the next one does.

extension ModelPrice {
    /// The first entry holds before its own day as well: no model is without a price.
    package func inForce(at time: UnixTime) -> ModelPrice {
        guard !later.isEmpty else { return self }
        var price = later.last { $0.validFrom <= time } ?? self
        price.later = []
        return price
    }
}

extension ModelPrice {
    /// The same for a model that an alias or a version names.
    func renamed(_ model: String) -> ModelPrice {
        var price = self
        price.model = model
        price.aliases = []
        price.later = later.map { $0.renamed(model) }
        return price
    }
}

extension Policy {
    /// The same with the prices that hold at a time, and nothing of later ones. With a slack, the
    /// dearest of those that hold within so many milliseconds before and after: for who bounds what
    /// another hop prices, by another clock.
    package func priced(at time: UnixTime, slackMilliseconds: Int64 = 0) -> Policy {
        var policy = self
        policy.prices = prices.mapValues { price in
            guard !price.later.isEmpty else { return price }
            let first = price.inForce(at: time.adding(-slackMilliseconds))
            let last = price.inForce(at: time.adding(slackMilliseconds))
            return first.version == last.version ? last : last.orDearer(first)
        }
        return policy
    }

    /// When other prices come into force next.
    package func nextPriceChange(after time: UnixTime) -> UnixTime? {
        prices.values.flatMap { price in price.later.map(\.validFrom).filter { $0 > time } }.min()
    }

    /// Whether `priced` says the same at both times.
    package func hasSamePrices(
        at first: UnixTime, and second: UnixTime, slackMilliseconds: Int64 = 0
    ) -> Bool {
        func versions(_ price: ModelPrice, _ time: UnixTime) -> [Int64] {
            [-slackMilliseconds, slackMilliseconds].map {
                price.inForce(at: time.adding($0)).version
            }
        }
        return prices.values.allSatisfy {
            $0.later.isEmpty || versions($0, first) == versions($0, second)
        }
    }
}

extension UnixTime {
    fileprivate func adding(_ amount: Int64) -> UnixTime {
        UnixTime(milliseconds: milliseconds + amount)
    }
}

extension ModelPrice {
    /// No attempt costs more by either price.
    fileprivate func orDearer(_ other: ModelPrice) -> ModelPrice {
        var price = self
        price.tokens = tokens.orDearer(other.tokens)
        price.perRequest = max(perRequest, other.perRequest)
        price.perSecond = max(perSecond, other.perSecond)
        let sizes = Set((steps + other.steps).map(\.inputTokensAbove)).sorted()
        price.steps = sizes.map { size in
            Step(
                inputTokensAbove: size,
                tokens: unitPrices(above: size).orDearer(other.unitPrices(above: size)))
        }
        return price
    }

    private func unitPrices(above size: Int64) -> TokenPrices {
        steps.last { $0.inputTokensAbove <= size }?.tokens ?? tokens
    }
}

extension ModelPrice.TokenPrices {
    fileprivate func orDearer(_ other: Self) -> Self {
        var prices = Self()
        prices.input = max(input, other.input)
        prices.cachedInput = max(cachedInput, other.cachedInput)
        prices.cacheWrite = max(cacheWrite, other.cacheWrite)
        prices.output = max(output, other.output)
        prices.reasoning = max(reasoning, other.reasoning)
        return prices
    }
}

extension PolicyDraft {
    /// A model may have one entry for each day, with rising versions, by which records tell them
    /// apart.
    mutating func add(_ price: ModelPrice, at place: JSONPointer) {
        guard var first = policy.prices[price.model] else {
            pricePlaces[price.model] = place
            policy.prices[price.model] = price
            return
        }
        var entries = [first] + first.later
        first.later = []
        entries[0] = first
        guard !entries.contains(where: { $0.validFrom == price.validFrom }) else {
            problems.add(place.appending("model"), "\"\(price.model)\" has a price already")
            return
        }
        let next = entries.firstIndex { $0.validFrom > price.validFrom } ?? entries.count
        let isRising =
            (next == 0 || entries[next - 1].version < price.version)
            && (next == entries.count || price.version < entries[next].version)
        guard isRising else {
            problems.add(
                place.appending("version"),
                "versions of \"\(price.model)\" must rise with validFrom: records name them")
            return
        }
        entries.insert(price, at: next)
        entries[0].later = Array(entries.dropFirst())
        policy.prices[price.model] = entries[0]
    }
}
