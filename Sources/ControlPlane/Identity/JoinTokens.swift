import WeirCore
import WeirCrypto
import WeirMeshProtocol

/// Who may join: a token that one process uses once, bound to a role and an agent; or the mesh's
/// own token from the configuration, for meshes on one machine.
package struct JoinTokens: Sendable {
    private let redis: Redis
    private let meshToken: String?

    package init(redis: Redis, meshToken: String?) {
        self.redis = redis
        self.meshToken = meshToken
    }

    /// Makes a token; only its hash is kept. A `nil` agent fits any, and gateways.
    package func create(
        role: Role, agent: String?, validMilliseconds: Int64
    ) async throws -> String {
        let token = "wjt_" + Base64URL.encode(Crypto.randomBytes(32))
        let key = StoreKeys.joinToken(hash: Self.hash(token))
        let life = min(max(1, validMilliseconds), StoreLimits.joinTokenMillisecondsMax)
        let row = role.rawValue + " " + (agent ?? "")
        try await redis.command(["SET", key, row, "PX", String(life)], isIdempotent: true)
        return token
    }

    /// Lets a join in, and uses its token up; throws `MeshRefusal` otherwise.
    package func admit(_ request: JoinRequest) async throws {
        guard request.protocolVersions.contains(MeshLimits.protocolVersion) else {
            throw MeshRefusal(reason: "version", detail: "no common version of the mesh protocol")
        }
        guard
            [request.agent, request.endpoint, request.instance].allSatisfy({
                ($0?.utf8.count ?? 0) <= StoreLimits.nameBytesMax
            })
        else {
            throw MeshRefusal(reason: "invalid", detail: "a name is too long")
        }
        guard (request.role == .agent) == (request.agent != nil) else {
            throw MeshRefusal(
                reason: "invalid", detail: "an agent's sidecar names its agent, a gateway none")
        }
        if let meshToken,
            Crypto.constantTimeEquals(Array(meshToken.utf8), Array(request.credential.utf8))
        {
            return
        }
        let refusal = MeshRefusal(
            reason: "unauthenticated", detail: "the join token is unknown, used or for another")
        let key = StoreKeys.joinToken(hash: Self.hash(request.credential))
        guard let row = try await redis.read("GET", key).text else { throw refusal }
        let parts = row.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0] == request.role.rawValue,
            parts[1].isEmpty || parts[1] == request.agent ?? ""
        else { throw refusal }
        // Of two that come at once, one deletes it.
        guard try await redis.command(["DEL", key]).integer == 1 else { throw refusal }
    }

    private static func hash(_ token: String) -> String {
        Hex.encode(Crypto.sha256(Array(token.utf8)))
    }
}
