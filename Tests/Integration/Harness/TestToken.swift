import Foundation
import WeirCore
import WeirCrypto

/// Users' tokens (HS256), made here and not by the program under test.
enum TestToken {
    static func mint(
        user: String, tier: String, key: String, lifetimeSeconds: Int = 3_600,
        claims: [String: JSONValue] = [:]
    ) -> String {
        let now = Int64(Date().timeIntervalSince1970)
        var payload: JSONObject = [
            "sub": .string(user), "tier": .string(tier), "iat": .number(JSONNumber(now)),
            "exp": .number(JSONNumber(now + Int64(lifetimeSeconds))),
        ]
        for (name, value) in claims { payload[name] = value }
        return sign(
            header: #"{"alg":"HS256","typ":"JWT"}"#, payload: JSONValue.object(payload).text,
            keyBytes: Array(key.utf8))
    }

    /// A token of any header and payload, right or wrong.
    static func sign(header: String, payload: String, keyBytes: [UInt8]) -> String {
        let signed = Base64URL.encode(header.utf8) + "." + Base64URL.encode(payload.utf8)
        let code = Crypto.hmacSHA256(key: keyBytes, Array(signed.utf8))
        return signed + "." + Base64URL.encode(code)
    }
}
