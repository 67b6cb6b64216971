import WeirCore
import WeirMeshProtocol

/// Who may call which endpoint: the one place that says so. Roles come from a token's `roles` or
/// from an API key; each has those below it.
enum EndpointAccess: Hashable, Sendable {
    /// Without a token; with one the answer may say more.
    case everybody
    case role(UserRole)

    private static let table: [String: EndpointAccess] = [
        "/health": .everybody,
        "/agents/health": .everybody,

        "/analyze": .role(.user),
        "/v1/chat/completions": .role(.user),
        "/v1/models": .role(.user),
        "/v1/models/{model}": .role(.user),
        "/v1/models/{owner}/{model}": .role(.user),
        "/agents/preferences": .role(.user),
        "/agents/performance/{agent}": .role(.user),
        "/cost/breakdown": .role(.user),
        "/cost/suggestions": .role(.user),
        "/budget/update": .role(.user),

        // Not by token: a sidecar proves whose request its agent works on.
        "/outbound/agents/{agent}": .everybody,
        "/outbound/v1/chat/completions": .everybody,
        "/outbound/v1/models": .everybody,

        "/agents/test": .role(.operator),
        "/stats": .role(.operator),
    ]

    static func isStated(_ path: String) -> Bool { table[path] != nil }

    /// Refuses a role that is too weak, and names the one that is needed.
    static func check(_ role: UserRole, for path: String) throws(GatewayRefusal) {
        guard case .role(let needed)? = table[path], role < needed else { return }
        var refusal = GatewayRefusal(.forbidden, "This needs the role \(needed.rawValue).")
        refusal.members["role"] = .string(needed.rawValue)
        throw refusal
    }
}
