import WeirCore
import WeirPolicy

/// Bounds requests of the Anthropic API: messages, and what is free of charge beside them. As
/// everywhere only what is known to be harmless passes.
struct AnthropicBounder {
    let rules: WorstCase

    private enum Endpoint: String, CaseIterable {
        case messages = "/messages"
        case countTokens = "/messages/count_tokens"
        case models = "/models"
    }

    private static let endpoints = Endpoint.allCases.map(\.rawValue)
    /// Begin and end of turns, the date, the preamble of thinking.
    private static let templateTokens: Int64 = 256
    /// The provider's own preamble where there are tools; its documentation says 530 at most.
    private static let toolTemplateTokens: Int64 = 1_024

    func bound(method: String, path: String, body: [UInt8]) throws(BoundRefusal) -> AttemptBound {
        let endpoint = rules.suffix(of: path, behind: Self.endpoints)
            .flatMap(Endpoint.init(rawValue:))
        switch (endpoint, method) {
        case (.models, "GET"), (.models, "HEAD"), (.countTokens, "POST"): return rules.free
        case (.messages, "POST"): return try bound(try BoundedBody(body, rules))
        case (.models, _), (.countTokens, _), (.messages, _):
            return try rules.ceiling(rules.agent.defaultModel, "\(method) on \(path)")
        case (nil, _):
            return try rules.ceiling(
                rules.agent.defaultModel, "\(path) is not a path whose cost is known")
        }
    }

    private func bound(_ received: BoundedBody) throws(BoundRefusal) -> AttemptBound {
        var body = received
        let model = try body.resolveModel()
        guard let price = rules.prices[model] else {
            return try rules.ceiling(model, "the model \(model) has no price", at: "/model")
        }
        if let unknown = AnthropicFields().firstUnknown(in: body.original) {
            return try rules.ceiling(model, unknown.message, at: unknown.path)
        }
        let output = try body.boundOutput(["max_tokens"], missing: "max_tokens")
        let isStream = try body.streams()
        var bound = rules.bounded(
            model: model, price: price, inputTokensMax: inputTokens(body.original),
            outputTokensMax: output + (try thinking(body, beyond: output)))
        bound.writtenOutputMax = body.writtenOutputMax
        bound.isStream = isStream
        bound.body = body.replacement
        return bound
    }

    /// Thinking counts as output and is within `max_tokens`, but where thinking is interleaved with
    /// tools: then its budget may be larger, and both may be spent.
    private func thinking(
        _ body: BoundedBody, beyond output: Int64
    ) throws(BoundRefusal) -> Int64 {
        guard let value = body.original["thinking"]?["budget_tokens"], value != .null else {
            return 0
        }
        guard let budget = value.int64, budget >= 0 else {
            throw BoundedBody.invalid("/thinking/budget_tokens", "must be an integer")
        }
        return budget > output ? min(budget, Int64(UInt32.max)) : 0
    }

    private func inputTokens(_ body: JSONObject) -> Int64 {
        var tokens = Self.templateTokens
        for (key, value) in body.members where value != .null {
            switch key {
            case "messages", "system": tokens += Int64(value.bytes.count)
            case "tools": tokens += Int64(value.bytes.count) + Self.toolTemplateTokens
            default: break
            }
        }
        return tokens
    }
}

/// Which fields of an Anthropic request are known not to make it cost more than its text and its
/// output bound.
struct AnthropicFields {
    private static let fields: Set<String> = [
        "model", "messages", "system", "max_tokens", "metadata", "stop_sequences", "stream",
        "temperature", "top_p", "top_k", "thinking", "tools", "tool_choice", "service_tier",
    ]
    private static let messageFields: Set<String> = ["role", "content"]
    /// Blocks of text, whatever they stand for: what is in them is in the body.
    private static let blocks: Set<String> = [
        "text", "thinking", "redacted_thinking", "tool_use", "tool_result",
    ]
    private static let toolFields: Set<String> = [
        "type", "name", "description", "input_schema", "cache_control", "strict",
    ]

    /// The first field that may cost more than is known, with the reason.
    func firstUnknown(in body: JSONObject) -> Problem? {
        for (key, value) in body.members where value != .null {
            let path = JSONPointer([key])
            guard Self.fields.contains(key) else {
                return path.problem("the field is not known to be harmless")
            }
            if let found = unknown(key, value, path) { return found }
        }
        return nil
    }

    private func unknown(_ key: String, _ value: JSONValue, _ path: JSONPointer) -> Problem? {
        switch key {
        case "messages": messages(value, path)
        case "system": content(value, path)
        case "tools": tools(value, path)
        case "service_tier":
            ["auto", "standard_only"].contains(value.string ?? "")
                ? nil : path.problem("this service tier has no price")
        default: nil
        }
    }

    private func messages(_ value: JSONValue, _ path: JSONPointer) -> Problem? {
        guard let list = value.array else { return path.problem("must be an array") }
        for (index, message) in list.enumerated() {
            let path = path.appending(index)
            guard let object = message.object else { return path.problem("must be an object") }
            for (key, value) in object.members where value != .null {
                guard Self.messageFields.contains(key) else {
                    return path.appending(key).problem("the field is not known to be harmless")
                }
                if key == "content", let found = content(value, path.appending(key)) {
                    return found
                }
            }
        }
        return nil
    }

    /// A text or blocks of it; the result of a tool has blocks of its own.
    private func content(_ value: JSONValue, _ path: JSONPointer) -> Problem? {
        if value.string != nil { return nil }
        guard let list = value.array else { return path.problem("must be text or blocks of text") }
        for (index, block) in list.enumerated() {
            let path = path.appending(index)
            guard Self.blocks.contains(block["type"]?.string ?? "") else {
                return path.appending("type").problem(
                    "only text has a bound; images, documents and hosted tools have none")
            }
            if let found = cache(block, path) { return found }
            if block["type"] == "tool_result", let inner = block["content"], inner != .null,
                let found = content(inner, path.appending("content"))
            {
                return found
            }
        }
        return nil
    }

    /// Written to the cache of five minutes, a token costs what `cacheWrite` says; another lifetime
    /// has another price.
    private func cache(_ block: JSONValue, _ path: JSONPointer) -> Problem? {
        guard let life = block["cache_control"]?["ttl"], life != .null, life != "5m" else {
            return nil
        }
        return path.appending("cache_control").appending("ttl")
            .problem("only what is cached for five minutes has a price")
    }

    private func tools(_ value: JSONValue, _ path: JSONPointer) -> Problem? {
        guard let list = value.array else { return path.problem("must be an array") }
        for (index, tool) in list.enumerated() {
            let path = path.appending(index)
            let type = tool["type"] ?? .null
            guard type == .null || type == "custom" else {
                return path.appending("type").problem(
                    "only tools that the caller runs are free; hosted tools are not")
            }
            for (key, value) in tool.object?.members ?? []
            where value != .null && !Self.toolFields.contains(key) {
                return path.appending(key).problem("the field is not known to be harmless")
            }
            if let found = cache(tool, path) { return found }
        }
        return nil
    }
}
