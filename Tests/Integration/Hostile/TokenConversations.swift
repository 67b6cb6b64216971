import Foundation
import WeirCore
import WeirCrypto

/// Tokens that nobody may come in with (RFC 8725), each on a request that is good otherwise.
enum TokenConversations {
    /// A token and the reason that it is refused for; `nil` for one at the edge that is good.
    typealias Row = (name: String, token: String, reason: String?)

    static func rows(key: String, now: Int64) -> [Row] {
        forged(key: key, now: now) + claims(key: key, now: now) + times(key: key, now: now)
    }

    private static let header = #"{"alg":"HS256","typ":"JWT"}"#

    private static func payload(_ now: Int64, _ more: String = "") -> String {
        #"{"sub":"mallory","tier":"premium","exp":\#(now + 600)\#(more)}"#
    }

    private static func forged(key: String, now: Int64) -> [Row] {
        let key = Array(key.utf8)
        let good = payload(now)
        func signed(_ header: String, by key: [UInt8]) -> String {
            TestToken.sign(header: header, payload: good, keyBytes: key)
        }
        let whole = signed(header, by: key)
        let parts = whole.split(separator: ".").map(String.init)
        let none = Base64URL.encode(Array(#"{"alg":"none"}"#.utf8))
        return [
            ("none without a signature", "\(none).\(parts[1]).", "unauthenticated"),
            ("none with a good signature", "\(none).\(parts[1]).\(parts[2])", "unauthenticated"),
            ("none, signed", signed(#"{"alg":"none"}"#, by: key), "unauthenticated"),
            ("NONE", signed(#"{"alg":"NONE"}"#, by: key), "unauthenticated"),
            (
                "RS256 signed with the secret", signed(#"{"alg":"RS256"}"#, by: key),
                "unauthenticated"
            ),
            (
                "ES256 signed with the secret", signed(#"{"alg":"ES256"}"#, by: key),
                "unauthenticated"
            ),
            ("HS512", signed(#"{"alg":"HS512"}"#, by: key), "unauthenticated"),
            ("no algorithm", signed("{}", by: key), "unauthenticated"),
            (
                "two algorithms", signed(#"{"alg":"none","alg":"HS256"}"#, by: key),
                "unauthenticated"
            ),
            (
                "critical extension", signed(#"{"alg":"HS256","crit":["exp"]}"#, by: key),
                "unauthenticated"
            ),
            (
                "a token for something else", signed(#"{"alg":"HS256","typ":"at+jwt"}"#, by: key),
                "unauthenticated"
            ),
            (
                "wrong key", signed(header, by: Array("another-secret-of-the-same-length-00".utf8)),
                "unauthenticated"
            ),
            ("empty key", signed(header, by: []), "unauthenticated"),
            (
                "own key in the header",
                signed(#"{"alg":"HS256","jwk":{"kty":"oct","k":"AQ"}}"#, by: [1]), "unauthenticated"
            ),
            (
                "key that is a file", signed(#"{"alg":"HS256","kid":"../../dev/null"}"#, by: []),
                "unauthenticated"
            ),
            ("no signature", "\(parts[0]).\(parts[1]).", "unauthenticated"),
            ("two parts", "\(parts[0]).\(parts[1])", "unauthenticated"),
            ("four parts", whole + "." + parts[2], "unauthenticated"),
            ("padding", whole + "=", "unauthenticated"),
            ("signature cut short", String(whole.dropLast(2)), "unauthenticated"),
            (
                "signature of another payload",
                parts[0] + "." + Base64URL.encode(Array(payload(now, #","roles":["admin"]"#).utf8))
                    + "." + parts[2], "unauthenticated"
            ),
            ("a word", "token", "unauthenticated"),
            ("9 KB", String(repeating: "a", count: 9_000), "unauthenticated"),
        ]
    }

    private static func claims(key: String, now: Int64) -> [Row] {
        func token(_ payload: String) -> String {
            TestToken.sign(header: header, payload: payload, keyBytes: Array(key.utf8))
        }
        let end = now + 600
        return [
            ("no subject", token(#"{"tier":"premium","exp":\#(end)}"#), "unauthenticated"),
            ("empty subject", token(#"{"sub":"","exp":\#(end)}"#), "unauthenticated"),
            ("subject that is a number", token(#"{"sub":1,"exp":\#(end)}"#), "unauthenticated"),
            (
                "subject with a line feed", token(#"{"sub":"a\nb","exp":\#(end)}"#),
                "unauthenticated"
            ),
            (
                "two subjects", token(#"{"sub":"mallory","sub":"alice","exp":\#(end)}"#),
                "unauthenticated"
            ),
            (
                "subject of 9,000 bytes",
                token(#"{"sub":"\#(String(repeating: "a", count: 5_000))","exp":\#(end)}"#),
                "unauthenticated"
            ),
            (
                "tier that the policy lacks",
                token(#"{"sub":"mallory","tier":"root","exp":\#(end)}"#), "forbidden"
            ),
            (
                "tier that is a number", token(#"{"sub":"mallory","tier":7,"exp":\#(end)}"#),
                "unauthenticated"
            ),
            ("roles that are a word", token(payload(now, #","roles":"admin""#)), "unauthenticated"),
            ("for another audience", token(payload(now, #","aud":"billing""#)), "unauthenticated"),
            ("payload that is an array", token("[]"), "unauthenticated"),
            ("payload that is no JSON", token("{"), "unauthenticated"),
            (
                "payload nested deep",
                token(payload(now, ",\"a\":" + BodyConversations.nested(50))), "unauthenticated"
            ),
        ]
    }

    /// The leeway is 30 seconds; what stands here keeps 10 from the edge for a slow machine.
    private static func times(key: String, now: Int64) -> [Row] {
        func token(_ claims: String) -> String {
            TestToken.sign(
                header: header, payload: #"{"sub":"mallory","tier":"premium",\#(claims)}"#,
                keyBytes: Array(key.utf8))
        }
        return [
            ("expired", token("\"exp\":\(now - 3_600)"), "token_expired"),
            ("expired just beyond the leeway", token("\"exp\":\(now - 31)"), "token_expired"),
            ("expired within the leeway", token("\"exp\":\(now - 10)"), nil),
            ("not valid yet", token("\"exp\":\(now + 600),\"nbf\":\(now + 60)"), "unauthenticated"),
            (
                "valid from now within the leeway",
                token("\"exp\":\(now + 600),\"nbf\":\(now + 10)"), nil
            ),
            ("no expiry", token("\"nbf\":\(now)"), "unauthenticated"),
            ("expiry in quotes", token("\"exp\":\"\(now + 600)\""), "unauthenticated"),
            ("negative expiry", token("\"exp\":-1"), "unauthenticated"),
            ("expiry above 2^63", token("\"exp\":1e300"), "unauthenticated"),
            ("expiry that is null", token("\"exp\":null"), "unauthenticated"),
        ]
    }
}
