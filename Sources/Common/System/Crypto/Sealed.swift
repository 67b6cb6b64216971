import WeirCore

/// A payload with its proof, as `weir-*` headers carry it:
/// base64url(payload).base64url(HMAC-SHA256).
package enum Sealed {
    package static func seal(_ payload: [UInt8], key: [UInt8]) -> String {
        Base64URL.encode(payload) + "." + Base64URL.encode(Crypto.hmacSHA256(key: key, payload))
    }

    /// The payload if its proof holds; `nil` otherwise. What it says is not looked at before.
    package static func open(_ text: some StringProtocol, key: [UInt8]) -> [UInt8]? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 2, let payload = Base64URL.decode(parts[0]),
            let code = Base64URL.decode(parts[1]),
            Crypto.constantTimeEquals(code, Crypto.hmacSHA256(key: key, payload))
        else { return nil }
        return payload
    }

    /// The payload without its proof, to learn which key it names. Trust nothing else in it.
    package static func unverifiedPayload(_ text: some StringProtocol) -> [UInt8]? {
        guard let end = text.firstIndex(of: ".") else { return nil }
        return Base64URL.decode(text[..<end])
    }
}
