import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol

/// Checks that a delegation is genuine and meant for this very request (LEDGER, "Proof"). That it
/// was not used before is the ledger's to say: the journaled reservation is the memory for that.
struct DelegationVerifier: Sendable {
    /// The hop key and the one before it, for the time in which keys change.
    private let keys: [(id: UInt32, secret: [UInt8])]
    let incarnation: Incarnation
    private let agent: String

    init(keys: [HopKey], incarnation: Incarnation, agent: String) {
        self.keys = keys.compactMap { key in
            Base64URL.decode(key.secret).map { (key.id, $0) }
        }
        self.incarnation = incarnation
        self.agent = agent
    }

    enum Failure: Error, Equatable {
        case unreadable, unknownKey, badProof, otherAudience, otherAgent, otherMethod, otherPath
        case deadlinePassed

        var reason: Reason { self == .deadlinePassed ? .deadline : .forbidden }

        /// Says nothing that a forger could use.
        var detail: String {
            switch self {
            case .unreadable, .unknownKey, .badProof: "The delegation is not genuine."
            case .otherAudience:
                "The delegation is for another sidecar, or for an earlier life of it."
            case .otherAgent: "The delegation is for another agent."
            case .otherMethod, .otherPath: "The delegation is for another request."
            case .deadlinePassed: "No time was left when the request came."
            }
        }
    }

    /// A genuine delegation for this life of this sidecar. One for another audience is not ours to
    /// settle, not even at nothing: only that audience knows whether it was spent there.
    func open(_ header: String) throws(Failure) -> Delegation {
        guard let claimed = Sealed.unverifiedPayload(header),
            let hint = Delegation(payload: claimed)
        else { throw .unreadable }
        guard let key = keys.first(where: { $0.id == hint.keyID }) else { throw .unknownKey }
        guard let payload = Sealed.open(header, key: key.secret),
            let delegation = Delegation(payload: payload)
        else { throw .badProof }
        // What is refused later is refused by its lease's issuer.
        guard delegation.issuer == delegation.key.issuer else { throw .unreadable }
        guard delegation.audience == incarnation else { throw .otherAudience }
        return delegation
    }

    /// Why a genuine delegation does not cover this request. `target` is the request target with
    /// its query, as it stands in the request line.
    func misfit(_ delegation: Delegation, method: String, target: String) -> Failure? {
        if delegation.agent != agent { return .otherAgent }
        if delegation.method != method { return .otherMethod }
        if delegation.path != target { return .otherPath }
        return delegation.remainingMilliseconds > 0 ? nil : .deadlinePassed
    }

    /// A call of the agent's, for gateways; `nil` when there is no key yet.
    func seal(
        _ taken: OutboundRuns.Taken, agent: String, path: String, remainingNanoseconds: UInt64
    ) -> String? {
        guard let key = keys.first else { return nil }
        let delegation = taken.delegation
        let call = OutboundCall(
            keyID: key.id, issuer: incarnation, number: taken.number, amount: taken.amount,
            run: delegation.run, subject: delegation.subject, tenant: delegation.tenant,
            tier: delegation.tier, knownBy: delegation.knownBy, requestType: delegation.requestType,
            agent: agent, path: path, depth: delegation.depth &+ 1,
            remainingMilliseconds: UInt32(clamping: remainingNanoseconds / 1_000_000),
            tags: delegation.tags)
        return Sealed.seal(call.payload, key: key.secret)
    }

    /// The way back, under the key that the delegation came with; `nil` when that key is gone.
    func seal(_ settlement: Settlement) -> String? {
        keys.first { $0.id == settlement.keyID }.map {
            Sealed.seal(settlement.payload, key: $0.secret)
        }
    }
}
