import Testing
import WeirCore
import WeirCrypto

@testable import SidecarGateway

@Suite struct TokenVerifierTests {
    static let key = Array("a-secret-of-at-least-thirty-two-bytes!".utf8)
    static let previous = Array("the-secret-that-was-valid-before-this-one".utf8)
    static let now = UnixTime(seconds: 1_795_357_200)
    static let future = 1_795_360_000

    static func token(
        header: String = #"{"alg":"HS256","typ":"JWT"}"#, payload: String, key: [UInt8] = key
    ) -> String {
        let signed = Base64URL.encode(header.utf8) + "." + Base64URL.encode(payload.utf8)
        return signed + "."
            + Base64URL.encode(Crypto.hmacSHA256(key: key, Array(signed.utf8)))
    }

    static let good = #"{"sub":"alice","tier":"free","exp":\#(future)}"#

    private func verifier(issuer: String? = nil, audience: String? = nil) throws -> TokenVerifier {
        try #require(
            TokenVerifier(keys: [Self.key, Self.previous], issuer: issuer, audience: audience))
    }

    private func refusal(
        _ token: String, issuer: String? = nil, audience: String? = nil
    ) throws -> TokenRefusal? {
        let verifier = try verifier(issuer: issuer, audience: audience)
        do throws(TokenRefusal) {
            _ = try verifier.verify(token, now: Self.now)
            return nil
        } catch {
            return error
        }
    }

    @Test func readsTheClaims() throws {
        let payload = """
            {"sub":"alice","tier":"gold","tenant":"acme","roles":["operator"],"exp":\(Self.future),
             "tags":["team:b","a","a"],"nbf":1795357200,"iat":1795357200,"other":{"a":1}}
            """
        let claims = try verifier().verify(Self.token(payload: payload), now: Self.now)
        #expect(claims.subject == "alice")
        #expect(claims.tier == "gold")
        #expect(claims.tenant == "acme")
        #expect(claims.roles == ["operator"])
        #expect(claims.tags.names == ["a", "team:b"])
        #expect(claims.expiresAt == UnixTime(seconds: Int64(Self.future)))
    }

    @Test func bothKeysAreValid() throws {
        #expect(try refusal(Self.token(payload: Self.good)) == nil)
        #expect(try refusal(Self.token(payload: Self.good, key: Self.previous)) == nil)
        #expect(try refusal(Self.token(payload: Self.good, key: [1])) != nil)
    }

    /// The example of RFC 7515 §A.1, which is HS256 under a published key.
    @Test func verifiesTheStandardsOwnExample() throws {
        let key = try #require(
            Base64URL.decode(
                "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQ"
                    + "Lr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
            ))
        let token =
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
            + ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQog"
            + "Imh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
            + ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
        let verifier = try #require(TokenVerifier(keys: [key], issuer: "joe"))
        let error = #expect(throws: TokenRefusal.self) {
            try verifier.verify(token, now: UnixTime(seconds: 1_300_819_000))
        }
        // The signature holds; it is the missing subject that we refuse.
        #expect(error?.detail.contains("no subject") == true)
    }

    @Test(arguments: [
        #"{"alg":"none"}"#, #"{"alg":"None"}"#, #"{"alg":"HS512"}"#, #"{"alg":"hs256"}"#,
        #"{"alg":"RS256"}"#, #"{"alg":["HS256"]}"#, #"{"alg":"HS256 "}"#, #"{}"#, #"[]"#, "",
        #"{"alg":"HS256","crit":["exp"],"exp":1}"#, #"{"alg":"HS256","crit":[]}"#,
        #"{"alg":"HS256","typ":"at+jwt"}"#, #"{"alg":"HS256","typ":1}"#,
        #"{"alg":"HS256","alg":"none"}"#, #"{"alg":"none","alg":"HS256"}"#,
        #"{"alg":"HS256","b64":false,"crit":["b64"]}"#,
    ])
    func refusesOtherHeaders(header: String) throws {
        let token = Self.token(header: header, payload: Self.good)
        #expect(try refusal(token)?.reason == .unauthenticated)
    }

    /// Fields that name keys are ignored: the key is ours.
    @Test(arguments: [
        #"{"alg":"HS256","jwk":{"kty":"oct","k":"AQ"}}"#,
        #"{"alg":"HS256","kid":"../../dev/null"}"#,
        #"{"alg":"HS256","jku":"http://127.0.0.1/keys"}"#,
    ])
    func keysInHeadersChangeNothing(header: String) throws {
        #expect(try refusal(Self.token(header: header, payload: Self.good)) == nil)
        #expect(try refusal(Self.token(header: header, payload: Self.good, key: [1])) != nil)
    }

    @Test(arguments: [
        #"{"sub":"alice"}"#, #"{"sub":"alice","exp":"1795360000"}"#, #"{"sub":"alice","exp":null}"#,
        #"{"sub":"alice","exp":-1}"#, #"{"sub":"alice","exp":1e308}"#, #"{"exp":1795360000}"#,
        #"{"sub":"","exp":1795360000}"#, #"{"sub":5,"exp":1795360000}"#,
        #"{"sub":"a\nb","exp":1795360000}"#, #"{"sub":"a\u0000","exp":1795360000}"#,
        #"{"sub":"alice","exp":1795360000,"nbf":1795359000}"#,
        #"{"sub":"alice","exp":1795360000,"nbf":"soon"}"#,
        #"{"sub":"alice","exp":1795360000,"aud":"someone"}"#,
        #"{"sub":"alice","exp":1795360000,"tier":7}"#,
        #"{"sub":"alice","exp":1795360000,"roles":"operator"}"#,
        #"{"sub":"alice","exp":1795360000,"roles":[1]}"#,
        #"{"sub":"alice","exp":1795360000,"tags":"launch"}"#,
        #"{"sub":"alice","exp":1795360000,"tags":["a b"]}"#,
        #"{"sub":"alice","exp":1795360000,"tags":["a",1]}"#,
        #"{"sub":"alice","sub":"bob","exp":1795360000}"#, #""alice""#, "", "{",
        #"{"sub":"alice","exp":1795360000,"deep":[[[[[[[[[1]]]]]]]]]}"#,
    ])
    func refusesOtherClaims(payload: String) throws {
        #expect(try refusal(Self.token(payload: payload))?.reason == .unauthenticated)
    }

    @Test func expiryHasItsOwnReasonAndALeeway() throws {
        func reason(_ expiry: Int) throws -> Reason? {
            try refusal(Self.token(payload: #"{"sub":"a","exp":\#(expiry)}"#))?.reason
        }
        #expect(try reason(1_795_357_100) == .tokenExpired)
        #expect(try reason(1_795_357_170) == .tokenExpired)
        #expect(try reason(1_795_357_171) == nil)
        // An expired token with a wrong signature says nothing of its expiry.
        let forged = Self.token(payload: #"{"sub":"a","exp":1}"#, key: [1])
        #expect(try refusal(forged)?.reason == .unauthenticated)
    }

    @Test func issuerAndAudienceAreCheckedWhereWeHaveThem() throws {
        let payload = #"{"sub":"a","exp":\#(Self.future),"iss":"mip","aud":["x","weir"]}"#
        let token = Self.token(payload: payload)
        #expect(try refusal(token, issuer: "mip", audience: "weir") == nil)
        #expect(try refusal(token, issuer: "other", audience: "weir") != nil)
        #expect(try refusal(token, issuer: "mip", audience: "we") != nil)
        #expect(try refusal(Self.token(payload: Self.good), audience: "weir") != nil)
        #expect(try refusal(Self.token(payload: Self.good), issuer: "mip") != nil)
    }

    @Test(arguments: [
        "", ".", "..", "...", "a.b", "a.b.c", "a.b.c.d", " ", "é.é.é",
        String(repeating: "a", count: 10_000),
    ])
    func refusesWhatIsNoToken(token: String) throws {
        #expect(try refusal(token)?.reason == .unauthenticated)
    }

    /// No bit of a token can be changed, and none added or left out.
    @Test func everyChangedByteIsRefused() throws {
        let token = Array(Self.token(payload: Self.good).utf8)
        for index in token.indices {
            var changed = token
            changed[index] =
                changed[index] == UInt8(ascii: "A") ? UInt8(ascii: "B") : UInt8(ascii: "A")
            #expect(try refusal(String(decoding: changed, as: UTF8.self)) != nil)
            #expect(try refusal(String(decoding: token.prefix(index), as: UTF8.self)) != nil)
        }
        #expect(try refusal(String(decoding: token, as: UTF8.self) + "=") != nil)
    }

    @Test func withoutAKeyThereIsNoVerifier() {
        #expect(TokenVerifier(keys: []) == nil)
        #expect(TokenVerifier(keys: [[], []]) == nil)
    }
}
