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
    let step: RequestTypePolicy.Step
    /// One of the agent's.
    let model: String
    /// The tier's ceiling, below the agent's own.
    let outputTokensMax: Int64?

    package init(
        agent: AgentPolicy, step: RequestTypePolicy.Step, model: String? = nil,
        outputTokensMax: Int64?
    ) {
        self.agent = agent
        self.step = step
        self.model = model ?? agent.defaultModel
        self.outputTokensMax = outputTokensMax
    }

    /// - Parameter streams: a chat agent is asked for its words as they come.
    package func body(
        inputs: [String: JSONValue], streams: Bool = false
    ) throws(Failure) -> [UInt8] {
        switch agent.wireProtocol {
        case .openai: return try chat(inputs, streams: streams).bytes
        case .anthropic: return try anthropicMessages(inputs).bytes
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
    private func chat(
        _ inputs: [String: JSONValue], streams: Bool
    ) throws(Failure) -> JSONValue {
        let prompt = try prompt()
        var messages: [JSONValue] = []
        if let system = prompt.system {
            messages.append(message("system", PromptTemplate.render(system, inputs: inputs)))
        }
        messages.append(message("user", PromptTemplate.render(prompt.user, inputs: inputs)))
        let tokens = min(agent.outputTokensMax, outputTokensMax ?? .max)
        var body: JSONObject = [
            "model": .string(model), "messages": .array(messages),
            "max_tokens": .number(JSONNumber(tokens)),
        ]
        if streams { body["stream"] = true }
        if step.output == .json { body["response_format"] = ["type": "json_object"] }
        return .object(body)
    }

    /// The system's words stand beside the messages.
    private func anthropicMessages(_ inputs: [String: JSONValue]) throws(Failure) -> JSONValue {
        let prompt = try prompt()
        let tokens = min(agent.outputTokensMax, outputTokensMax ?? .max)
        var body: JSONObject = [
            "model": .string(model), "max_tokens": .number(JSONNumber(tokens)),
        ]
        if let system = prompt.system {
            body["system"] = .string(PromptTemplate.render(system, inputs: inputs))
        }
        body["messages"] = [message("user", PromptTemplate.render(prompt.user, inputs: inputs))]
        return .object(body)
    }

    private func prompt() throws(Failure) -> PromptTemplate {
        guard let prompt = step.prompt ?? agent.prompt else {
            throw Failure(detail: "There is no prompt for \(agent.name).")
        }
        return prompt
    }

    private func message(_ role: String, _ content: String) -> JSONValue {
        ["role": .string(role), "content": .string(content)]
    }

    /// The input named `inputs` or `text` (or the only one) is what the model reads; the others are
    /// its parameters.
    private func inference(_ inputs: [String: JSONValue]) throws(Failure) -> JSONValue {
        guard let main = Self.mainInput(inputs), let value = inputs[main] else {
            throw Failure(detail: "None of the step's inputs is the model's: name one \"text\".")
        }
        let parameters = inputs.filter { $0.key != main }
        var body: JSONObject = ["inputs": value]
        if !parameters.isEmpty { body["parameters"] = object(parameters) }
        return .object(body)
    }

    /// The name of what a model behind Hugging Face's API reads.
    static func mainInput(_ inputs: [String: JSONValue]) -> String? {
        ["inputs", "text"].first { inputs[$0] != nil }
            ?? (inputs.count == 1 ? inputs.keys.first : nil)
    }
}
