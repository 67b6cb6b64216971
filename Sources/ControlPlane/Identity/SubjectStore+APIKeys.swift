import WeirCore
import WeirCrypto
import WeirMeshProtocol

/// An API key as it is kept: everything but the key itself, of which only the hash is stored.
package struct APIKey: Hashable, Sendable, Codable {
    package var hash: String
    package var user: String
    package var tier: String?
    package var tenant: String?
    package var roles: [String]
    package var expiresAt: UnixTime?
    package var isRevoked: Bool
}

extension SubjectStore {
    /// Makes a key; the text is shown once and not kept.
    package func createAPIKey(
        user: String, tier: String?, tenant: String?, roles: [String], expiresAt: UnixTime?
    ) async throws -> (text: String, key: APIKey) {
        let text = "weir_" + Base64URL.encode(Crypto.randomBytes(32))
        let hash = Hex.encode(Crypto.sha256(Array(text.utf8)))
        let key = APIKey(
            hash: hash, user: user, tier: tier, tenant: tenant, roles: roles,
            expiresAt: expiresAt, isRevoked: false)
        try await redis.command(
            ["SADD", StoreKeys.apiKeys(of: user), hash], isIdempotent: true)
        try await store(key)
        return (text, key)
    }

    /// `false`: there is no such key.
    package func revokeAPIKey(hash: String) async throws -> Bool {
        guard var key = try await apiKey(hash: hash) else { return false }
        key.isRevoked = true
        try await store(key)
        return true
    }

    package func apiKeys(of user: String) async throws -> [APIKey] {
        let hashes = try await redis.read("SMEMBERS", StoreKeys.apiKeys(of: user)).texts ?? []
        var keys: [APIKey] = []
        for hash in hashes.sorted() {
            if let key = try await apiKey(hash: hash) { keys.append(key) }
        }
        return keys
    }

    func claims(ofAPIKey hash: String) async throws -> SubjectRequest.Claims {
        guard let key = try await apiKey(hash: hash), !key.isRevoked else {
            throw MeshRefusal(
                reason: "unauthenticated", detail: "the API key is unknown or revoked")
        }
        if let expiresAt = key.expiresAt, try await redis.time() >= expiresAt {
            throw MeshRefusal(reason: "token_expired", detail: "the API key has expired")
        }
        return SubjectRequest.Claims(
            subject: key.user, tier: key.tier, tenant: key.tenant, roles: key.roles)
    }

    private func apiKey(hash: String) async throws -> APIKey? {
        guard let bytes = try await redis.read("GET", StoreKeys.apiKey(hash: hash)).bytes else {
            return nil
        }
        return try JSON.decode(APIKey.self, from: bytes)
    }

    private func store(_ key: APIKey) async throws {
        try await redis.command(
            ["SET", StoreKeys.apiKey(hash: key.hash), try JSON.encodeValue(key).text],
            isIdempotent: true)
    }
}
