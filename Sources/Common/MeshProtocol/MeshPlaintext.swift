/// How far messages of the mesh may travel without TLS. Both planes read it from
/// `WEIR_MESH_PLAINTEXT`. The default keeps join tokens, hop keys and money on this machine;
/// leaving it takes the word of the operator that something else guards the network.
package enum MeshPlaintext: String, CaseIterable, Sendable {
    case loopback, network

    package static let environment = "WEIR_MESH_PLAINTEXT"

    package static var choices: String { allCases.map(\.rawValue).joined(separator: ", ") }

    /// Whether an address may be used; `isLoopback` says that it stays on this machine.
    package func allows(isLoopback: Bool) -> Bool { isLoopback || self == .network }

    /// For the log of a process that was told to leave the loopback.
    package static let warning: StaticString =
        "the mesh is not encrypted: whoever sees its network can read and change its messages"
}
