import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol

/// Joining: a new life of a process, and the leases of an earlier one that it continues.
extension LedgerStore {
    /// Makes an incarnation. The credential has been checked (`JoinTokens`); `replicas` are the
    /// mesh addresses of the control plane.
    package func join(_ request: JoinRequest, replicas: [String]) async throws -> JoinResponse {
        let journalSecret = Base64URL.encode(Crypto.randomBytes(32))
        let hopSecret = Base64URL.encode(Crypto.randomBytes(32))
        let predecessor = try await proven(request.predecessor)
        var row = [
            "role", request.role.rawValue, "instance", request.instance, "journal_secret",
            journalSecret, "hop_secret", hopSecret,
        ]
        if let agent = request.agent { row += ["agent", agent] }
        if let version = request.agentVersion { row += ["agent_version", version] }
        if let endpoint = request.endpoint { row += ["endpoint", endpoint] }
        let (replies, origins) = try await redis.runAllNoting(
            MeshScripts.join,
            [
                (
                    [
                        StoreKeys.lastIncarnation, StoreKeys.epoch, StoreKeys.hearing,
                        StoreKeys.missing,
                    ],
                    [StoreKeys.mesh, predecessor?.description ?? ""] + row
                )
            ])
        guard let parts = replies[0].array, parts.count == 3, let number = parts[0].integer,
            let epoch = parts[1].integer, let adopted = parts[2].text
        else { throw RedisError.unexpectedReply("join") }
        // A life that a failover forgets could speak for nothing that it was granted.
        try await mustBeKept(origins)
        let incarnation = Incarnation(number)
        return JoinResponse(
            incarnation: incarnation, session: sessions.token(for: incarnation),
            journalSecret: journalSecret,
            hopKey: HopKey(id: Self.hopKeyID(incarnation), secret: hopSecret), epoch: epoch,
            adopted: adopted.isEmpty ? nil : predecessor, replicas: replicas)
    }

    static func hopKeyID(_ incarnation: Incarnation) -> UInt32 {
        UInt32(truncatingIfNeeded: incarnation.rawValue)
    }

    /// The text that a predecessor's proof is the HMAC-SHA256 of, under its journal secret.
    package static func proofText(_ predecessor: Incarnation) -> [UInt8] {
        Array("predecessor \(predecessor)".utf8)
    }

    /// The predecessor, if its proof holds. A wrong proof is no reason to refuse the join: the
    /// process lives without the old leases, whose money stays set aside.
    private func proven(_ claim: JoinRequest.Predecessor?) async throws -> Incarnation? {
        guard let claim else { return nil }
        let secret = try await redis.read(
            "HGET", StoreKeys.incarnation(claim.incarnation), "journal_secret")
        guard let key = secret.text.flatMap({ Base64URL.decode($0) }),
            let proof = Base64URL.decode(claim.proof),
            Crypto.constantTimeEquals(
                proof, Crypto.hmacSHA256(key: key, Self.proofText(claim.incarnation)))
        else { return nil }
        return claim.incarnation
    }
}
