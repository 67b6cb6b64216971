import WeirCore
import WeirCrypto
import WeirMeshProtocol
import WeirPolicy

/// A policy that this sidecar runs: an immutable snapshot that goes to every worker through its
/// loop's mailbox.
package struct AppliedPolicy: Sendable {
    package let projection: Projection
    package let projectionHash: String
    package let policy: Policy

    package var version: PolicyVersion { projection.version }
    package var endpoints: [Projection.Endpoint] { projection.endpoints }

    init(projection: Projection, projectionHash: String, policy: Policy) {
        self.projection = projection
        self.projectionHash = projectionHash
        self.policy = policy
    }
}

/// Decides whether a projection may be applied, and keeps the last good one. Pure.
///
/// Versions never go back, and one version has one content: the same version with other documents
/// means that two control planes disagree or that somebody changed the store by hand, so it is
/// refused and an alarm is raised. The same version with other endpoints is news, not a conflict.
struct PolicyGate {
    enum Decision {
        /// Known already; nothing to do but to say again that it is applied.
        case unchanged
        case apply(AppliedPolicy)
        /// The last good one stays.
        case refuse([Problem], isAlarm: Bool)
    }

    /// The validator that both planes run.
    package typealias Reader = @Sendable ([JSONValue]) throws(Problems) -> Policy

    private(set) var applied: AppliedPolicy?
    private var documentsHash = ""
    private let read: Reader

    init(read: @escaping Reader) { self.read = read }

    mutating func decide(hash: String, _ projection: Projection) -> Decision {
        if let problem = hashProblem(hash, projection) {
            return .refuse([problem], isAlarm: true)
        }
        if let applied {
            if applied.projectionHash == hash, applied.version == projection.version {
                return .unchanged
            }
            if let refusal = conflict(with: applied, projection) { return refusal }
        }
        do throws(Problems) {
            let policy = try read(projection.documents)
            let next = AppliedPolicy(projection: projection, projectionHash: hash, policy: policy)
            keep(next)
            return .apply(next)
        } catch {
            return .refuse(error.list, isAlarm: false)
        }
    }

    private mutating func keep(_ policy: AppliedPolicy) {
        applied = policy
        documentsHash = Self.hash(of: policy.projection.documents)
    }

    private func hashProblem(_ hash: String, _ projection: Projection) -> Problem? {
        guard let value = try? JSON.encodeValue(projection),
            Hex.encode(Crypto.sha256(value.canonicalBytes)) == hash
        else {
            return Problem(path: "/hash", message: "the projection does not have this hash")
        }
        return nil
    }

    private func conflict(with applied: AppliedPolicy, _ projection: Projection) -> Decision? {
        let new = projection.version
        let old = applied.version
        guard (new.epoch, new.number) >= (old.epoch, old.number) else {
            return .refuse(
                [Problem(path: "/version", message: "\(new) is older than \(old), in force here")],
                isAlarm: false)
        }
        guard (new.epoch, new.number) == (old.epoch, old.number) else { return nil }
        guard new.hash == old.hash, Self.hash(of: projection.documents) == documentsHash else {
            return .refuse(
                [
                    Problem(
                        path: "/version/hash",
                        message: "version \(new) is applied with other contents")
                ], isAlarm: true)
        }
        return nil
    }

    private static func hash(of documents: [JSONValue]) -> String {
        Hex.encode(Crypto.sha256(JSONValue.array(documents).canonicalBytes))
    }
}
