import SidecarCore
import WeirCore
import WeirPolicy

/// Turns the inputs of a step into the request that an agent's protocol wants, and its answer into
/// the step's `result`. Pure.
package struct AgentAdapter: Sendable {
    package struct Failure: Error, Hashable, Sendable {
        package let detail: String
    }

    let agent: AgentPolicy
    let prompt: PromptTemplate?
    /// The tier's ceiling, below the agent's own.
    let outputTokensMax: Int64?

    package init(agent: AgentPolicy, step: RequestTypePolicy.Step, outputTokensMax: Int64?) {
        self.agent = agent
        prompt = step.prompt ?? agent.prompt
        self.outputTokensMax = outputTokensMax
    }

    // MARK: There

    package func body(inputs: [String: JSONValue]) throws(Failure) -> [UInt8] {
        switch agent.wireProtocol {
        case .openai: return try chat(inputs).bytes
        case .huggingface: return try inference(inputs).bytes
        case .json: return object(inputs).bytes
        case .passthrough:
            throw Failure(detail: "A passthrough agent has no form that a step could be put in.")
        }
    }

    /// Members in the order of their names, so that equal inputs are equal bytes.
    private func object(_ inputs: [String: JSONValue]) -> JSONValue {
        var object = JSONObject()
        for (name, value) in inputs.sorted(by: { $0.key < $1.key }) { object[name] = value }
        return .object(object)
    }

    /// The output limit is always stated: it is what bounds the cost.
    private func chat(_ inputs: [String: JSONValue]) throws(Failure) -> JSONValue {
        guard let prompt else { throw Failure(detail: "There is no prompt for \(agent.name).") }
        var messages: [JSONValue] = []
        if let system = prompt.system {
            messages.append(message("system", PromptTemplate.render(system, inputs: inputs)))
        }
        messages.append(message("user", PromptTemplate.render(prompt.user, inputs: inputs)))
        let tokens = min(agent.outputTokensMax, outputTokensMax ?? .max)
        return [
            "model": .string(agent.defaultModel), "messages": .array(messages),
            "max_tokens": .number(JSONNumber(tokens)),
        ]
    }

    private func message(_ role: String, _ content: String) -> JSONValue {
        ["role": .string(role), "content": .string(content)]
    }

    /// The input named `inputs` or `text` (or the only one) is what the model reads; the others are
    /// its parameters.
    private func inference(_ inputs: [String: JSONValue]) throws(Failure) -> JSONValue {
        let main =
            ["inputs", "text"].first { inputs[$0] != nil }
            ?? (inputs.count == 1 ? inputs.keys.first : nil)
        guard let main, let value = inputs[main] else {
            throw Failure(detail: "None of the step's inputs is the model's: name one \"text\".")
        }
        let parameters = inputs.filter { $0.key != main }
        var body: JSONObject = ["inputs": value]
        if !parameters.isEmpty { body["parameters"] = object(parameters) }
        return .object(body)
    }

    // MARK: Back

    /// The result of a successful answer; a failure for one that breaks the agent's protocol.
    package func result(of body: [UInt8]) throws(Failure) -> JSONValue {
        let value: JSONValue
        do {
            value = try JSON.parse(
                body, depthMax: GatewayLimits.answerDepthMax,
                valuesMax: GatewayLimits.answerValuesMax)
        } catch {
            throw Failure(detail: "The answer of \(agent.name) is not JSON: \(error).")
        }
        switch agent.wireProtocol {
        case .openai: return try completion(value)
        case .huggingface: return try labels(value)
        case .json, .passthrough: return value
        }
    }

    private func completion(_ value: JSONValue) throws(Failure) -> JSONValue {
        guard let choice = value["choices"]?.array?.first,
            let text = choice["message"]?["content"]?.string
        else { throw Failure(detail: "The answer of \(agent.name) has no message.") }
        var result: JSONObject = ["text": .string(text)]
        if let finish = choice["finish_reason"]?.string {
            result["finish_reason"] = .string(finish)
        }
        return .object(result)
    }

    /// Text classification answers `[[{label, score}, …]]`, one list for each input; some servers
    /// leave the outer list out. Other tasks' answers are kept as they are, under `output`.
    private func labels(_ value: JSONValue) throws(Failure) -> JSONValue {
        guard let outer = value.array, let first = outer.first else {
            if value.object?["error"] != nil || value.array != nil {
                throw Failure(detail: "The answer of \(agent.name) has no scores.")
            }
            return ["output": value]
        }
        let scores = (first.array ?? outer).compactMap { item -> (String, JSONNumber)? in
            guard let label = item["label"]?.string, let score = item["score"]?.number else {
                return nil
            }
            return (label, score)
        }
        guard let best = scores.max(by: { $0.1.double < $1.1.double }) else {
            return ["output": value]
        }
        var all = JSONObject()
        for (label, score) in scores { all[label] = .number(score) }
        return ["label": .string(best.0), "score": .number(best.1), "scores": .object(all)]
    }
}
