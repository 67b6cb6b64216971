import WeirCore
import WeirPolicy

/// Refusals in the shape that the caller expects: a problem document, or the error object of
/// the API that the agent speaks.
enum RefusalShape {
    static func refusal(_ stage: StageRefusal, for agent: AgentPolicy) -> Refusal {
        var refusal = Refusal(
            stage.reason, detail: stage.detail, retryAfterSeconds: stage.retryAfterSeconds)
        refusal.members.append(("agent", .string(agent.name)))
        if let limit = stage.rateLimit {
            refusal.fields.append(("ratelimit-policy", limit.policy))
            refusal.fields.append(("ratelimit", limit.state))
        }
        return shaped(refusal, for: agent)
    }

    static func refusal(_ bound: BoundRefusal, for agent: AgentPolicy) -> Refusal {
        var refusal = Refusal(bound.reason, detail: bound.detail)
        if let problem = bound.problem {
            let entry: JSONValue = [
                "pointer": .string(problem.path), "detail": .string(problem.message),
            ]
            refusal.members.append(("errors", [entry]))
        }
        return shaped(refusal, for: agent)
    }

    static func refusal(_ reason: Reason, _ detail: String, for agent: AgentPolicy) -> Refusal {
        shaped(Refusal(reason, detail: detail), for: agent)
    }

    static func shaped(_ refusal: Refusal, for agent: AgentPolicy) -> Refusal {
        switch agent.wireProtocol {
        case .openai: openAI(refusal)
        case .anthropic: anthropic(refusal)
        case .json, .huggingface, .passthrough: refusal
        }
    }

    private static func anthropic(_ refusal: Refusal) -> Refusal {
        var refusal = refusal
        if !OpenAIError.isWorthRetrying(refusal.reason) {
            refusal.fields.append(("x-should-retry", "false"))
        }
        let message = refusal.detail.isEmpty ? refusal.reason.title : refusal.detail
        refusal.body = (
            contentType: "application/json",
            bytes: AnthropicError(refusal.reason, message: message).json.bytes
        )
        return refusal
    }

    static func openAI(_ refusal: Refusal) -> Refusal {
        var refusal = refusal
        if !OpenAIError.isWorthRetrying(refusal.reason) {
            refusal.fields.append(("x-should-retry", "false"))
        }
        let message = refusal.detail.isEmpty ? refusal.reason.title : refusal.detail
        refusal.body = (
            contentType: "application/json",
            bytes: OpenAIError(refusal.reason, message: message).json.bytes
        )
        return refusal
    }
}
