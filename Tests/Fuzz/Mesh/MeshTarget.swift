import WeirCore
import WeirMeshProtocol

/// What one part of the mesh decodes from another: whatever is accepted is written back as the very
/// same bytes, so that nothing has two spellings under one signature.
enum MeshTarget {
    /// The first byte says what the rest is given to.
    static func check(_ bytes: UnsafeRawBufferPointer) throws(PropertyFailure) {
        guard let kind = bytes.first else { return }
        let input = Array(bytes.dropFirst())
        switch kind % 5 {
        case 0: try check(input, Delegation(payload: input)?.payload, "delegation")
        case 1: try check(input, Settlement(payload: input)?.payload, "settlement")
        case 2: try check(input, AttemptRecord(bytes: input)?.bytes, "record")
        case 3:
            guard let blocks = RecordBlock.readAll(input) else { return }
            var writer = ByteWriter()
            for block in blocks { block.append(to: &writer) }
            try check(input, writer.bytes, "block of records")
        default:
            let text = String(decoding: input, as: UTF8.self)
            guard let decoded = Base64URL.decode(text) else { return }
            try require(Base64URL.encode(decoded) == text, "base64url with two spellings")
        }
    }

    private static func check(
        _ input: [UInt8], _ written: [UInt8]?, _ what: String
    ) throws(PropertyFailure) {
        try require(written == nil || written == input, "a \(what) with two spellings")
    }
}
