import NIOCore
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// A projection as it goes over the wire: one line of JSON, made once for all who get it.
struct PolicyLine: Sendable {
    let version: PolicyVersion
    /// SHA-256 of the projection's canonical bytes, in hexadecimal.
    let hash: String
    let buffer: ByteBuffer

    init(_ active: ActivePolicy, endpoints: [Projection.Endpoint], for audience: Audience) {
        let projection: Projection
        switch audience {
        case .gateway:
            projection = Projection(
                version: active.version,
                documents: Policy.gatewayProjection(of: active.documents), endpoints: endpoints)
        case .agent(let name):
            // Hop keys are for gateways alone.
            projection = Projection(
                version: active.version,
                documents: Policy.projection(of: active.documents, agent: name), endpoints: [])
        }
        let value = Self.json(projection)
        version = active.version
        hash = Hex.encode(Crypto.sha256(value.canonicalBytes))
        buffer = Self.line(.projection(hash: hash, projection))
    }

    static func bookmark(_ version: PolicyVersion) -> ByteBuffer { line(.bookmark(version)) }

    static func recall(_ leases: [LeaseID]) -> ByteBuffer { line(.recall(leases)) }

    static let everySubject = line(.subjects([]))

    static func subjects(_ users: [String]) -> ByteBuffer { line(.subjects(users)) }

    private static func line(_ event: PolicyEvent) -> ByteBuffer {
        var buffer = ByteBuffer(bytes: json(event).bytes)
        buffer.writeInteger(UInt8(ascii: "\n"))
        return buffer
    }

    private static func json(_ value: some Encodable) -> JSONValue {
        do {
            return try JSON.encodeValue(value)
        } catch {
            preconditionFailure("a message of our own cannot be encoded: \(error)")
        }
    }
}
