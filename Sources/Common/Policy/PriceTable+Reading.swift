import WeirCore

extension PriceTable {
    init?(name: String, reading spec: ObjectReader) {
        let dated = spec.string("dated", required: true)
        if let dated, UnixTime(dateText: dated) == nil {
            spec.report("dated", "must be a date: \"2026-11-01\"")
        }
        // Where the figures come from, for people.
        _ = spec.string("source")
        let validFrom = spec.string("validFrom").flatMap { spec.time("validFrom", $0) }
        let prices: [ModelPrice] = spec.elements(
            "prices", countMax: PolicyLimits.pricesPerTableMax, required: true
        ).map { value, path in
            guard let reader = ObjectReader(value, at: path, spec.problems) else {
                return ModelPrice(model: "")
            }
            defer { reader.finish() }
            return ModelPrice(reading: reader, validFrom: validFrom)
        }
        // A price that could not be read keeps its place in the list: places are reported by it.
        self.init(name: name, dated: dated ?? "", prices: prices)
    }
}

extension ModelPrice {
    fileprivate init(reading reader: ObjectReader, validFrom table: UnixTime?) {
        let model = reader.string(
            "model", required: true, bytesMax: PolicyLimits.modelIDBytesMax)
        self.init(model: model ?? reader.path.description)
        aliases = reader.names("aliases", countMax: PolicyLimits.aliasesPerModelMax)
        let base = reader.object("tokens")
        if let base { tokens = TokenPrices(reading: base) }
        steps = readSteps(reader)
        if base == nil, !steps.isEmpty {
            reader.report("steps", "need the prices below the first step in tokens")
        }
        let perRequest = reader.money("perRequest")
        let perSecond = reader.money("perSecond")
        if base == nil, perRequest == nil, perSecond == nil {
            reader.problems.add(
                reader.path,
                "one of tokens, perRequest and perSecond is needed; what is free says \"0\"")
        }
        self.perRequest = perRequest ?? .zero
        self.perSecond = perSecond ?? .zero
        let own = reader.string("validFrom").flatMap { reader.time("validFrom", $0) }
        validFrom = own ?? table ?? validFrom
        version = reader.integer("version", in: 1...Int64(Int32.max)) ?? version
    }

    private func readSteps(_ reader: ObjectReader) -> [Step] {
        var steps: [Step] = []
        for (value, path) in reader.elements("steps", countMax: PolicyLimits.priceStepsMax) {
            guard let element = ObjectReader(value, at: path, reader.problems) else { continue }
            let above = element.integer(
                "inputTokensAbove", in: 1...Int64(Int32.max), required: true)
            let tokens = element.object("tokens", required: true).map(TokenPrices.init(reading:))
            element.finish()
            guard let above, let tokens else { continue }
            if let last = steps.last, last.inputTokensAbove >= above {
                element.report("inputTokensAbove", "steps must rise")
            }
            steps.append(Step(inputTokensAbove: above, tokens: tokens))
        }
        return steps
    }
}

extension ModelPrice.TokenPrices {
    /// Prices that are absent are those of the kind of tokens they belong to, never zero: a cached
    /// token costs what an input token does unless the table says less.
    fileprivate init(reading reader: ObjectReader) {
        self.init()
        input = reader.money("input", required: true) ?? .zero
        output = reader.money("output", required: true) ?? .zero
        cachedInput = reader.money("cachedInput") ?? input
        cacheWrite = reader.money("cacheWrite") ?? input
        reasoning = reader.money("reasoning") ?? output
        reader.finish()
    }
}

extension ObjectReader {
    /// A day, from its first moment on, or a moment.
    fileprivate func time(_ key: String, _ text: String) -> UnixTime? {
        if let time = UnixTime(dateText: text) ?? UnixTime(rfc3339: text) { return time }
        report(key, "must be a date in UTC: \"2026-11-01\" or \"2026-11-01T12:00:00Z\"")
        return nil
    }
}

extension UnixTime {
    /// The beginning of a UTC day, "2026-11-01".
    fileprivate init?(dateText: String) {
        guard let period = Period(dateText), period.kind == .day else { return nil }
        self.init(period.start)
    }
}
