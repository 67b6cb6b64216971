import ArgumentParser
import Foundation
import WeirCore
import WeirCrypto

struct TokenCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "token", abstract: "Mints users' tokens.", subcommands: [TokenMint.self])
}

struct TokenMint: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mint",
        abstract: "Prints a user's token, signed with JWT_SECRET_KEY (or JWT_SECRET_KEY_FILE).")

    static let secretBytesMin = 32
    static let secondsMax: Int64 = 366 * 86_400

    @Option(help: "The user: the token's subject.")
    var user: String

    @Option(help: "The user's tier.")
    var tier: String

    @Option(help: "The user's tenant.")
    var tenant: String?

    @Option(parsing: .singleValue, help: "A role, as operator; may be repeated.")
    var role: [String] = []

    @Option(parsing: .singleValue, help: "A tag of all its requests; may be repeated.")
    var tag: [String] = []

    @Option(help: "Who mints it (default: JWT_ISSUER).")
    var issuer: String?

    @Option(help: "Whom it is for (default: JWT_AUDIENCE).")
    var audience: String?

    @Option(help: "How long it is valid: a number with s, m, h or d.")
    var ttl = "1h"

    func run() async throws {
        try await reportingFailures {
            let environment = ProcessInfo.processInfo.environment
            guard
                let secret = try Secret.read(
                    file: environment["JWT_SECRET_KEY_FILE"], value: environment["JWT_SECRET_KEY"])
            else { throw Failure("JWT_SECRET_KEY is not set") }
            guard secret.utf8.count >= Self.secretBytesMin else {
                throw Failure("JWT_SECRET_KEY needs at least \(Self.secretBytesMin) bytes")
            }
            guard let seconds = Self.seconds(ttl), seconds <= Self.secondsMax else {
                throw Failure("--ttl takes a number with s, m, h or d, at most 366d, not \(ttl)")
            }
            let now = Int64(Date().timeIntervalSince1970)
            // A gateway with these settings takes no token without them.
            var token = self
            token.issuer = issuer ?? environment["JWT_ISSUER"]
            token.audience = audience ?? environment["JWT_AUDIENCE"]
            Console.print(token.token(secret: secret, now: now, seconds: seconds))
        }
    }

    static func seconds(_ text: String) -> Int64? {
        let units: [Character: Int64] = ["s": 1, "m": 60, "h": 3_600, "d": 86_400]
        guard let unit = text.last.flatMap({ units[$0] }), let count = Int64(text.dropLast()),
            count > 0
        else { return nil }
        let (product, overflow) = count.multipliedReportingOverflow(by: unit)
        return overflow ? nil : product
    }

    /// A JWS in compact form (RFC 7515 §3.1) with HS256.
    func token(secret: String, now: Int64, seconds: Int64) -> String {
        var claims: JSONObject = ["sub": .string(user), "tier": .string(tier)]
        if let tenant { claims["tenant"] = .string(tenant) }
        if !role.isEmpty { claims["roles"] = .array(role.map { .string($0) }) }
        if !tag.isEmpty { claims["tags"] = .array(tag.map { .string($0) }) }
        claims["iss"] = issuer.map { .string($0) }
        claims["aud"] = audience.map { .string($0) }
        claims["iat"] = .number(JSONNumber(now))
        claims["exp"] = .number(JSONNumber(now + seconds))
        let header: JSONValue = ["alg": "HS256", "typ": "JWT"]
        let signed =
            Base64URL.encode(header.bytes) + "." + Base64URL.encode(JSONValue.object(claims).bytes)
        let code = Crypto.hmacSHA256(key: Array(secret.utf8), Array(signed.utf8))
        return signed + "." + Base64URL.encode(code)
    }
}
