import ControlPlaneStore
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// What a user could have saved, found in the own records: every figure is computed from attempts
/// that really happened and prices of the policy in force, and says how. Pure.
struct CostSuggestions {
    /// Fewer attempts than this say nothing about a habit.
    static let attemptsMin = 20
    static let suggestionsMax = 20
    /// Input beyond so many times the median of its kind is context that others did without.
    static let contextFactor: UInt64 = 2

    struct Suggestion {
        var kind: String
        var advice: String
        var saving: NanoUSD
        var attempts: Int
        var cost: NanoUSD
        var how: String
        var figures = JSONObject()
    }

    let records: [ArchivedRecord]
    let policy: Policy
    let tier: TierPolicy

    /// Those that save most come first.
    func list() -> [Suggestion] {
        guard records.count >= Self.attemptsMin else { return [] }
        let all = cheaperAgents() + repetitions() + failures() + unusedContext()
        return Array(all.sorted { $0.saving > $1.saving }.prefix(Self.suggestionsMax))
    }

    fileprivate struct Use: Hashable, Comparable {
        var type: String
        var agent: String

        static func < (left: Use, right: Use) -> Bool {
            (left.type, left.agent) < (right.type, right.agent)
        }
    }

    fileprivate func groups(where isMeant: (ArchivedRecord) -> Bool) -> [(Use, [ArchivedRecord])] {
        Dictionary(grouping: records.filter(isMeant)) { Use(type: $0.requestType, agent: $0.agent) }
            .sorted { $0.key < $1.key }
    }

    // MARK: A cheaper agent of the same step

    private func cheaperAgents() -> [Suggestion] {
        groups { $0.record.reason == .admitted && $0.record.cost > .zero }.compactMap {
            use, group in
            let cost = group.reduce(NanoUSD.zero) { $0 + $1.record.cost }
            let priced = alternatives(to: use).compactMap { step, agent in
                price(group, at: agent).map { (step: step, agent: agent, cost: $0) }
            }
            guard let best = priced.min(by: { $0.cost < $1.cost }), best.cost < cost else {
                return nil
            }
            var suggestion = Suggestion(
                kind: "cheaper_agent",
                advice: "Prefer \(best.agent) to \(use.agent) for the step \(best.step) of "
                    + "\(use.type): POST /agents/preferences.",
                saving: cost - best.cost, attempts: group.count, cost: cost,
                how: "The tokens of these attempts at the price of \(best.agent) "
                    + "(\(policy.agents[best.agent]?.defaultModel ?? "")) in the policy in force. "
                    + "Another model may count and write other tokens.")
            suggestion.figures["analysis_type"] = .string(use.type)
            suggestion.figures["step"] = .string(best.step)
            suggestion.figures["agent"] = .string(use.agent)
            suggestion.figures["instead"] = .string(best.agent)
            suggestion.figures["cost_instead_usd"] = .string(best.cost.usd)
            return suggestion
        }
    }

    /// Agents that the plan and its fallbacks let the tier use for the same steps.
    private func alternatives(to use: Use) -> [(step: String, agent: String)] {
        guard let type = policy.requestTypes[use.type] else { return [] }
        return type.steps.flatMap { step -> [(step: String, agent: String)] in
            var names = step.agentsByTier[tier.name] ?? []
            var position = 0
            while position < names.count {
                let fallbacks = policy.agents[names[position]]?.fallbacks ?? []
                names += fallbacks.filter { !names.contains($0) && tier.agents.contains($0) }
                position += 1
            }
            guard names.contains(use.agent) else { return [] }
            return names.filter { $0 != use.agent }.map { (step.name, $0) }
        }
    }

    /// What the same tokens cost at an agent's default model; `nil` where its price depends on what
    /// only it would show: how long it takes.
    private func price(_ group: [ArchivedRecord], at agent: String) -> NanoUSD? {
        guard let model = policy.agents[agent]?.defaultModel, let price = policy.prices[model],
            price.perSecond == .zero
        else { return nil }
        let hasTokens = group.allSatisfy {
            $0.record.tokens.input > 0 || $0.record.tokens.output > 0
        }
        guard hasTokens || !price.isPerToken else { return nil }
        return group.reduce(NanoUSD.zero) { $0 + price.cost($1.record.tokens, nanoseconds: 0) }
    }

    // MARK: The same request again

    private func repetitions() -> [Suggestion] {
        struct Body: Hashable {
            var model: String
            var digest: Digest?
        }
        return groups { $0.record.reason == .admitted && $0.record.digests != nil }.compactMap {
            use, group in
            let again = Dictionary(grouping: group) {
                Body(model: $0.model, digest: $0.record.digests?.input)
            }.values.flatMap { same in
                same.sorted { $0.record.startedAt < $1.record.startedAt }.dropFirst()
            }
            let cost = again.reduce(NanoUSD.zero) { $0 + $1.record.cost }
            guard cost > .zero else { return nil }
            var suggestion = Suggestion(
                kind: "repeated_requests",
                advice:
                    "Keep the answers of \(use.agent) in \(use.type) (cache in its policy), or "
                    + "send an Idempotency-Key: the same request was paid for more than once.",
                saving: cost, attempts: again.count, cost: cost,
                how: "Attempts whose body has the same SHA-256 as an earlier one at the same "
                    + "model, at what they cost.")
            suggestion.figures["analysis_type"] = .string(use.type)
            suggestion.figures["agent"] = .string(use.agent)
            return suggestion
        }
    }

    // MARK: Paid for nothing

    private func failures() -> [Suggestion] {
        groups { $0.record.reason != .admitted && $0.record.cost > .zero }.map { use, group in
            let cost = group.reduce(NanoUSD.zero) { $0 + $1.record.cost }
            var suggestion = Suggestion(
                kind: "failed_attempts",
                advice: "Look at why \(use.agent) fails in \(use.type), or exclude it: "
                    + "POST /agents/preferences.",
                saving: cost, attempts: group.count, cost: cost,
                how: "Attempts that failed after they had reached the agent, at what they cost.")
            let reasons = Dictionary(grouping: group) { $0.record.reason.name }
            suggestion.figures["analysis_type"] = .string(use.type)
            suggestion.figures["agent"] = .string(use.agent)
            suggestion.figures["reasons"] = .object(
                reasons.sorted { $0.key < $1.key }.reduce(into: JSONObject()) {
                    $0[$1.key] = .number(JSONNumber($1.value.count))
                })
            return suggestion
        }
    }
}

// MARK: - Context that others did without

extension CostSuggestions {
    private func unusedContext() -> [Suggestion] {
        groups { $0.record.reason == .admitted && $0.record.tokens.input > 0 }.compactMap {
            use, group in
            guard group.count >= Self.attemptsMin else { return nil }
            let inputs = group.map { $0.record.tokens.input }.sorted()
            let median = inputs[(inputs.count - 1) / 2]
            let long = group.filter {
                UInt64($0.record.tokens.input) > Self.contextFactor * UInt64(median)
            }
            let saving = long.reduce(NanoUSD.zero) { $0 + excessCost($1, above: median) }
            guard saving > .zero else { return nil }
            let cost = long.reduce(NanoUSD.zero) { $0 + $1.record.cost }
            var suggestion = Suggestion(
                kind: "unused_context",
                advice: "Send \(use.agent) less context in \(use.type): most requests do with "
                    + "less than half of what these had.",
                saving: min(saving, cost), attempts: long.count, cost: cost,
                how: "What the input tokens of these attempts beyond the median of all "
                    + "\(group.count) cost at the price in force, the cheapest kind first. "
                    + "Records cannot tell whether an answer needed them.")
            suggestion.figures["analysis_type"] = .string(use.type)
            suggestion.figures["agent"] = .string(use.agent)
            suggestion.figures["median_input_tokens"] = .number(JSONNumber(Int64(median)))
            suggestion.figures["excess_input_tokens"] = .number(
                JSONNumber(
                    long.reduce(Int64(0)) { $0 + Int64($1.record.tokens.input) - Int64(median) }))
            return suggestion
        }
    }

    /// Those read from a cache are taken away before the others, so that the figure is never too
    /// high.
    private func excessCost(_ attempt: ArchivedRecord, above median: UInt32) -> NanoUSD {
        guard let price = policy.prices[attempt.model], price.isPerToken else { return .zero }
        let tokens = attempt.record.tokens
        var less = tokens
        less.input = min(tokens.input, median)
        var excess = tokens.input - less.input
        let cached = min(excess, tokens.cachedInput)
        less.cachedInput -= cached
        excess -= cached
        let special = UInt32(clamping: UInt64(tokens.cachedInput) + UInt64(tokens.cacheWrite))
        let plain = tokens.input - min(tokens.input, special)
        less.cacheWrite -= min(tokens.cacheWrite, excess - min(excess, plain))
        return max(.zero, price.cost(tokens, nanoseconds: 0) - price.cost(less, nanoseconds: 0))
    }
}

extension CostSuggestions.Suggestion {
    var json: JSONValue {
        var object: JSONObject = [
            "kind": .string(kind), "advice": .string(advice), "saving_usd": .string(saving.usd),
            "attempts": .number(JSONNumber(attempts)), "cost_usd": .string(cost.usd),
            "how": .string(how),
        ]
        for (name, value) in figures.members { object[name] = value }
        return .object(object)
    }
}
