import WeirCore
import WeirMeshProtocol

/// Answers by (user, key), kept for a day: a request that comes twice is carried out once.
package struct IdempotencyStore: Sendable {
    private let redis: Redis

    package init(redis: Redis) { self.redis = redis }

    /// Claims a key, or completes a claim when the request carries the answer.
    package func handle(_ request: IdempotencyRequest) async throws -> IdempotencyResponse {
        guard !request.user.isEmpty, request.user.utf8.count <= StoreLimits.nameBytesMax,
            !request.key.isEmpty, request.key.utf8.count <= StoreLimits.nameBytesMax,
            (request.answer?.body.utf8.count ?? 0) <= StoreLimits.idempotencyAnswerBytesMax
        else {
            throw MeshRefusal(reason: "invalid", detail: "the key or the answer is too large")
        }
        let answer = try request.answer.map { try JSON.encodeValue($0).text }
        let reply = try await redis.run(
            Self.script, keys: [StoreKeys.idempotency(user: request.user, key: request.key)],
            arguments: [
                request.bodyHash, answer ?? "", String(StoreLimits.idempotencyMilliseconds),
                String(StoreLimits.idempotencyClaimMilliseconds),
            ])
        guard let parts = reply.array, parts.count == 2, let name = parts[0].text,
            let state = IdempotencyResponse.State(rawValue: name), let stored = parts[1].text
        else { throw RedisError.unexpectedReply("idempotency") }
        return IdempotencyResponse(
            state: state,
            answer: stored.isEmpty
                ? nil : try JSON.decode(StoredAnswer.self, from: Array(stored.utf8)))
    }

    /// Key: the row. Arguments: body's hash, answer or "", how long the row and a claim live.
    private static let script = RedisScript(
        name: "idempotency",
        source: LedgerScripts.prelude + """
            local now = clock()
            local row = redis.call('HMGET', KEYS[1], 'body', 'answer', 'claimed_until')
            if row[1] and row[1] ~= ARGV[1] then return {'mismatch', ''} end
            if ARGV[2] ~= '' then
              if not row[2] then
                redis.call('HSET', KEYS[1], 'body', ARGV[1], 'answer', ARGV[2])
                redis.call('PEXPIRE', KEYS[1], ARGV[3])
              end
              return {'stored', row[2] or ARGV[2]}
            end
            if row[2] then return {'stored', row[2]} end
            if row[3] and tonumber(row[3]) > now then return {'in_flight', ''} end
            redis.call('HSET', KEYS[1], 'body', ARGV[1], 'claimed_until',
              text(now + tonumber(ARGV[4])))
            redis.call('PEXPIRE', KEYS[1], ARGV[3])
            return {'new', ''}
            """,
        // A claim that is repeated would find itself in flight.
        isIdempotent: false)
}
