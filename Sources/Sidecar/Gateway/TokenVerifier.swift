import SidecarCore
import WeirCore
import WeirCrypto

/// What a verified token says about its bearer. The tier is a claim, not a decision: money goes by
/// the control plane's binding (LEDGER rule 13).
package struct TokenClaims: Hashable, Sendable {
    package var subject: String
    package var tier: String?
    package var tenant: String?
    package var roles: [String]
    package var tags = Tags.none
    package var expiresAt: UnixTime
}

/// Why a token is not accepted: `unauthenticated` or `token_expired`. The detail names the part and
/// nothing of the token's content.
package struct TokenRefusal: Error, Hashable, Sendable {
    package let reason: Reason
    package let detail: String

    init(_ detail: String, reason: Reason = .unauthenticated) {
        self.reason = reason
        self.detail = detail
    }
}

/// Verifies JSON Web Tokens (RFC 7519) signed with HMAC-SHA256, the way RFC 8725 asks for: the
/// algorithm is this verifier's and not the token's; nothing in a header chooses a key, a place to
/// fetch one from or a meaning; every claim that is there must hold.
///
/// Two keys may be valid at once, so that a secret can be changed without refusing the tokens under
/// the old one.
package struct TokenVerifier: Sendable {
    private let keys: [[UInt8]]
    private let issuer: String?
    private let audience: String?

    /// RFC 7518 §3.2: a key of the hash's size or larger must be used with HS256.
    package static let keyBytesMin = Crypto.digestBytes

    /// `nil` without any key. Empty keys do not count: a missing secret must not verify anything.
    package init?(keys: [[UInt8]], issuer: String? = nil, audience: String? = nil) {
        let usable = keys.filter { !$0.isEmpty }
        guard !usable.isEmpty else { return nil }
        self.keys = usable
        self.issuer = issuer
        self.audience = audience
    }

    package func verify(_ token: String, now: UnixTime) throws(TokenRefusal) -> TokenClaims {
        guard token.utf8.count <= GatewayLimits.tokenBytesMax else {
            throw TokenRefusal("The token is too long.")
        }
        let parts = token.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 3, let header = Base64URL.decode(parts[0]),
            let payload = Base64URL.decode(parts[1]), let signature = Base64URL.decode(parts[2])
        else { throw TokenRefusal("The token is not a JSON Web Token.") }
        try checkHeader(try object(header, "header"))
        let signed = Array(token.utf8.prefix(parts[0].count + 1 + parts[1].count))
        guard isSigned(signed, signature) else {
            throw TokenRefusal("The token's signature does not hold.")
        }
        return try claims(try object(payload, "payload"), now: now)
    }

    /// Both keys are tried each time, so that timing does not tell which one fits.
    private func isSigned(_ message: [UInt8], _ signature: [UInt8]) -> Bool {
        var fits = false
        for key in keys {
            let code = Crypto.hmacSHA256(key: key, message)
            if Crypto.constantTimeEquals(code, signature) { fits = true }
        }
        return fits
    }

    private func object(_ bytes: [UInt8], _ part: String) throws(TokenRefusal) -> JSONObject {
        let value: JSONValue
        do {
            value = try JSON.parse(
                bytes, depthMax: GatewayLimits.tokenDepthMax,
                valuesMax: GatewayLimits.tokenValuesMax)
        } catch {
            throw TokenRefusal("The token's \(part) is not well-formed.")
        }
        guard let object = value.object else {
            throw TokenRefusal("The token's \(part) is not an object.")
        }
        return object
    }

    private func checkHeader(_ header: JSONObject) throws(TokenRefusal) {
        guard header["alg"] == "HS256" else {
            throw TokenRefusal("The token's algorithm must be HS256.")
        }
        // Extensions that must be understood (RFC 7515 §4.1.11): none are.
        guard header["crit"] == nil else {
            throw TokenRefusal("The token's header has critical extensions.")
        }
        if let type = header["typ"] {
            // "at+jwt" and others are tokens for something else (RFC 8725 §3.11).
            guard type.string?.lowercased() == "jwt" else {
                throw TokenRefusal("The token's type must be JWT.")
            }
        }
    }

    private func claims(_ payload: JSONObject, now: UnixTime) throws(TokenRefusal) -> TokenClaims {
        let expiry = try time(payload, "exp")
        let notBefore = try time(payload, "nbf")
        // A token without an end would outlive every secret that is not changed by hand.
        guard let expiry else { throw TokenRefusal("The token has no expiry.") }
        let leeway = GatewayLimits.clockLeewaySeconds * 1_000
        guard expiry.milliseconds > now.milliseconds - leeway else {
            throw TokenRefusal("The token has expired.", reason: .tokenExpired)
        }
        if let notBefore, notBefore.milliseconds > now.milliseconds + leeway {
            throw TokenRefusal("The token is not valid yet.")
        }
        try checkIssuerAndAudience(payload)
        guard let subject = try text(payload, "sub") else {
            throw TokenRefusal("The token has no subject.")
        }
        return TokenClaims(
            subject: subject, tier: try text(payload, "tier"),
            tenant: try text(payload, "tenant"), roles: try roles(payload),
            tags: try tags(payload), expiresAt: expiry)
    }

    private func checkIssuerAndAudience(_ payload: JSONObject) throws(TokenRefusal) {
        if let issuer {
            guard payload["iss"] == .string(issuer) else {
                throw TokenRefusal("The token is of another issuer.")
            }
        }
        guard let value = payload["aud"] else {
            guard audience == nil else { throw TokenRefusal("The token has no audience.") }
            return
        }
        // RFC 7519 §4.1.3: whoever is not named must refuse; without a name of our own we are not.
        let named = value.array ?? [value]
        guard let audience, named.contains(.string(audience)) else {
            throw TokenRefusal("The token is for another audience.")
        }
    }

    /// A NumericDate: seconds, perhaps with a fraction.
    private func time(_ payload: JSONObject, _ name: String) throws(TokenRefusal) -> UnixTime? {
        guard let value = payload[name] else { return nil }
        // Within the years that a calendar here can name; also keeps the product in range.
        guard let seconds = value.double, seconds >= 0, seconds < 253_402_300_800 else {
            throw TokenRefusal("The token's \(name) is not a time.")
        }
        return UnixTime(milliseconds: Int64(seconds * 1_000))
    }

    /// Names go into account keys and records: short, and without control characters.
    private func text(_ payload: JSONObject, _ name: String) throws(TokenRefusal) -> String? {
        guard let value = payload[name], value != .null else { return nil }
        guard let text = value.string, Self.isName(text) else {
            throw TokenRefusal("The token's \(name) is not a name.")
        }
        return text
    }

    private func tags(_ payload: JSONObject) throws(TokenRefusal) -> Tags {
        guard let value = payload["tags"], value != .null else { return .none }
        guard let array = value.array, array.allSatisfy({ $0.string != nil }),
            let tags = Tags(array.compactMap(\.string))
        else { throw TokenRefusal("The token's tags are not a short list of tags.") }
        return tags
    }

    private func roles(_ payload: JSONObject) throws(TokenRefusal) -> [String] {
        guard let value = payload["roles"], value != .null else { return [] }
        guard let array = value.array, array.count <= GatewayLimits.rolesMax else {
            throw TokenRefusal("The token's roles are not a short list.")
        }
        let names = array.compactMap(\.string).filter(Self.isName)
        guard names.count == array.count else {
            throw TokenRefusal("The token's roles are not names.")
        }
        return names
    }

    private static func isName(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.count <= GatewayLimits.claimBytesMax
            && text.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value != 0x7F }
    }
}
