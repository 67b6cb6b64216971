import WeirCore

/// The error object of the Anthropic API. Its clients make exceptions of the status; the reason is
/// a member of its own, because `type` is a closed list of the provider's.
struct AnthropicError {
    let reason: Reason
    let message: String

    init(_ reason: Reason, message: String) {
        self.reason = reason
        self.message = message
    }

    var json: JSONValue {
        [
            "type": "error",
            "error": [
                "type": .string(type), "message": .string(message), "code": .string(reason.name),
            ],
        ]
    }

    private var type: String {
        switch reason.status {
        case 401: "authentication_error"
        case 402: "billing_error"
        case 403: "permission_error"
        case 404: "not_found_error"
        case 413: "request_too_large"
        case 429: "rate_limit_error"
        case 400..<500: "invalid_request_error"
        case 503: "overloaded_error"
        case 504: "timeout_error"
        default: "api_error"
        }
    }
}
