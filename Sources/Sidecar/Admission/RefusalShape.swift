import WeirCore
import WeirPolicy

/// Refusals in the shape that the caller expects: a problem document, or OpenAI's error object
/// where the agent speaks that API.
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
        guard agent.wireProtocol == .openai else { return refusal }
        var refusal = refusal
        if !isWorthRetrying(refusal.reason) {
            refusal.fields.append(("x-should-retry", "false"))
        }
        let message = refusal.detail.isEmpty ? refusal.reason.title : refusal.detail
        let error: JSONValue = [
            "message": .string(message), "type": .string(errorType(refusal.reason)),
            "param": .null, "code": .string(refusal.reason.name),
        ]
        refusal.body = (
            contentType: "application/json", bytes: JSONValue.object(["error": error]).bytes
        )
        return refusal
    }

    /// Whether the same request may succeed a little later.
    static func isWorthRetrying(_ reason: Reason) -> Bool {
        switch reason {
        case .rateLimited, .concurrency, .overloaded, .circuitOpen, .budgetContended, .noEndpoint,
            .controlPlaneLost, .deadline, .upstreamError, .upstreamProtocol, .requestTimeout,
            .idempotencyInFlight:
            true
        case .admitted, .malformed, .duplicateKey, .lengthRequired, .tooLarge, .mediaType,
            .expectation, .invalid, .headersTooLarge, .notImplemented, .version, .unauthenticated,
            .tokenExpired, .agentNotAllowed, .unmeteredPath, .forbidden, .budgetExhausted,
            .unknownAgent, .unknownRoute, .method, .quotaExhausted, .cancelled, .crashed:
            false
        }
    }

    private static func errorType(_ reason: Reason) -> String {
        switch reason.status {
        case 401: "authentication_error"
        case 402, 429: reason == .rateLimited ? "rate_limit_error" : "insufficient_quota"
        case 403: "permission_error"
        case 400..<500: "invalid_request_error"
        default: "server_error"
        }
    }
}
