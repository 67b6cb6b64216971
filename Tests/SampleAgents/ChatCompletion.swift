/// One completion in both of OpenAI's forms: one object, or chunks in server-sent events.
struct ChatCompletion {
    private struct Message: Encodable {
        let role = "assistant"
        let content: String
    }

    private struct Choice: Encodable {
        let index: Int
        let message: Message
        let finish_reason: String
    }

    private struct Whole: Encodable {
        let id: String
        let object = "chat.completion"
        let created: Int
        let model: String
        let choices: [Choice]
        let usage: ChatUsage?
        let sample = true
    }

    private struct Delta: Encodable {
        var role: String?
        var content: String?
    }

    private struct ChunkChoice: Encodable {
        let index: Int
        let delta: Delta
        let finish_reason: String?

        private enum CodingKeys: CodingKey { case index, delta, finish_reason }

        /// `finish_reason` is there in every chunk, as null until the last.
        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(index, forKey: .index)
            try container.encode(delta, forKey: .delta)
            try container.encode(finish_reason, forKey: .finish_reason)
        }
    }

    private struct Chunk: Encodable {
        let id: String
        let object = "chat.completion.chunk"
        let created: Int
        let model: String
        let choices: [ChunkChoice]
        /// Outer nil: no such key. Inner nil: null, as in all chunks but the last when usage was
        /// asked for.
        let usage: ChatUsage??
        let sample = true

        private enum CodingKeys: CodingKey {
            case id, object, created, model, choices, usage, sample
        }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(id, forKey: .id)
            try container.encode(object, forKey: .object)
            try container.encode(created, forKey: .created)
            try container.encode(model, forKey: .model)
            try container.encode(choices, forKey: .choices)
            if let usage { try container.encode(usage, forKey: .usage) }
            try container.encode(sample, forKey: .sample)
        }
    }

    let id: String
    /// Seconds since 1970.
    let created: Int
    let model: String
    /// The text, token by token.
    let pieces: [Substring]
    let finishReason: String
    let choices: Int
    let usage: ChatUsage

    func whole(includeUsage: Bool) -> Answer {
        let message = Message(content: pieces.joined())
        let object = Whole(
            id: id, created: created, model: model,
            choices: (0..<choices).map {
                Choice(index: $0, message: message, finish_reason: finishReason)
            },
            usage: includeUsage ? usage : nil)
        return Answer(pieces: [SampleJSON.encode(object)])
    }

    func streamed(includeUsage: Bool) -> Answer {
        let indices = 0..<choices
        let unknown: ChatUsage?? = includeUsage ? .some(nil) : .none
        func event(_ delta: Delta, index: Int, finish: String? = nil) -> [UInt8] {
            let choice = ChunkChoice(index: index, delta: delta, finish_reason: finish)
            return self.event([choice], usage: unknown)
        }
        var events = indices.map { event(Delta(role: "assistant", content: ""), index: $0) }
        for piece in pieces {
            events += indices.map { event(Delta(content: String(piece)), index: $0) }
        }
        events += indices.map { event(Delta(), index: $0, finish: finishReason) }
        if includeUsage { events.append(self.event([], usage: .some(usage))) }
        events.append(Array("data: [DONE]\n\n".utf8))
        return Answer(contentType: "text/event-stream", pieces: events, streams: true)
    }

    private func event(_ choices: [ChunkChoice], usage: ChatUsage??) -> [UInt8] {
        let chunk = Chunk(id: id, created: created, model: model, choices: choices, usage: usage)
        return Array("data: ".utf8) + SampleJSON.encode(chunk) + Array("\n\n".utf8)
    }
}
