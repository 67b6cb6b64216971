import WeirCore
import WeirPolicy

/// Bounds requests of the OpenAI API. Only fields that are known to be harmless are let through: a
/// field that nobody here has heard of may be the one that costs money (hosted tools, stored
/// conversations, background runs, images by URL).
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

    private static let endpoints = Endpoint.allCases.map(\.rawValue)
    private static let outputFields = ["max_tokens", "max_completion_tokens", "max_output_tokens"]

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
            return rules.free
        }
        guard method == "POST" else {
            // A stored response or completion is read, listed, cancelled or deleted.
            return try rules.ceiling(rules.agent.defaultModel, "\(method) on \(path)")
        }
        return try bound(endpoint, try BoundedBody(body, rules))
    }

    /// The agent's own path says where the API begins: "/v1/chat/completions" → "/v1".
    private func endpoint(of path: String) -> Endpoint? {
        rules.suffix(of: path, behind: Self.endpoints).flatMap(Endpoint.init(rawValue:))
    }

    private func bound(
        _ endpoint: Endpoint, _ received: BoundedBody
    ) throws(BoundRefusal) -> AttemptBound {
        var body = received
        let object = body.original
        let model = try body.resolveModel()
        guard let price = rules.prices[model] else {
            return try rules.ceiling(model, "the model \(model) has no price", at: "/model")
        }
        if let unknown = OpenAIFields(endpoint: endpoint.rawValue).firstUnknown(in: object) {
            return try rules.ceiling(model, unknown.message, at: unknown.path)
        }
        let choices = try choices(endpoint, body)
        var output: Int64 = 0
        if endpoint != .embeddings {
            let each = try body.boundOutput(Self.outputFields, missing: endpoint.outputField)
            output = each &* choices
        }
        let isStream = try body.streams()
        let hidesUsage =
            isStream && (endpoint == .chat || endpoint == .completions)
            && askForUsage(&body.object)
        var bound = rules.bounded(
            model: model, price: price, inputTokensMax: inputTokens(object),
            outputTokensMax: output)
        bound.choices = choices
        bound.writtenOutputMax = body.writtenOutputMax
        bound.isStream = isStream
        bound.hidesUsage = hidesUsage
        bound.body = body.replacement
        return bound
    }

    /// How many answers the provider writes, each as long as the output bound.
    private func choices(_ endpoint: Endpoint, _ body: BoundedBody) throws(BoundRefusal) -> Int64 {
        var count = max(
            try body.integer("n", atLeast: 1) ?? 1, try body.integer("best_of", atLeast: 1) ?? 1)
        if endpoint == .completions, let prompts = body.original["prompt"]?.array,
            let first = prompts.first, first.number == nil
        {
            // A list of prompts, each answered `n` times. A list of numbers is one prompt of
            // tokens.
            let (product, overflow) = count.multipliedReportingOverflow(by: Int64(prompts.count))
            count = overflow ? .max : product
        }
        guard count <= Self.choicesMax else {
            throw BoundedBody.invalid("/n", "too many completions")
        }
        return count
    }

    /// Without this a streamed answer says nothing of its usage, and the worst case would be due.
    /// False where the caller asks for it.
    private func askForUsage(_ body: inout JSONObject) -> Bool {
        var options = body["stream_options"]?.object ?? JSONObject()
        guard options["include_usage"]?.bool != true else { return false }
        options["include_usage"] = .bool(true)
        body["stream_options"] = .object(options)
        return true
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
}
