import WeirCore
import WeirCrypto
import WeirPolicy

/// A policy as it was activated: the documents, and who did it.
package struct StoredPolicy: Hashable, Sendable {
    package var version: PolicyVersion
    package var documents: [JSONValue]
    package var activation: PolicyActivation
}

/// One line of the history.
package struct PolicyActivation: Hashable, Sendable, Codable {
    package var version: PolicyVersion
    package var author: String
    package var note: String
    package var activatedAt: UnixTime
}

/// Somebody else activated a policy first.
package struct PolicyConflict: Error, Hashable, Sendable {
    package var current: PolicyVersion?
}

/// Policies by version (epoch, n, hash) in Redis. n never decreases, one n has one hash, and a
/// rollback is a new n with old documents. Documents come here validated.
package struct PolicyStore: Sendable {
    private let redis: Redis

    package init(redis: Redis) { self.redis = redis }

    /// The version that is active now; cheap, for polling.
    package func currentVersion() async throws -> PolicyVersion? {
        let reply = try await redis.read(
            "HMGET", StoreKeys.policyCurrent, "epoch", "number", "hash")
        guard let parts = reply.array, parts.count == 3, let epoch = parts[0].integer,
            let number = parts[1].integer, let hash = parts[2].text
        else { return nil }
        return PolicyVersion(epoch: epoch, number: number, hash: hash)
    }

    package func current() async throws -> StoredPolicy? {
        guard let version = try await currentVersion() else { return nil }
        return try await bundle(number: version.number)
    }

    /// `nil` for a number that never was, or that left the history.
    package func bundle(number: Int64) async throws -> StoredPolicy? {
        let reply = try await redis.read("HGET", StoreKeys.policyBundles, String(number))
        guard let bytes = reply.bytes else { return nil }
        let stored = try JSON.parse(bytes)
        guard let documents = stored["documents"]?.array,
            let activation = stored["activation"]
        else { throw RedisError.unexpectedReply("a stored policy is damaged") }
        let line = try JSON.decode(PolicyActivation.self, from: activation)
        return StoredPolicy(version: line.version, documents: documents, activation: line)
    }

    /// Activates documents as the next version. `expected`: only if this is the active version;
    /// `.some(nil)`: only if there is none; absent: whatever is active. Throws `PolicyConflict`, a
    /// `Problem` for what is too large, and `RedisError`.
    @discardableResult
    package func activate(
        documents: [JSONValue], hash: String, expected: PolicyVersion?? = nil, author: String,
        note: String
    ) async throws -> PolicyVersion {
        let expectedNumber = expected.map { $0?.number ?? 0 }
        let bytes = JSONValue.array(documents).bytes
        guard bytes.count <= StoreLimits.policyBytesMax,
            note.utf8.count <= StoreLimits.noteBytesMax,
            author.utf8.count <= StoreLimits.nameBytesMax
        else {
            throw Problem(path: "", message: "the policy or its note is too large")
        }
        let reply = try await redis.run(
            PolicyScripts.activate,
            keys: [
                StoreKeys.policyCurrent, StoreKeys.policyBundles, StoreKeys.policyHistory,
            ],
            arguments: [
                String(try await epoch()), hash, String(decoding: bytes, as: UTF8.self),
                JSONValue.string(author).text, JSONValue.string(note).text,
                expectedNumber.map(String.init) ?? "", String(StoreLimits.policyHistoryMax),
            ])
        guard let parts = reply.array, parts.count == 4, let outcome = parts[0].integer,
            let epoch = parts[1].integer, let number = parts[2].integer, let current = parts[3].text
        else { throw RedisError.unexpectedReply("activate") }
        let version = PolicyVersion(epoch: epoch, number: number, hash: current)
        guard outcome == 1 else { throw PolicyConflict(current: number > 0 ? version : nil) }
        return version
    }

    /// Activates an earlier version's documents again, as a new version.
    @discardableResult
    package func rollback(
        to number: Int64, expected: PolicyVersion?? = nil, author: String, note: String
    ) async throws -> PolicyVersion? {
        guard let earlier = try await bundle(number: number) else { return nil }
        return try await activate(
            documents: earlier.documents, hash: earlier.version.hash, expected: expected,
            author: author, note: note)
    }

    /// The newest first.
    package func history(limit: Int) async throws -> [PolicyActivation] {
        let last = min(max(1, limit), StoreLimits.policyHistoryMax) - 1
        let reply = try await redis.read(
            "LRANGE", StoreKeys.policyHistory, "0", String(last))
        return try (reply.array ?? []).compactMap(\.bytes).map {
            try JSON.decode(PolicyActivation.self, from: $0)
        }
    }

    private func epoch() async throws -> Int64 {
        guard let epoch = try await redis.read("HGET", StoreKeys.epoch, "number").integer else {
            throw RedisError.unexpectedReply("the mesh has no epoch")
        }
        return epoch
    }
}

enum PolicyScripts {
    /// Compare and set in one step. Keys: current, bundles, history. Arguments: epoch, hash,
    /// documents, author and note as JSON strings, the expected number or "", how many versions are
    /// kept. Answer: 1 and the new version, or 0 and the one that is active.
    ///
    /// A repetition after a lost answer finds its own hash by its own author one number further,
    /// and takes that for its success.
    static let activate = RedisScript(
        name: "activate",
        source: LedgerScripts.prelude + """
            local active = redis.call('HMGET', KEYS[1], 'epoch', 'number', 'hash', 'author', 'note')
            local last = tonumber(active[2] or '0')
            local expected = ARGV[6]
            if expected ~= '' and tonumber(expected) ~= last then
              if tonumber(expected) + 1 == last and active[3] == ARGV[2]
                and active[4] == ARGV[4] and active[5] == ARGV[5] then
                return {1, active[1], active[2], active[3]}
              end
              return {0, active[1] or '0', text(last), active[3] or ''}
            end
            local n = text(last + 1)
            local line = '{"version":{"epoch":' .. ARGV[1] .. ',"number":' .. n .. ',"hash":"'
              .. ARGV[2] .. '"},"author":' .. ARGV[4] .. ',"note":' .. ARGV[5]
              .. ',"activatedAt":' .. text(clock()) .. '}'
            redis.call('HSET', KEYS[2], n, '{"activation":' .. line .. ',"documents":' .. ARGV[3]
              .. '}')
            redis.call('HDEL', KEYS[2], text(last + 1 - tonumber(ARGV[7])))
            redis.call('LPUSH', KEYS[3], line)
            redis.call('LTRIM', KEYS[3], 0, tonumber(ARGV[7]) - 1)
            redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'number', n, 'hash', ARGV[2],
              'author', ARGV[4], 'note', ARGV[5])
            redis.call('PUBLISH', 'weir:policy', n)
            return {1, ARGV[1], n, ARGV[2]}
            """,
        // Only with an expected number; without one a repetition would activate twice.
        isIdempotent: false)
}
