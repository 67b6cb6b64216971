import WeirCore
import WeirPolicy

/// Bounds requests of the OpenAI API. Only fields that are known to be harmless are let through: a
/// field that nobody here has heard of may be the one that costs money (hosted tools, stored
/// conversations, background runs, images by URL). Fields with the value `null` count as absent, as
/// they do for the API.
struct OpenAIBounder {
    let rules: WorstCase

    private enum Endpoint: String, CaseIterable {
        case chat = "/chat/completions"
        case completions = "/completions"
        case embeddings = "/embeddings"
        case responses = "/responses"
        case models = "/models"

        /// The field that bounds the output where the caller states none.
        var outputField: String { self == .responses ? "max_output_tokens" : "max_tokens" }
    }

    /// Numbers of completions, prompts and the like multiply the output. Above this the request is
    /// wrong, whatever the provider says.
    private static let choicesMax: Int64 = 4_096

    func bound(method: String, path: String, body: [UInt8]) throws(BoundRefusal) -> AttemptBound {
        guard let endpoint = endpoint(of: path) else {
            return try rules.ceiling(
                rules.agent.defaultModel, "\(path) is not a path whose cost is known")
        }
        if endpoint == .models {
            guard method == "GET" || method == "HEAD" else {
                return try rules.ceiling(rules.agent.defaultModel, "\(method) on \(path)")
            }
            // Listing models costs nothing at any provider: no price to look up.
            return rules.bounded(
                model: rules.agent.defaultModel, price: ModelPrice(model: rules.agent.defaultModel),
                inputTokensMax: 0, outputTokensMax: 0)
        }
        guard method == "POST" else {
            // A stored response or completion is read, listed, cancelled or deleted.
            return try rules.ceiling(rules.agent.defaultModel, "\(method) on \(path)")
        }
        return try bound(endpoint, object: try parse(body))
    }

    /// The agent's own path says where the API begins: "/v1/chat/completions" → "/v1".
    private func endpoint(of path: String) -> Endpoint? {
        var base = "/v1"
        if let suffix = Endpoint.allCases.first(where: { rules.agent.path.hasSuffix($0.rawValue) })
        {
            base = String(rules.agent.path.dropLast(suffix.rawValue.count))
        }
        guard path.hasPrefix(base) else { return nil }
        return Endpoint(rawValue: String(path.dropFirst(base.count)))
    }

    private func parse(_ body: [UInt8]) throws(BoundRefusal) -> JSONObject {
        let value: JSONValue
        do {
            value = try JSON.parse(body)
        } catch {
            throw BoundRefusal(
                error.kind == .duplicateKey ? .duplicateKey : .malformed, error.description)
        }
        guard let object = value.object else {
            throw BoundRefusal(.invalid, "The body must be a JSON object, not \(value.kindName).")
        }
        return object
    }

    private func bound(
        _ endpoint: Endpoint, object: JSONObject
    ) throws(BoundRefusal) -> AttemptBound {
        var body = object
        let model = try resolveModel(&body)
        guard let price = rules.prices[model] else {
            return try rules.ceiling(model, "the model \(model) has no price", at: "/model")
        }
        if let unknown = OpenAIFields(endpoint: endpoint.rawValue).firstUnknown(in: object) {
            return try rules.ceiling(model, unknown.message, at: unknown.path)
        }
        let choices = try choices(endpoint, object)
        var output: Int64 = 0
        if endpoint != .embeddings {
            output = try boundOutput(endpoint, &body) &* choices
        }
        let isStream = try streams(object)
        if isStream, endpoint == .chat || endpoint == .completions { askForUsage(&body) }
        var bound = rules.bounded(
            model: model, price: price, inputTokensMax: inputTokens(object),
            outputTokensMax: output)
        bound.isStream = isStream
        if body != object { bound.body = JSONValue.object(body).bytes }
        return bound
    }

    private func resolveModel(_ body: inout JSONObject) throws(BoundRefusal) -> String {
        switch body["model"] {
        case nil, .null?:
            body["model"] = .string(rules.agent.defaultModel)
            return rules.agent.defaultModel
        case .string(let name)?:
            let model = name == rules.agent.name ? rules.agent.defaultModel : nil
            guard let model = rules.agent.model(named: name) ?? model else {
                throw invalid("/model", "the agent \(rules.agent.name) has no such model")
            }
            if model != name { body["model"] = .string(model) }
            return model
        default: throw invalid("/model", "must be a string")
        }
    }

    /// How many answers the provider writes, each as long as the output bound.
    private func choices(_ endpoint: Endpoint, _ body: JSONObject) throws(BoundRefusal) -> Int64 {
        var count = max(
            try integer(body, "n", atLeast: 1) ?? 1, try integer(body, "best_of", atLeast: 1) ?? 1)
        if endpoint == .completions, let prompts = body["prompt"]?.array,
            let first = prompts.first, first.number == nil
        {
            // A list of prompts, each answered `n` times. A list of numbers is one prompt of
            // tokens.
            let (product, overflow) = count.multipliedReportingOverflow(by: Int64(prompts.count))
            count = overflow ? .max : product
        }
        guard count <= Self.choicesMax else { throw invalid("/n", "too many completions") }
        return count
    }

    /// The output bound of one answer, written into the body where it says none or too much.
    private func boundOutput(
        _ endpoint: Endpoint, _ body: inout JSONObject
    ) throws(BoundRefusal) -> Int64 {
        let ceiling = rules.outputTokensMax ?? .max
        var bound: Int64?
        for field in ["max_tokens", "max_completion_tokens", "max_output_tokens"] {
            guard let requested = try integer(body, field, atLeast: 1) else { continue }
            let allowed = min(requested, ceiling)
            if allowed != requested { body[field] = .number(JSONNumber(allowed)) }
            // Two fields at once: whichever the provider obeys, the larger one bounds.
            bound = max(bound ?? 0, allowed)
        }
        if let bound { return min(bound, Int64(UInt32.max)) }
        let allowed = max(1, min(rules.agent.outputTokensMax, ceiling))
        body[endpoint.outputField] = .number(JSONNumber(allowed))
        return min(allowed, Int64(UInt32.max))
    }

    private func streams(_ body: JSONObject) throws(BoundRefusal) -> Bool {
        switch body["stream"] {
        case nil, .null?: return false
        case .bool(let streams)?: return streams
        default: throw invalid("/stream", "must be a boolean")
        }
    }

    /// Without this a streamed answer says nothing of its usage, and the worst case would be due.
    private func askForUsage(_ body: inout JSONObject) {
        var options = body["stream_options"]?.object ?? JSONObject()
        guard options["include_usage"]?.bool != true else { return }
        options["include_usage"] = .bool(true)
        body["stream_options"] = .object(options)
    }

    private func inputTokens(_ body: JSONObject) -> Int64 {
        var tokens = WorstCase.templateTokens
        for (key, value) in body.members where value != .null {
            switch key {
            case "messages", "prompt", "suffix", "input", "instructions":
                tokens += Int64(value.bytes.count)
            case "tools", "functions", "response_format", "text":
                tokens += Int64(value.bytes.count) + WorstCase.toolTemplateTokens
            default: break
            }
        }
        return tokens
    }

    private func integer(
        _ body: JSONObject, _ field: String, atLeast minimum: Int64
    ) throws(BoundRefusal) -> Int64? {
        guard let value = body[field], value != .null else { return nil }
        guard let number = value.int64, number >= minimum else {
            throw invalid("/" + field, "must be an integer of at least \(minimum)")
        }
        return number
    }

    private func invalid(_ path: String, _ message: String) -> BoundRefusal {
        BoundRefusal(
            .invalid, "The field \(path) \(message).",
            problem: Problem(path: path, message: message))
    }
}
