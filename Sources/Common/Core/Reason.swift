/// Why a request was refused or failed. One enum for the response, the metrics and the records; the
/// raw value is what a record stores, so a number is never given to another reason.
package enum Reason: UInt8, CaseIterable, Sendable {
    case admitted = 0

    case malformed = 1
    case duplicateKey = 2
    case requestTimeout = 3
    case lengthRequired = 4
    case tooLarge = 5
    case mediaType = 6
    case expectation = 7
    case invalid = 8
    case headersTooLarge = 9
    case notImplemented = 10
    case version = 11
    case uriTooLong = 12

    case unauthenticated = 20
    case tokenExpired = 21
    case agentNotAllowed = 22
    case unmeteredPath = 23
    case forbidden = 24

    case budgetExhausted = 30

    case unknownAgent = 40
    case unknownRoute = 41
    case method = 42
    case idempotencyInFlight = 43

    case rateLimited = 50
    case quotaExhausted = 51
    case concurrency = 52

    case upstreamError = 60
    case upstreamProtocol = 61
    case circuitOpen = 62
    case overloaded = 63
    case budgetContended = 64
    case noEndpoint = 65
    case controlPlaneLost = 66
    case deadline = 67

    /// The caller went away before the answer was complete. Never sent, only recorded.
    case cancelled = 70
    /// An attempt that was open when its sidecar died, settled at its worst case at replay.
    case crashed = 71

    /// The name that responses, metrics and the audit trail carry.
    package var name: String {
        switch self {
        case .admitted: "admitted"
        case .malformed: "malformed"
        case .duplicateKey: "duplicate_key"
        case .requestTimeout: "request_timeout"
        case .lengthRequired: "length_required"
        case .tooLarge: "too_large"
        case .mediaType: "media_type"
        case .expectation: "expectation"
        case .invalid: "invalid"
        case .headersTooLarge: "headers_too_large"
        case .notImplemented: "not_implemented"
        case .version: "version"
        case .uriTooLong: "uri_too_long"
        case .unauthenticated: "unauthenticated"
        case .tokenExpired: "token_expired"
        case .agentNotAllowed: "agent_not_allowed"
        case .unmeteredPath: "unmetered_path"
        case .forbidden: "forbidden"
        case .budgetExhausted: "budget_exhausted"
        case .unknownAgent: "unknown_agent"
        case .unknownRoute: "unknown_route"
        case .method: "method"
        case .idempotencyInFlight: "idempotency_in_flight"
        case .rateLimited: "rate_limited"
        case .quotaExhausted: "quota_exhausted"
        case .concurrency: "concurrency"
        case .upstreamError: "upstream_error"
        case .upstreamProtocol: "upstream_protocol"
        case .circuitOpen: "circuit_open"
        case .overloaded: "overloaded"
        case .budgetContended: "budget_contended"
        case .noEndpoint: "no_endpoint"
        case .controlPlaneLost: "control_plane_lost"
        case .deadline: "deadline"
        case .cancelled: "cancelled"
        case .crashed: "crashed"
        }
    }

    /// What `weir-decision` says of a request that this would have refused, had the policy not only
    /// observed.
    package var observedDecision: String { "observed:" + name }

    package init?(name: some StringProtocol) {
        guard let match = Reason.allCases.first(where: { $0.name == name }) else { return nil }
        self = match
    }

    /// The HTTP status of the refusal (API.md, "Refusals").
    package var status: Int {
        switch self {
        case .admitted: 200
        case .malformed, .duplicateKey: 400
        case .unauthenticated, .tokenExpired: 401
        case .budgetExhausted: 402
        case .agentNotAllowed, .unmeteredPath, .forbidden: 403
        case .unknownAgent, .unknownRoute: 404
        case .method: 405
        case .requestTimeout: 408
        case .idempotencyInFlight: 409
        case .lengthRequired: 411
        case .tooLarge: 413
        case .uriTooLong: 414
        case .mediaType: 415
        case .expectation: 417
        case .invalid: 422
        case .rateLimited, .quotaExhausted, .concurrency: 429
        case .headersTooLarge: 431
        case .cancelled: 499
        case .crashed: 500
        case .notImplemented: 501
        case .upstreamError, .upstreamProtocol: 502
        case .circuitOpen, .overloaded, .budgetContended, .noEndpoint, .controlPlaneLost: 503
        case .deadline: 504
        case .version: 505
        }
    }

    /// The title of the problem document (RFC 9457): what a person reads first.
    package var title: String {
        switch self {
        case .admitted: "Admitted"
        case .malformed: "The request is not well-formed"
        case .duplicateKey: "The JSON body has a duplicate key"
        case .requestTimeout: "The request did not arrive in time"
        case .lengthRequired: "A length is required"
        case .tooLarge: "The body is too large"
        case .mediaType: "The media type is not supported"
        case .expectation: "The expectation cannot be met"
        case .invalid: "The request is not valid"
        case .headersTooLarge: "The header section is too large"
        case .notImplemented: "Not implemented"
        case .version: "The HTTP version is not supported"
        case .uriTooLong: "The request target is too long"
        case .unauthenticated: "Authentication is required"
        case .tokenExpired: "The token has expired"
        case .agentNotAllowed: "The tier does not allow this agent"
        case .unmeteredPath: "The cost of this request cannot be bounded"
        case .forbidden: "Forbidden"
        case .budgetExhausted: "The budget is exhausted"
        case .unknownAgent: "There is no such agent"
        case .unknownRoute: "There is no such route"
        case .method: "The method is not allowed here"
        case .idempotencyInFlight: "A request with this idempotency key is in flight"
        case .rateLimited: "The rate limit is reached"
        case .quotaExhausted: "The daily requests are used up"
        case .concurrency: "Too many requests at once"
        case .upstreamError: "The agent failed"
        case .upstreamProtocol: "The agent broke the protocol"
        case .circuitOpen: "The circuit of this agent is open"
        case .overloaded: "Overloaded"
        case .budgetContended: "The rest of the budget is set aside by requests in flight"
        case .noEndpoint: "No endpoint serves this agent"
        case .controlPlaneLost: "The control plane cannot be reached"
        case .deadline: "The deadline has passed"
        case .cancelled: "Cancelled"
        case .crashed: "The sidecar stopped while the request was in flight"
        }
    }
}
