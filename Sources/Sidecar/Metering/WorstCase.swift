import WeirCore
import WeirMeshProtocol
import WeirPolicy

/// What one attempt can cost at most, known before its first byte goes upstream (LEDGER, "Worst
/// case of an attempt"), and the body that keeps it to that.
package struct AttemptBound: Hashable, Sendable {
    package var worstCase: NanoUSD
    /// The model's id, never an alias. Settlement prices by it.
    package var model: String
    package var price: ModelPrice
    package var inputTokensMax: Int64
    package var outputTokensMax: Int64
    /// How many answers share the output.
    package var choices: Int64 = 1
    /// The output limit of each answer that was written into the body, because the caller stated
    /// none or a higher one.
    package var writtenOutputMax: Int64?
    /// What a price by the second counts at most: the agent's timeout.
    package var nanosecondsMax: UInt64
    /// Sent upstream instead of the caller's, where the bound had to be written into it.
    package var body: [UInt8]?
    /// The caller asked for a stream of events.
    package var isStream = false
    /// Usage of the stream was asked for by us, and the caller is not to see the event for it.
    package var hidesUsage = false
    /// Nothing in the request bounds it: the amount is the policy's ceiling.
    package var isPolicyCeiling = false

    /// In and out, where the price counts them and something bounds them.
    package var tokensMax: Int64 {
        price.countsTokens && !isPolicyCeiling ? inputTokensMax + outputTokensMax : 0
    }

    /// What is due as soon as bytes went upstream (LEDGER rule 9): a fixed price is its own least.
    package var least: NanoUSD {
        if isPolicyCeiling { return worstCase }
        return min(price.perRequest, worstCase)
    }
}

/// Why a request has no bound.
package struct BoundRefusal: Error, Hashable, Sendable {
    package let reason: Reason
    package let detail: String
    /// Where in the body, where that is known.
    package let problem: Problem?

    package init(_ reason: Reason, _ detail: String, problem: Problem? = nil) {
        self.reason = reason
        self.detail = detail
        self.problem = problem
    }
}

/// Bounds attempts. Gateways and sidecars call the same function, on the same bytes with the same
/// result: bounding a body that was rewritten by a bound changes neither it nor the amount.
///
/// How tokens are bounded: every tokenizer in use takes at least one byte of text for a token (byte
/// pair encodings and SentencePiece with byte fallback; neither expands by NFKC), and JSON never
/// spells a text with fewer bytes than UTF-8 does. What chat templates add around messages is less
/// than what JSON adds around them; what they add once is `templateTokens`.
package struct WorstCase: Sendable {
    /// What a chat template adds once: begin of sequence, priming of the answer, dates.
    package static let templateTokens: Int64 = 64
    /// What templates add where there are tools or a schema for the answer.
    package static let toolTemplateTokens: Int64 = 512

    package let agent: AgentPolicy
    package let prices: [String: ModelPrice]
    /// Of the caller's tier.
    package var outputTokensMax: Int64?

    package init(agent: AgentPolicy, prices: [String: ModelPrice], outputTokensMax: Int64?) {
        self.agent = agent
        self.prices = prices
        self.outputTokensMax = outputTokensMax
    }

    /// Whether the body must be held and read to bound the cost. A fixed price needs no body.
    package static func needsBody(agent: AgentPolicy, prices: [String: ModelPrice]) -> Bool {
        switch agent.wireProtocol {
        case .openai, .anthropic: true
        case .json, .huggingface, .passthrough:
            prices[agent.defaultModel]?.countsTokens ?? false
        }
    }

    /// The bound of every request, where none of them changes it; `nil` where `needsBody` says yes.
    package var fixedBound: Result<AttemptBound, BoundRefusal>? {
        guard !Self.needsBody(agent: agent, prices: prices) else { return nil }
        return Result { () throws(BoundRefusal) in try boundByPrice(bodyBytes: 0) }
    }

    /// `path` without its query. `body` is empty where `needsBody` says no.
    package func bound(
        method: String, path: String, body: [UInt8]
    ) throws(BoundRefusal) -> AttemptBound {
        switch agent.wireProtocol {
        case .openai: try OpenAIBounder(rules: self).bound(method: method, path: path, body: body)
        case .anthropic:
            try AnthropicBounder(rules: self).bound(method: method, path: path, body: body)
        case .json, .huggingface, .passthrough:
            if let limit = agent.outputLimitPlace,
                prices[agent.defaultModel]?.countsOutput ?? false
            {
                try PlacedBounder(rules: self, limit: limit)
                    .bound(method: method, path: path, body: body)
            } else {
                try boundByPrice(bodyBytes: body.count)
            }
        }
    }

    /// Answers that are shorter than this help nobody: then the refusal is the better answer.
    package static let loweredOutputMin: Int64 = 16

    /// The bound of the same request with its output lowered to what an amount pays for; `nil`
    /// where nothing above `loweredOutputMin` does.
    package func bound(
        method: String, path: String, body: [UInt8], bound: AttemptBound, within amount: NanoUSD
    ) throws(BoundRefusal) -> AttemptBound? {
        guard !bound.isPolicyCeiling, bound.price.countsOutput else { return nil }
        var (least, most) = (Self.loweredOutputMin, bound.outputTokensMax / bound.choices)
        func fits(_ output: Int64) -> Bool {
            bound.price.worstCase(
                inputTokensMax: bound.inputTokensMax, outputTokensMax: output &* bound.choices,
                nanosecondsMax: nanosecondsMax) <= amount
        }
        guard least <= most, fits(least) else { return nil }
        while least < most {
            let middle = (least + most + 1) / 2
            if fits(middle) { least = middle } else { most = middle - 1 }
        }
        var lower = self
        lower.outputTokensMax = min(least, outputTokensMax ?? .max)
        let lowered = try lower.bound(method: method, path: path, body: body)
        return lowered.worstCase <= amount ? lowered : nil
    }

    /// The longest that an attempt is given, which bounds a price by the second.
    var nanosecondsMax: UInt64 {
        let (product, overflow) = UInt64(clamping: agent.timeouts.totalMilliseconds)
            .multipliedReportingOverflow(by: 1_000_000)
        return overflow ? .max : product
    }

    private func boundByPrice(bodyBytes: Int) throws(BoundRefusal) -> AttemptBound {
        let model = agent.defaultModel
        guard let price = prices[model] else { return try ceiling(model, "it has no price") }
        guard !price.countsOutput else {
            return try ceiling(
                model, "its price counts output tokens, and nothing in the request bounds them")
        }
        return bounded(
            model: model, price: price, inputTokensMax: Int64(bodyBytes), outputTokensMax: 0)
    }

    func bounded(
        model: String, price: ModelPrice, inputTokensMax: Int64, outputTokensMax: Int64
    ) -> AttemptBound {
        AttemptBound(
            worstCase: price.worstCase(
                inputTokensMax: inputTokensMax, outputTokensMax: outputTokensMax,
                nanosecondsMax: nanosecondsMax),
            model: model, price: price, inputTokensMax: inputTokensMax,
            outputTokensMax: outputTokensMax, nanosecondsMax: nanosecondsMax)
    }

    /// What costs nothing at any provider: no price to look up.
    var free: AttemptBound {
        bounded(
            model: agent.defaultModel, price: ModelPrice(model: agent.defaultModel),
            inputTokensMax: 0, outputTokensMax: 0)
    }

    /// What stands behind the base of the agent's API. The agent's own path says where that ends:
    /// "/v1/chat/completions" → "/v1".
    func suffix(of path: String, behind endpoints: [String]) -> String? {
        var base = "/v1"
        if let suffix = endpoints.first(where: { agent.path.hasSuffix($0) }) {
            base = String(agent.path.dropLast(suffix.utf8.count))
        }
        return path.hasPrefix(base) ? String(path.dropFirst(base.count)) : nil
    }

    /// The policy's ceiling for what nothing else bounds, or the refusal.
    func ceiling(
        _ model: String, _ why: String, at pointer: String? = nil
    ) throws(BoundRefusal) -> AttemptBound {
        guard let amount = agent.unmeteredCeiling else {
            throw BoundRefusal(
                .unmeteredPath,
                "The cost of this request to \(agent.name) cannot be bounded: \(why).",
                problem: pointer.map { Problem(path: $0, message: why) })
        }
        var bound = AttemptBound(
            worstCase: amount, model: model, price: prices[model] ?? ModelPrice(model: model),
            inputTokensMax: Int64(UInt32.max), outputTokensMax: Int64(UInt32.max),
            nanosecondsMax: nanosecondsMax)
        bound.isPolicyCeiling = true
        return bound
    }
}
