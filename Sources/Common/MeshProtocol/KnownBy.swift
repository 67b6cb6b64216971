/// By what a caller was known, because the accounts that pay hang on it: an API key may have a
/// budget of its own beside its user's. Travels with a request so that the calls which its agents
/// make are charged to the same accounts.
package enum KnownBy: Hashable, Sendable {
    /// Known by a token: the user's accounts.
    case user
    /// SHA-256 of the key, in hexadecimal: the user's accounts and the key's.
    case apiKey(hash: String)
    /// The mesh itself, which pays for tests of agents.
    case mesh

    private static let hashBytes = 64

    package var text: String {
        switch self {
        case .user: ""
        case .apiKey(let hash): hash
        case .mesh: "mesh"
        }
    }

    /// `nil` for what `text` does not write.
    package init?(text: String) {
        switch text {
        case "": self = .user
        case "mesh": self = .mesh
        default:
            let isHash = text.utf8.count == Self.hashBytes && text.allSatisfy(\.isHexDigit)
            guard isHash else { return nil }
            self = .apiKey(hash: text)
        }
    }
}
