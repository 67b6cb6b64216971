/// A chat model behind `POST /v1/chat/completions`, whole or streamed as server-sent events. What
/// it writes comes from a template, but from what the prompt says.
struct ChatAgent {
    static let choicesMax = 8
    static let messagesMax = 256
    /// What a model writes at most when a request states no limit.
    static let outputTokensDefault = 512

    let model: String
    let style: Prose.Style

    func answer(
        _ body: [UInt8], usage: UsageReport, createdSeconds: Int
    ) throws(Refusal) -> Answer {
        let query = try SampleJSON.decode(ChatQuery.self, from: body)
        guard (1...Self.messagesMax).contains(query.messages.count) else {
            throw .invalid("messages: between 1 and \(Self.messagesMax)")
        }
        let choices = query.n ?? 1
        let limit = query.max_completion_tokens ?? query.max_tokens ?? Self.outputTokensDefault
        guard (1...Self.choicesMax).contains(choices), (1...1_000_000).contains(limit) else {
            throw .invalid("n or max_tokens out of range")
        }
        // Instructions say how to write; what to write about is what the user says.
        let prompt = query.messages.filter { $0.role == "user" }.map(\.content.text)
            .joined(separator: "\n")
        let prose = Prose(prompt: prompt, style: style)
        let text = query.response_format?.type == "json_object" ? prose.json : prose.text
        let written = Tokens.prefix(text, limit: limit)
        let output = written.count * choices
        let completion = ChatCompletion(
            id: "chatcmpl-sample-\(Self.fingerprint(body))", created: createdSeconds,
            model: query.model ?? model, pieces: written.pieces,
            finishReason: written.whole ? "stop" : "length", choices: choices,
            usage: ChatUsage(
                promptTokens: Self.promptTokens(query.messages),
                completionTokens: usage == .excessive ? limit * choices + 1000 : output))
        var answer =
            query.stream == true
            ? completion.streamed(
                includeUsage: query.stream_options?.include_usage == true && usage != .missing)
            : completion.whole(includeUsage: usage != .missing)
        answer.fields.append(("sample", "true"))
        answer.inputTokens = Self.promptTokens(query.messages)
        answer.outputTokens = output
        return answer
    }

    /// Three tokens frame each message, as OpenAI's own guide counts them.
    static func promptTokens(_ messages: [ChatQuery.Message]) -> Int {
        messages.reduce(3) { $0 + 3 + Tokens.count($1.content.text) }
    }

    /// FNV-1a: equal requests get equal ids.
    private static func fingerprint(_ bytes: [UInt8]) -> String {
        String(
            bytes.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 },
            radix: 16)
    }
}

/// The part of OpenAI's request that the samples act on; the rest is accepted and ignored.
struct ChatQuery: Decodable {
    struct StreamOptions: Decodable { let include_usage: Bool? }
    struct ResponseFormat: Decodable { let type: String }

    struct Message: Decodable {
        let role: String
        let content: Content
    }

    /// A text, or parts of which those of type `text` count.
    struct Content: Decodable {
        private struct Part: Decodable {
            let type: String
            let text: String?
        }

        let text: String

        init(from decoder: any Decoder) throws {
            let container = try decoder.singleValueContainer()
            if let text = try? container.decode(String.self) {
                self.text = text
            } else {
                text = try container.decode([Part].self).compactMap(\.text).joined(separator: "\n")
            }
        }
    }

    let model: String?
    let messages: [Message]
    let stream: Bool?
    let stream_options: StreamOptions?
    let max_tokens: Int?
    let max_completion_tokens: Int?
    let n: Int?
    let response_format: ResponseFormat?
}

struct ChatUsage: Encodable {
    private struct PromptDetails: Encodable { let cached_tokens = 0 }
    private struct CompletionDetails: Encodable { let reasoning_tokens = 0 }

    let prompt_tokens: Int
    let completion_tokens: Int
    let total_tokens: Int
    private let prompt_tokens_details = PromptDetails()
    private let completion_tokens_details = CompletionDetails()

    init(promptTokens: Int, completionTokens: Int) {
        prompt_tokens = promptTokens
        completion_tokens = completionTokens
        total_tokens = promptTokens + completionTokens
    }
}
