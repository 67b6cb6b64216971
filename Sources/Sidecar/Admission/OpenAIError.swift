import WeirCore

/// The error object of the OpenAI API, which its clients turn into exceptions: by status, and some
/// callers by `type` and `code`.
package struct OpenAIError {
    package let reason: Reason
    package let message: String
    /// The field of the request that it is about.
    package var parameter: String?
    /// Further members.
    package var members: [(name: String, value: JSONValue)] = []

    package init(_ reason: Reason, message: String, parameter: String? = nil) {
        self.reason = reason
        self.message = message
        self.parameter = parameter
    }

    package var json: JSONValue {
        var error: JSONObject = [
            "message": .string(message), "type": .string(type),
            "param": parameter.map { .string($0) } ?? .null, "code": .string(code),
        ]
        for (name, value) in members where error[name] == nil { error[name] = value }
        return ["error": .object(error)]
    }

    private var type: String {
        switch reason {
        case .budgetExhausted, .quotaExhausted: "insufficient_quota"
        case .rateLimited, .concurrency: "rate_limit_error"
        default:
            switch reason.status {
            case 401: "authentication_error"
            case 403: "permission_error"
            case 400..<500: "invalid_request_error"
            default: "server_error"
            }
        }
    }

    /// The reason's own name, but where callers look for OpenAI's.
    private var code: String {
        switch reason {
        case .unknownAgent: "model_not_found"
        case .unauthenticated: "invalid_api_key"
        default: reason.name
        }
    }

    /// Whether the same request may succeed a little later.
    package static func isWorthRetrying(_ reason: Reason) -> Bool {
        switch reason {
        case .rateLimited, .concurrency, .overloaded, .circuitOpen, .budgetContended, .noEndpoint,
            .controlPlaneLost, .deadline, .upstreamError, .upstreamProtocol, .requestTimeout,
            .idempotencyInFlight:
            true
        case .admitted, .malformed, .duplicateKey, .lengthRequired, .tooLarge, .mediaType,
            .expectation, .invalid, .headersTooLarge, .uriTooLong, .notImplemented, .version,
            .unauthenticated, .tokenExpired, .agentNotAllowed, .unmeteredPath, .forbidden,
            .budgetExhausted,
            .unknownAgent, .unknownRoute, .method, .quotaExhausted, .cancelled, .crashed:
            false
        }
    }
}
