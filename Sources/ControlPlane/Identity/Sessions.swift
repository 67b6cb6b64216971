import WeirCore
import WeirCrypto
import WeirLedger

/// Session tokens: a sealed incarnation, so that any replica knows who speaks without asking
/// anybody. A token has no end of its own; it is worth nothing once its incarnation is gone or was
/// adopted, which the ledger looks at.
package struct Sessions: Sendable {
    private static let version: UInt8 = 1
    private let secret: [UInt8]

    init(secret: [UInt8]) { self.secret = secret }

    /// Takes the mesh's secret from Redis, or makes it at the mesh's first start.
    package static func load(from redis: Redis) async throws -> Sessions {
        let fresh = Base64URL.encode(Crypto.randomBytes(32))
        try await redis.command(["SET", StoreKeys.secret, fresh, "NX"], isIdempotent: true)
        guard let text = try await redis.read("GET", StoreKeys.secret).text,
            let secret = Base64URL.decode(text)
        else { throw RedisError.unexpectedReply("the mesh has no secret") }
        return Sessions(secret: secret)
    }

    package func token(for incarnation: Incarnation) -> String {
        var writer = ByteWriter()
        writer.integer(Self.version)
        writer.integer(incarnation.rawValue)
        return Sealed.seal(writer.bytes, key: secret)
    }

    /// `nil` for what this mesh has not sealed.
    package func incarnation(ofToken token: some StringProtocol) -> Incarnation? {
        guard let payload = Sealed.open(token, key: secret) else { return nil }
        var reader = ByteReader(payload)
        guard reader.integer(UInt8.self) == Self.version, let number = reader.integer(Int64.self),
            reader.isAtEnd
        else { return nil }
        return Incarnation(number)
    }
}
