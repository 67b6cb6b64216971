/// A SHA-256 digest. Four words and not an array, so that carrying one allocates nothing.
package struct Digest: Hashable, Sendable {
    package static let byteCount = 32
    /// Of no bytes at all.
    package static let ofNothing = Digest(
        words: 0x141C_FC98_42C4_B0E3, 0x24B9_6F99_C8F4_FB9A, 0x4C93_9B64_E441_AE27,
        0x55B8_5278_1B99_95A4)

    private let first: UInt64
    private let second: UInt64
    private let third: UInt64
    private let fourth: UInt64

    /// The bytes as four little-endian integers.
    package init(words first: UInt64, _ second: UInt64, _ third: UInt64, _ fourth: UInt64) {
        self.first = first
        self.second = second
        self.third = third
        self.fourth = fourth
    }

    package var words: (UInt64, UInt64, UInt64, UInt64) { (first, second, third, fourth) }

    /// `nil` unless there are exactly 32 bytes.
    package init?(bytes: some Collection<UInt8>) {
        guard bytes.count == Self.byteCount else { return nil }
        var reader = ByteReader(bytes)
        guard let first = reader.integer(UInt64.self), let second = reader.integer(UInt64.self),
            let third = reader.integer(UInt64.self), let fourth = reader.integer(UInt64.self)
        else { return nil }
        self.init(words: first, second, third, fourth)
    }

    package var bytes: [UInt8] {
        var writer = ByteWriter(capacity: Self.byteCount)
        for word in [first, second, third, fourth] { writer.integer(word) }
        return writer.bytes
    }

    /// 64 characters, as sha256sum prints them.
    package var hexadecimal: String { Hex.encode(bytes) }
}
