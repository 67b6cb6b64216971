import WeirCore
import WeirCrypto

/// A bearer token that one side keeps: the administrator's and the join token. Only its hash stays
/// in memory, and comparing takes the same time wherever a guess goes wrong.
package struct AccessToken: Sendable {
    private let hash: [UInt8]

    package init(_ token: String) { hash = Crypto.sha256(Array(token.utf8)) }

    package func matches(_ token: some StringProtocol) -> Bool {
        Crypto.constantTimeEquals(hash, Crypto.sha256(Array(token.utf8)))
    }

    /// The token of an `Authorization` field; the scheme's name knows no case (RFC 9110 §11.1).
    static func bearer(in field: String?) -> Substring? {
        guard let field else { return nil }
        let parts = field.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: true)
        guard parts.count == 2, parts[0].lowercased() == "bearer" else { return nil }
        let token = parts[1].drop { $0 == " " }
        return token.isEmpty ? nil : token
    }
}
