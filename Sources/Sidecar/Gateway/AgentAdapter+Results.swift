import SidecarCore
import WeirCore
import WeirPolicy

extension AgentAdapter {
    /// The result of a successful answer to a request with these inputs; a failure for one that
    /// breaks the agent's protocol or is not what the step's schema says.
    package func result(
        of body: [UInt8], inputs: [String: JSONValue]
    ) throws(Failure) -> JSONValue {
        let value = try parse(body, "The answer of \(agent.name)")
        let result =
            switch agent.wireProtocol {
            case .openai: try completion(value)
            case .anthropic: try anthropicMessage(value)
            case .huggingface: try inference(value, inputs)
            case .json, .passthrough: value
            }
        if let problem = step.resultSchema?.problems(with: result).first {
            throw Failure(
                detail: "The answer of \(agent.name) is not what the step wants: \(problem).")
        }
        return result
    }

    private func parse(_ body: [UInt8], _ what: String) throws(Failure) -> JSONValue {
        do {
            return try JSON.parse(
                body, depthMax: GatewayLimits.answerDepthMax,
                valuesMax: GatewayLimits.answerValuesMax)
        } catch {
            throw Failure(detail: "\(what) is not JSON: \(error).")
        }
    }

    // MARK: OpenAI

    private func completion(_ value: JSONValue) throws(Failure) -> JSONValue {
        guard let choice = value["choices"]?.array?.first, let message = choice["message"] else {
            throw Failure(detail: "The answer of \(agent.name) has no message.")
        }
        let finish = choice["finish_reason"]?.string
        return try written(try words(message, finish), finish)
    }

    /// A text as the step wants it.
    private func written(_ text: String, _ finish: String?) throws(Failure) -> JSONValue {
        guard step.output == .text else {
            return try parse(Array(Self.withoutFence(text).utf8), "What \(agent.name) wrote")
        }
        var result: JSONObject = ["text": .string(text)]
        if let finish { result["finish_reason"] = .string(finish) }
        return .object(result)
    }

    /// What was written. A message without words (a refusal, a call of a tool that nobody offered,
    /// a filtered or reasoned-away answer) is no result of any step.
    private func words(_ message: JSONValue, _ finish: String?) throws(Failure) -> String {
        var text = message["content"]?.string ?? ""
        if let parts = message["content"]?.array {
            text = parts.compactMap { $0["text"]?.string }.joined()
        }
        if !text.isEmpty { return text }
        if let refusal = message["refusal"]?.string, !refusal.isEmpty {
            throw Failure(detail: "\(agent.name) declined: \(refusal.prefix(200))")
        }
        if message["tool_calls"]?.array?.isEmpty == false || message["function_call"] != nil {
            throw Failure(detail: "\(agent.name) called a tool that it was not offered.")
        }
        let why = finish.map { " (finish_reason \($0.prefix(40)))" } ?? ""
        throw Failure(detail: "The message of \(agent.name) has no words\(why).")
    }

    /// Models that know no `response_format` put their JSON into a fence of Markdown.
    static func withoutFence(_ text: String) -> Substring {
        let trimmed = trim(text[...])
        guard trimmed.hasPrefix("```"), trimmed.hasSuffix("```"),
            let newline = trimmed.firstIndex(of: "\n")
        else { return trimmed }
        return trim(trimmed[trimmed.index(after: newline)...].dropLast(3))
    }

    private static func trim(_ text: Substring) -> Substring {
        let front = text.drop(while: \.isWhitespace)
        guard let last = front.lastIndex(where: { !$0.isWhitespace }) else { return "" }
        return front[...last]
    }

    // MARK: Anthropic

    private func anthropicMessage(_ value: JSONValue) throws(Failure) -> JSONValue {
        guard let blocks = value["content"]?.array else {
            throw Failure(detail: "The answer of \(agent.name) has no message.")
        }
        let text = blocks.filter { $0["type"] == "text" }.compactMap { $0["text"]?.string }.joined()
        let finish = value["stop_reason"]?.string
        guard !text.isEmpty else {
            let why = finish.map { " (stop_reason \($0.prefix(40)))" } ?? ""
            throw Failure(detail: "The message of \(agent.name) has no words\(why).")
        }
        return try written(text, finish)
    }

    // MARK: Hugging Face

    private func inference(
        _ value: JSONValue, _ inputs: [String: JSONValue]
    ) throws(Failure) -> JSONValue {
        let texts = Self.mainInput(inputs).flatMap { inputs[$0]?.array }
        guard let outer = value.array, !outer.isEmpty else {
            if value.object?["error"] != nil || value.array != nil {
                throw Failure(detail: "The answer of \(agent.name) has no scores.")
            }
            return ["output": value]
        }
        if let texts { return try batch(outer, of: texts.count) ?? ["output": value] }
        if let scores = Scores(outer[0].array ?? outer) { return scores.json }
        if let text = Self.writtenText(outer[0]) { return ["text": .string(text)] }
        return ["output": value]
    }

    /// Several texts: `[[{label, score}, …], …]`, or `[{label, score}, …]` with the best of each.
    /// The result is the mean of the scores, with each text's own under `items`.
    private func batch(_ outer: [JSONValue], of count: Int) throws(Failure) -> JSONValue? {
        let items = outer.compactMap { Scores($0.array ?? [$0]) }
        guard !items.isEmpty else { return nil }
        guard items.count == outer.count, items.count == count else {
            throw Failure(
                detail: "The answer of \(agent.name) has \(items.count) results for \(count) texts."
            )
        }
        guard var mean = Scores(meanOf: items).json.object else { return nil }
        mean["items"] = .array(items.map(\.json))
        return .object(mean)
    }

    /// Text generation, summaries and translations: one text under a name of the task's.
    private static func writtenText(_ value: JSONValue) -> String? {
        for name in ["generated_text", "summary_text", "translation_text"] {
            if let text = value[name]?.string { return text }
        }
        return nil
    }
}

/// Labels with their scores, as a text classification gives them.
private struct Scores {
    private let all: [(label: String, score: JSONNumber)]
    private let best: (label: String, score: JSONNumber)

    /// `nil` when any element is something else.
    init?(_ list: [JSONValue]) {
        let all = list.compactMap { item -> (label: String, score: JSONNumber)? in
            guard let label = item["label"]?.string, let score = item["score"]?.number else {
                return nil
            }
            return (label, score)
        }
        guard all.count == list.count, let first = all.first else { return nil }
        self.all = all
        best = all.dropFirst().reduce(first) { $1.score.double > $0.score.double ? $1 : $0 }
    }

    /// A label that a text does not mention has a score of 0 there.
    init(meanOf items: [Scores]) {
        precondition(!items.isEmpty, "there is no mean of nothing")
        var order: [String] = []
        var sums: [String: Double] = [:]
        for (label, score) in items.flatMap(\.all) {
            if sums[label] == nil { order.append(label) }
            sums[label, default: 0] += score.double
        }
        let means = order.map { label in
            let mean = (sums[label] ?? 0) / Double(items.count)
            return (label: label, score: JSONNumber(mean) ?? JSONNumber(0))
        }
        all = means
        best = means.dropFirst().reduce(means[0]) { $1.score.double > $0.score.double ? $1 : $0 }
    }

    var json: JSONValue {
        var scores = JSONObject()
        for (label, score) in all { scores[label] = .number(score) }
        return [
            "label": .string(best.label), "score": .number(best.score), "scores": .object(scores),
        ]
    }
}
