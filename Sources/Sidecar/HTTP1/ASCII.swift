import Glibc

/// Classes of bytes (RFC 9110 §5.6.2, §5.5) and comparisons without regard to case.
package enum ASCII {
    // Bit sets for bytes 0 to 63 and 64 to 127 of `tchar`.
    private static let tokenLow: UInt64 = 0x03FF_6CFA_0000_0000
    private static let tokenHigh: UInt64 = 0x57FF_FFFF_C7FF_FFFE

    @inline(__always)
    static func isToken(_ byte: UInt8) -> Bool {
        if byte < 64 { return tokenLow >> UInt64(byte) & 1 != 0 }
        return byte < 128 && tokenHigh >> UInt64(byte - 64) & 1 != 0
    }

    /// `field-vchar`, space and tab.
    @inline(__always)
    static func isFieldValue(_ byte: UInt8) -> Bool {
        byte >= 0x20 && byte != 0x7F || byte == 0x09
    }

    static func isToken(_ bytes: UnsafeRawBufferPointer) -> Bool {
        !bytes.isEmpty && bytes.allSatisfy { isToken($0) }
    }

    /// Whether all bytes may stand in a field value. Eight at a time: a word passes when no byte is
    /// below 0x20 and none is 0x7F; others (tabs, mostly) are looked at one by one.
    static func isFieldValue(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let base = bytes.baseAddress else { return true }
        let count = bytes.count
        var index = 0
        let ones: UInt64 = 0x0101_0101_0101_0101
        while index + 8 <= count {
            let word = base.loadUnaligned(fromByteOffset: index, as: UInt64.self)
            let low = (word &- ones &* 0x20) & ~word & (ones &* 0x80)
            let flipped = word ^ (ones &* 0x7F)
            let delete = (flipped &- ones) & ~flipped & (ones &* 0x80)
            if low | delete != 0 {
                for offset in index..<(index + 8) where !isFieldValue(bytes[offset]) {
                    return false
                }
            }
            index += 8
        }
        while index < count {
            let byte = base.load(fromByteOffset: index, as: UInt8.self)
            guard isFieldValue(byte) else { return false }
            index += 1
        }
        return true
    }

    @inline(__always)
    static func equals(_ bytes: UnsafeRawBufferPointer, _ text: StaticString) -> Bool {
        guard bytes.count == text.utf8CodeUnitCount, let base = bytes.baseAddress else {
            return false
        }
        return memcmp(base, text.utf8Start, bytes.count) == 0
    }

    /// `lower` is in lower case. Both are tokens, where setting bit 5 changes only letters.
    @inline(__always)
    package static func equalsIgnoringCase(
        _ bytes: UnsafeRawBufferPointer, _ lower: StaticString
    ) -> Bool {
        let count = lower.utf8CodeUnitCount
        guard bytes.count == count, let base = bytes.baseAddress else { return false }
        let expected = lower.utf8Start
        var index = 0
        while index < count {
            let byte = base.load(fromByteOffset: index, as: UInt8.self)
            if byte | 0x20 != expected[index] { return false }
            index += 1
        }
        return true
    }

    package static func equalsIgnoringCase(
        _ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer
    ) -> Bool {
        guard left.count == right.count else { return false }
        for index in 0..<left.count where lowered(left[index]) != lowered(right[index]) {
            return false
        }
        return true
    }

    @inline(__always)
    package static func lowered(_ byte: UInt8) -> UInt8 {
        byte >= 65 && byte <= 90 ? byte | 0x20 : byte
    }

    package static func hexDigit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 48...57: byte - 48
        case 65...70: byte - 55
        case 97...102: byte - 87
        default: nil
        }
    }

    /// Spaces and tabs around a value (OWS) taken off.
    static func trimmed(_ bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        var start = 0
        var end = bytes.count
        while start < end, bytes[start] == 0x20 || bytes[start] == 0x09 { start += 1 }
        while end > start, bytes[end - 1] == 0x20 || bytes[end - 1] == 0x09 { end -= 1 }
        return UnsafeRawBufferPointer(rebasing: bytes[start..<end])
    }

    /// Calls `body` with each element of a comma-separated list, until it returns false.
    static func forEachListElement(
        _ bytes: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) -> Bool
    ) -> Bool {
        var start = 0
        for index in 0...bytes.count where index == bytes.count || bytes[index] == 0x2C {
            let element = trimmed(UnsafeRawBufferPointer(rebasing: bytes[start..<index]))
            start = index + 1
            if !element.isEmpty, !body(element) { return false }
        }
        return true
    }
}
