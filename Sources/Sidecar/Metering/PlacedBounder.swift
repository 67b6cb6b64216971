import WeirCore
import WeirPolicy

/// Bounds requests of agents whose policy says where the request limits its output (`outputLimit`),
/// and those of Hugging Face's text generation, which say it in one place.
struct PlacedBounder {
    let rules: WorstCase
    let limit: JSONPointer

    private static let answersMax: Int64 = 4_096
    private static let fields: Set<String> = ["inputs", "parameters", "options", "stream"]
    /// Parameters of text generation that do not make it cost more than its text and its limit.
    private static let parameters: Set<String> = [
        "max_new_tokens", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty",
        "frequency_penalty", "do_sample", "seed", "stop", "stop_sequences", "truncate",
        "watermark", "details", "decoder_input_details", "return_full_text", "top_n_tokens",
        "best_of", "num_return_sequences", "grammar", "adapter_id",
    ]

    func bound(method: String, path: String, body: [UInt8]) throws(BoundRefusal) -> AttemptBound {
        let model = rules.agent.defaultModel
        guard let price = rules.prices[model] else {
            return try rules.ceiling(model, "it has no price")
        }
        guard method == "POST", path == rules.agent.path else {
            return try rules.ceiling(model, "\(method) on \(path)")
        }
        var body = try BoundedBody(body, rules)
        var answers: Int64 = 1
        if rules.agent.wireProtocol == .huggingface {
            if let unknown = unknown(body.original) {
                return try rules.ceiling(model, unknown.message, at: unknown.path)
            }
            answers = try self.answers(body.original)
        }
        let each = try body.boundOutput(at: limit)
        var bound = rules.bounded(
            model: model, price: price, inputTokensMax: inputTokens(body.original),
            outputTokensMax: each &* answers)
        bound.choices = answers
        bound.writtenOutputMax = body.writtenOutputMax
        bound.isStream = body.original["stream"]?.bool == true
        bound.body = body.replacement
        return bound
    }

    /// The same whether or not the limit was written into the body already.
    private func inputTokens(_ body: JSONObject) -> Int64 {
        let object = BoundedBody.set(limit.tokens[...], in: body, to: .number(JSONNumber(0)))
        return Int64(JSONValue.object(object ?? body).bytes.count) + WorstCase.templateTokens
    }

    private func unknown(_ body: JSONObject) -> Problem? {
        let fields: [(JSONObject, Set<String>, JSONPointer)] = [
            (body, Self.fields, JSONPointer([])),
            (body["parameters"]?.object ?? [:], Self.parameters, JSONPointer(["parameters"])),
        ]
        for (object, known, path) in fields {
            for (key, value) in object.members where value != .null && !known.contains(key) {
                return path.appending(key).problem("the field is not known to be harmless")
            }
        }
        return nil
    }

    /// Several texts have an answer each, and each may be written more than once.
    private func answers(_ body: JSONObject) throws(BoundRefusal) -> Int64 {
        var count = Int64(max(1, body["inputs"]?.array?.count ?? 1))
        for name in ["best_of", "num_return_sequences"] {
            guard let value = body["parameters"]?[name], value != .null else { continue }
            guard let times = value.int64, (1...Self.answersMax).contains(times) else {
                throw BoundedBody.invalid("/parameters/" + name, "must be a small number")
            }
            count = min(count, Self.answersMax + 1) * times
        }
        guard count <= Self.answersMax else {
            throw BoundedBody.invalid("/inputs", "asks for too many answers")
        }
        return count
    }
}

extension BoundedBody {
    /// The output bound, written at a place of the policy's choice.
    mutating func boundOutput(at limit: JSONPointer) throws(BoundRefusal) -> Int64 {
        let ceiling = rules.outputTokensMax ?? .max
        let stated = limit.evaluate(.object(original)) ?? .null
        var allowed = max(1, min(rules.agent.outputTokensMax, ceiling))
        if stated != .null {
            guard let number = stated.int64, number >= 1 else {
                throw Self.invalid(limit.description, "must be an integer of at least 1")
            }
            allowed = min(number, ceiling)
            if allowed == number { return min(allowed, Int64(UInt32.max)) }
        }
        guard
            let changed = Self.set(
                limit.tokens[...], in: original, to: .number(JSONNumber(allowed)))
        else { throw Self.invalid(limit.description, "has no place: an object is needed") }
        object = changed
        writtenOutputMax = allowed
        return min(allowed, Int64(UInt32.max))
    }

    /// `nil` where something that is no object is in the way.
    static func set(
        _ tokens: ArraySlice<String>, in object: JSONObject, to value: JSONValue
    ) -> JSONObject? {
        guard let first = tokens.first else { return nil }
        var object = object
        guard tokens.count > 1 else {
            object[first] = value
            return object
        }
        let inner: JSONObject
        switch object[first] {
        case nil, .null?: inner = [:]
        case .object(let found)?: inner = found
        default: return nil
        }
        guard let changed = set(tokens.dropFirst(), in: inner, to: value) else { return nil }
        object[first] = .object(changed)
        return object
    }
}
