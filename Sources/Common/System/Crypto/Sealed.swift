import WeirCore

/// A payload with its proof, as `weir-*` headers carry it:
/// base64url(payload).base64url(HMAC-SHA256).
package enum Sealed {
    package static func seal(_ payload: [UInt8], key: [UInt8]) -> String {
        Base64URL.encode(payload) + "." + Base64URL.encode(Crypto.hmacSHA256(key: key, payload))
    }

    /// The payload if its proof holds; `nil` otherwise. What it says is not looked at before.
    @inlinable
    package static func open(_ text: some StringProtocol, key: [UInt8]) -> [UInt8]? {
        open(bytes: Array(text.utf8), key: key)
    }

    @usableFromInline
    static func open(bytes: [UInt8], key: [UInt8]) -> [UInt8]? {
        guard let end = bytes.firstIndex(of: dot), let payload = Base64URL.decode(bytes[..<end]),
            let code = Base64URL.decode(bytes[(end + 1)...]),
            Crypto.constantTimeEquals(code, Crypto.hmacSHA256(key: key, payload))
        else { return nil }
        return payload
    }

    /// The payload without its proof, to learn which key it names. Trust nothing else in it.
    @inlinable
    package static func unverifiedPayload(_ text: some StringProtocol) -> [UInt8]? {
        let bytes = Array(text.utf8)
        guard let end = bytes.firstIndex(of: dot) else { return nil }
        return Base64URL.decode(bytes[..<end])
    }

    @usableFromInline static let dot = UInt8(ascii: ".")
}
