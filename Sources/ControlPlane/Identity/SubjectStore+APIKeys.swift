import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// What an administrator decides about a new key.
package struct APIKeyTerms: Hashable, Sendable, Codable {
    package var user: String
    /// Binds the user where nobody has seen one yet.
    package var tier: String?
    package var tenant: String?
    package var roles: [String] = []
    /// What this key spends in a month at most, inside its user's limit.
    package var monthlyLimit: NanoUSD?
    package var expiresAt: UnixTime?
    package var note = ""
    /// Those that all requests with this key have.
    package var tags: [String]?

    package init(user: String) { self.user = user }
}

/// An API key as it is kept: everything but the key itself, which is 256 random bits. With so many,
/// a plain SHA-256 of it is as hard to turn around as a slow hash would be, and costs nothing.
package struct APIKey: Hashable, Sendable, Codable {
    /// Names the key to people, and finds it: the first 96 bits of the hash.
    package var id: String
    /// SHA-256 of the key's text, in hexadecimal.
    package var hash: String
    package var terms: APIKeyTerms
    package var createdAt: UnixTime
    package var createdBy: String
    package var revokedAt: UnixTime?

    package static let prefix = "weir_"

    static func id(ofHash hash: String) -> String { String(hash.prefix(24)) }

    /// The account of its own budget.
    var account: SubjectBinding.Account? {
        terms.monthlyLimit.map {
            SubjectBinding.Account(unit: .usd, scope: .key, period: .month, id: id, limit: $0)
        }
    }
}

/// Why a key cannot be made.
package enum APIKeyConflict: Error, Hashable, Sendable {
    /// The user is bound to another tier or tenant; a key does not change that.
    case bound(tier: String, tenant: String?)
    case tooMany
}

extension SubjectStore {
    /// Makes a key; the text is shown once and not kept.
    package func createAPIKey(
        _ terms: APIKeyTerms, by author: ChangeAuthor
    ) async throws -> (text: String, key: APIKey) {
        try await bind(terms, by: author)
        let text = APIKey.prefix + Base64URL.encode(Crypto.randomBytes(32))
        let hash = Hex.encode(Crypto.sha256(Array(text.utf8)))
        let key = APIKey(
            id: APIKey.id(ofHash: hash), hash: hash, terms: terms,
            createdAt: try await redis.time(), createdBy: author.name)
        let counts = try await redis.readAll([
            ["SCARD", StoreKeys.apiKeys(of: terms.user)], ["ZCARD", StoreKeys.apiKeys],
        ])
        guard (counts[0].integer ?? 0) < StoreLimits.apiKeysPerUserMax,
            (counts[1].integer ?? 0) < StoreLimits.apiKeysMax
        else { throw APIKeyConflict.tooMany }
        try await note("api_key.create", of: terms.user, key.id, author)
        // The lists come first: a crash in between leaves a name without a key, never a key that
        // nobody finds.
        try await redis.command(
            ["SADD", StoreKeys.apiKeys(of: terms.user), key.id], isIdempotent: true)
        try await redis.command(
            ["ZADD", StoreKeys.apiKeys, String(key.createdAt.milliseconds), key.id],
            isIdempotent: true)
        try await store(key)
        return (text, key)
    }

    /// An administrator's word binds a user whom nobody has seen.
    private func bind(_ terms: APIKeyTerms, by author: ChangeAuthor) async throws {
        guard let tier = terms.tier else { return }
        let row = try await redis.run(
            SubjectScripts.bind, keys: [StoreKeys.subject(terms.user)],
            arguments: [tier, terms.tenant ?? "", author.name]
        ).fields
        guard row["tier"] == tier, terms.tenant == nil || row["tenant"] == terms.tenant else {
            throw APIKeyConflict.bound(
                tier: row["tier"] ?? "", tenant: row["tenant"].flatMap { $0.isEmpty ? nil : $0 })
        }
    }

    /// The key as it is from now on, at gateways as soon as they hear of it; `nil`: there is none.
    /// It leaves the lists, and can be looked up for as long as its account is kept.
    package func revokeAPIKey(_ id: String, by author: ChangeAuthor) async throws -> APIKey? {
        guard var key = try await apiKey(id) else { return nil }
        if key.revokedAt == nil {
            try await note("api_key.revoke", of: key.terms.user, key.id, author)
            key.revokedAt = try await redis.time()
            try await store(key, keepMilliseconds: StoreLimits.accountKeepMilliseconds)
            try await redis.command(
                ["SREM", StoreKeys.apiKeys(of: key.terms.user), key.id], isIdempotent: true)
            try await redis.command(["ZREM", StoreKeys.apiKeys, key.id], isIdempotent: true)
        }
        try await tellGateways(of: key.terms.user)
        return key
    }

    /// A user's keys that are not revoked, or the newest of all.
    package func apiKeys(of user: String?, limit: Int) async throws -> [APIKey] {
        let ids: [String]
        if let user {
            ids = try await redis.read("SMEMBERS", StoreKeys.apiKeys(of: user)).texts ?? []
        } else {
            ids =
                try await redis.read("ZREVRANGE", StoreKeys.apiKeys, "0", String(limit - 1)).texts
                ?? []
        }
        let rows = try await redis.readAll(ids.map { ["GET", StoreKeys.apiKey($0)] })
        return try rows.compactMap(\.bytes).map { try JSON.decode(APIKey.self, from: $0) }
            .sorted { ($1.createdAt, $1.id) < ($0.createdAt, $0.id) }
    }

    package func apiKey(_ id: String) async throws -> APIKey? {
        guard let bytes = try await redis.read("GET", StoreKeys.apiKey(id)).bytes else {
            return nil
        }
        return try JSON.decode(APIKey.self, from: bytes)
    }

    /// The key that has this hash, if it may be used now; and for how long it may.
    func usableAPIKey(hash: String) async throws -> (key: APIKey, validForMilliseconds: Int64?) {
        guard let key = try await apiKey(APIKey.id(ofHash: hash)), key.revokedAt == nil,
            Crypto.constantTimeEquals(Array(key.hash.utf8), Array(hash.utf8))
        else {
            throw MeshRefusal(
                reason: Reason.unauthenticated.name, detail: "The API key is unknown or revoked.")
        }
        guard let expiresAt = key.terms.expiresAt else { return (key, nil) }
        let rest = expiresAt.milliseconds - (try await redis.time()).milliseconds
        guard rest > 0 else {
            throw MeshRefusal(
                reason: Reason.tokenExpired.name, detail: "The API key has expired.")
        }
        return (key, rest)
    }

    private func store(_ key: APIKey, keepMilliseconds: Int64? = nil) async throws {
        let command = ["SET", StoreKeys.apiKey(key.id), try JSON.encodeValue(key).text]
        let life = keepMilliseconds.map { ["PX", String($0)] } ?? []
        try await redis.command(command + life, isIdempotent: true)
    }
}
