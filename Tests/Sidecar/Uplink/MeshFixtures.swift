import Glibc
import SidecarCore
import Synchronization
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarUplink

enum MeshFixtures {
    /// Refuses documents of the kind "Bad", so that tests need no whole policy.
    static let readPolicy: @Sendable ([JSONValue]) throws(Problems) -> Policy = {
        (documents) throws(Problems) in
        let bad = documents.indices.filter { documents[$0]["kind"]?.string == "Bad" }
        guard bad.isEmpty else {
            throw Problems(bad.map { Problem(path: "/documents/\($0)", message: "is bad") })
        }
        return Policy()
    }

    static func hash(_ projection: Projection) -> String {
        let value = (try? JSON.encodeValue(projection)) ?? .null
        return Hex.encode(Crypto.sha256(value.canonicalBytes))
    }

    static func projection(
        _ number: Int64, epoch: Int64 = 1, kind: String = "Agent", endpoints: Int = 0
    ) -> Projection {
        Projection(
            version: PolicyVersion(epoch: epoch, number: number, hash: "a\(number)"),
            documents: [["kind": .string(kind)]],
            endpoints: (0..<endpoints).map {
                Projection.Endpoint(
                    agent: "finbert", incarnation: Incarnation(Int64($0)),
                    address: "127.0.0.1:1", hopKey: HopKey(id: 1, secret: "c2VjcmV0"))
            })
    }

    static func line(_ projection: Projection) -> String {
        line(PolicyEvent.projection(hash: hash(projection), projection))
    }

    static func line(_ event: PolicyEvent) -> String {
        String(decoding: (try? JSON.encode(event)) ?? [], as: UTF8.self)
    }

    static func join(_ incarnation: Int64) -> JoinResponse {
        JoinResponse(
            incarnation: Incarnation(incarnation), session: "session-\(incarnation)",
            journalSecret: "c2VjcmV0", hopKey: HopKey(id: 1, secret: "a2V5"), epoch: 1,
            adopted: nil, replicas: [])
    }
}
