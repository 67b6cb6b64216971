import WeirCore

/// Which fields of an OpenAI request are known not to make it cost more than its text and its
/// output bound: lists of what is allowed, because a list of what is forbidden is never complete.
struct OpenAIFields {
    /// The path behind the API's base, as "/chat/completions".
    let endpoint: String

    private static let sampling: Set<String> = [
        "model", "user", "seed", "stream", "stream_options", "temperature", "top_p", "top_k",
        "min_p", "stop", "presence_penalty", "frequency_penalty", "repetition_penalty",
        "logit_bias", "logprobs", "top_logprobs", "metadata", "store", "service_tier",
        "safety_identifier", "prompt_cache_key",
    ]

    private static let fields: [String: Set<String>] = [
        "/chat/completions": sampling.union([
            "messages", "max_tokens", "max_completion_tokens", "n", "response_format", "tools",
            "tool_choice", "parallel_tool_calls", "functions", "function_call", "modalities",
            "reasoning_effort", "verbosity",
        ]),
        "/completions": sampling.union([
            "prompt", "suffix", "echo", "max_tokens", "n", "best_of",
        ]),
        "/embeddings": ["model", "input", "encoding_format", "dimensions", "user"],
        "/responses": sampling.union([
            "input", "instructions", "max_output_tokens", "tools", "tool_choice",
            "parallel_tool_calls", "reasoning", "text", "truncation", "background",
        ]),
    ]

    private static let messageFields: Set<String> = [
        "role", "content", "name", "tool_calls", "tool_call_id", "function_call", "refusal",
        "reasoning_content", "type", "id", "status", "call_id", "arguments", "output",
    ]
    private static let textParts: Set<String> = ["text", "refusal", "input_text", "output_text"]
    /// Items of a response's input other than messages; all of them are text that we have here.
    private static let textItems: Set<String> = [
        "message", "function_call", "function_call_output",
    ]

    /// The first field that may cost more than is known, with the reason.
    func firstUnknown(in body: JSONObject) -> Problem? {
        let known = Self.fields[endpoint] ?? []
        for (key, value) in body.members where value != .null {
            let path = JSONPointer([key])
            guard known.contains(key) else {
                return problem(path, "the field is not known to be harmless")
            }
            if let found = unknown(key, value, path) { return found }
        }
        return nil
    }

    private func unknown(_ key: String, _ value: JSONValue, _ path: JSONPointer) -> Problem? {
        switch key {
        case "messages": messages(value, path)
        case "input" where endpoint == "/responses": messages(value, path)
        case "tools": tools(value, path)
        case "service_tier":
            ["auto", "default", "flex"].contains(value.string ?? "")
                ? nil : problem(path, "this service tier has no price")
        case "modalities":
            value == ["text"] ? nil : problem(path, "only text has a price")
        case "background":
            value == false ? nil : problem(path, "what runs in the background cannot be metered")
        case "prompt", "input":
            isText(value) ? nil : problem(path, "must be text or tokens")
        default: nil
        }
    }

    private func messages(_ value: JSONValue, _ path: JSONPointer) -> Problem? {
        if value.string != nil { return nil }
        guard let list = value.array else { return problem(path, "must be an array") }
        for (index, message) in list.enumerated() {
            let path = path.appending(index)
            guard let object = message.object else { return problem(path, "must be an object") }
            for (key, value) in object.members where value != .null {
                guard Self.messageFields.contains(key) else {
                    return problem(
                        path.appending(key), "the field is not known to be harmless")
                }
                if key == "type", !Self.textItems.contains(value.string ?? "") {
                    return problem(path.appending(key), "only text has a bound")
                }
                if key == "content" || key == "output",
                    let found = parts(value, path.appending(key))
                {
                    return found
                }
            }
        }
        return nil
    }

    private func parts(_ value: JSONValue, _ path: JSONPointer) -> Problem? {
        if value.string != nil { return nil }
        guard let list = value.array else { return problem(path, "must be text or parts of text") }
        for (index, part) in list.enumerated() {
            guard Self.textParts.contains(part["type"]?.string ?? "") else {
                return problem(
                    path.appending(index).appending("type"),
                    "only text has a bound; images, audio and files have none")
            }
        }
        return nil
    }

    private func tools(_ value: JSONValue, _ path: JSONPointer) -> Problem? {
        guard let list = value.array else { return problem(path, "must be an array") }
        for (index, tool) in list.enumerated() where tool["type"]?.string != "function" {
            return problem(
                path.appending(index).appending("type"),
                "only functions that the caller runs are free; hosted tools are not")
        }
        return nil
    }

    /// A text, texts, tokens or lists of tokens.
    private func isText(_ value: JSONValue) -> Bool {
        switch value {
        case .string, .number: true
        case .array(let list): list.allSatisfy(isText)
        case .null, .bool, .object: false
        }
    }

    private func problem(_ path: JSONPointer, _ message: String) -> Problem {
        Problem(path: path.description, message: message)
    }
}
