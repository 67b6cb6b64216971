/// Eight bytes at a time: most bytes of a JSON text are inside strings and stand for themselves.
package enum JSONRun {
    private static let ones: UInt64 = 0x0101_0101_0101_0101
    private static let highBits: UInt64 = 0x8080_8080_8080_8080

    /// How many bytes from the start are neither quote, backslash nor control (RFC 8259 §7); with
    /// `stopsAtDelete`, no 0x7F either.
    package static func count(
        _ bytes: UnsafeRawBufferPointer, stopsAtDelete: Bool = false
    ) -> Int {
        var index = 0
        while index + 8 <= bytes.count {
            let word = UInt64(
                littleEndian: bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self))
            var hits = zeros(word ^ ones &* 0x22) | zeros(word ^ ones &* 0x5C)
            // Set in bytes below 0x20; a borrow reaches only bytes behind such a one.
            hits |= (word &- ones &* 0x20) & ~word
            if stopsAtDelete { hits |= zeros(word ^ ones &* 0x7F) }
            hits &= highBits
            if hits != 0 { return index + hits.trailingZeroBitCount / 8 }
            index += 8
        }
        while index < bytes.count, !ends(bytes[index], stopsAtDelete) { index += 1 }
        return index
    }

    private static func ends(_ byte: UInt8, _ stopsAtDelete: Bool) -> Bool {
        byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\")
            || stopsAtDelete && byte == 0x7F
    }

    /// The high bit of the first byte that is zero is set, and none before it.
    private static func zeros(_ word: UInt64) -> UInt64 { (word &- ones) & ~word }
}
