/// Finds the heads of HTTP/2 frames (RFC 9113 §4.1) in a stream of bytes that comes in any pieces,
/// without copying payloads: what can be known of a frame before nghttp2 reads it.
package struct FrameHeads {
    package struct Head: Equatable, Sendable {
        package var type: UInt8
        package var flags: UInt8
        package var stream: UInt32
        /// Of PRIORITY: the stream that the frame's is to depend on (RFC 7540 §6.3).
        package var dependency: UInt32?
        /// What was read to know all this.
        package var byteCount: Int
    }

    private static let headBytes = 9
    private static let priority: UInt8 = 2
    private static let priorityBytes = 5

    /// A head whose other bytes come with the next piece.
    private var cut = InlineArray<13, UInt8>(repeating: 0)
    private var cutCount = 0
    /// Of the payload, or of what comes before the first frame.
    private var skipped: Int

    package init(skipping bytes: Int = 0) { skipped = bytes }

    /// The next head that is whole; `offset` is then behind it. `nil`: the piece is used up.
    package mutating func next(
        _ bytes: UnsafeRawBufferPointer, from offset: inout Int
    ) -> Head? {
        let passed = min(skipped, bytes.count - offset)
        skipped -= passed
        offset += passed
        guard offset < bytes.count else { return nil }
        if cutCount == 0 {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[offset...])
            if let head = Self.read(rest, &skipped) {
                offset += head.byteCount
                return head
            }
        }
        while offset < bytes.count {
            cut[cutCount] = bytes[offset]
            cutCount += 1
            offset += 1
            guard let head = readCut() else { continue }
            cutCount = 0
            return head
        }
        return nil
    }

    private mutating func readCut() -> Head? {
        let count = cutCount
        var passed = 0
        let head = withUnsafeBytes(of: cut) {
            Self.read(UnsafeRawBufferPointer(rebasing: $0[..<count]), &passed)
        }
        if head != nil { skipped = passed }
        return head
    }

    /// Also says how much of the frame is to be passed over then.
    private static func read(_ bytes: UnsafeRawBufferPointer, _ skipped: inout Int) -> Head? {
        guard bytes.count >= headBytes else { return nil }
        let length = Int(bytes[0]) << 16 | Int(bytes[1]) << 8 | Int(bytes[2])
        var head = Head(
            type: bytes[3], flags: bytes[4], stream: number(bytes, 5), dependency: nil,
            byteCount: headBytes)
        if head.type == priority, length == priorityBytes {
            guard bytes.count >= headBytes + 4 else { return nil }
            head.dependency = number(bytes, headBytes)
            head.byteCount += 4
        }
        skipped = length - (head.byteCount - headBytes)
        return head
    }

    /// A stream's number, without the bit in front of it.
    private static func number(_ bytes: UnsafeRawBufferPointer, _ start: Int) -> UInt32 {
        UInt32(bytes[start] & 0x7F) << 24 | UInt32(bytes[start + 1]) << 16
            | UInt32(bytes[start + 2]) << 8 | UInt32(bytes[start + 3])
    }
}
