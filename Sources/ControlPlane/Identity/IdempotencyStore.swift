import WeirCore
import WeirMeshProtocol

/// Answers by (user, key), kept for a day: a request that comes twice is carried out once.
package struct IdempotencyStore: Sendable {
    private let redis: Redis

    package init(redis: Redis) { self.redis = redis }

    /// Claims a key, completes a claim or gives it back.
    package func handle(_ request: IdempotencyRequest) async throws -> IdempotencyResponse {
        guard !request.user.isEmpty, request.user.utf8.count <= StoreLimits.nameBytesMax,
            !request.key.isEmpty, request.key.utf8.count <= StoreLimits.nameBytesMax,
            request.claim.utf8.count <= StoreLimits.nameBytesMax
        else { throw MeshRefusal(reason: "invalid", detail: "a name is empty or too long") }
        let action: String
        var answer = ""
        var life: Int64 = 0
        switch request.action {
        case .claim(let milliseconds):
            action = "claim"
            life = min(max(1, milliseconds), StoreLimits.idempotencyClaimMillisecondsMax)
        case .complete(let stored):
            guard stored.body.utf8.count <= MeshLimits.storedAnswerBytesMax else {
                throw MeshRefusal(reason: "invalid", detail: "the answer is too large")
            }
            action = "complete"
            answer = try JSON.encodeValue(stored).text
        case .release: action = "release"
        }
        let reply = try await redis.run(
            Self.script, keys: [StoreKeys.idempotency(user: request.user, key: request.key)],
            arguments: [
                request.bodyHash, action, request.claim, answer,
                String(StoreLimits.idempotencyMilliseconds), String(life),
            ])
        guard let parts = reply.array, parts.count == 2, let name = parts[0].text,
            let state = IdempotencyResponse.State(rawValue: name), let stored = parts[1].text
        else { throw RedisError.unexpectedReply("idempotency") }
        return IdempotencyResponse(
            state: state,
            answer: stored.isEmpty
                ? nil : try JSON.decode(StoredAnswer.self, from: Array(stored.utf8)))
    }

    /// Key: the row. Arguments: body's hash, action, claim, answer, how long the row and a claim
    /// live.
    private static let script = RedisScript(
        name: "idempotency",
        source: LedgerScripts.prelude + """
            local now = clock()
            local row = redis.call('HMGET', KEYS[1], 'body', 'answer', 'claimed_until', 'claim')
            if row[1] and row[1] ~= ARGV[1] then return {'mismatch', ''} end
            if ARGV[2] == 'complete' then
              if not row[2] then
                redis.call('HSET', KEYS[1], 'body', ARGV[1], 'answer', ARGV[4])
                redis.call('PEXPIRE', KEYS[1], ARGV[5])
              end
              return {'stored', row[2] or ARGV[4]}
            end
            if ARGV[2] == 'release' then
              if not row[2] and row[4] == ARGV[3] then redis.call('DEL', KEYS[1]) end
              return {'released', ''}
            end
            if row[2] then return {'stored', row[2]} end
            if row[3] and tonumber(row[3]) > now and row[4] ~= ARGV[3] then
              return {'in_flight', ''}
            end
            redis.call('HSET', KEYS[1], 'body', ARGV[1], 'claim', ARGV[3],
              'claimed_until', text(now + tonumber(ARGV[6])))
            redis.call('PEXPIRE', KEYS[1], ARGV[5])
            return {'new', ''}
            """,
        isIdempotent: true)
}
