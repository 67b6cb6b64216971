/// What a fault changes in the content of an answer, as opposed to its delivery.
enum UsageReport: Equatable {
    case truthful
    case missing
    /// More output than was allowed.
    case excessive
}

extension AgentKind {
    /// The answer to a body that arrived on one of the work paths.
    ///
    /// - Parameter createdSeconds: what `created` says; seconds since 1970.
    func answer(
        _ body: [UInt8], usage: UsageReport, createdSeconds: Int
    ) throws(Refusal) -> Answer {
        switch self {
        case .finbert: return try SentimentAgent.answer(body)
        case .tft: return try ForecastAgent.answer(body)
        case .risk: return try RiskAgent.answer(body)
        case .gpt4Turbo:
            let agent = ChatAgent(model: models[0], style: .thorough)
            return try agent.answer(body, usage: usage, createdSeconds: createdSeconds)
        case .llama:
            let agent = ChatAgent(model: models[0], style: .brief)
            return try agent.answer(body, usage: usage, createdSeconds: createdSeconds)
        }
    }

    /// An error as the real service of this kind words it.
    func errorBody(status: Int, message: String) -> [UInt8] {
        switch self {
        case .gpt4Turbo, .llama:
            SampleJSON.encode(
                OpenAIError(
                    error: .init(
                        message: message,
                        type: status == 429
                            ? "rate_limit_error"
                            : status < 500 ? "invalid_request_error" : "server_error",
                        code: nil),
                    sample: true))
        case .finbert, .tft, .risk:
            SampleJSON.encode(PlainError(error: message, sample: true))
        }
    }
}

private struct PlainError: Encodable {
    let error: String
    let sample: Bool
}

private struct OpenAIError: Encodable {
    struct Inner: Encodable {
        let message: String
        let type: String
        let code: String?
    }

    let error: Inner
    let sample: Bool
}
