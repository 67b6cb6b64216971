import CLinux
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
        guard let base = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) else {
            return false
        }
        return bytes.count > 0 && weir_token_count(base, bytes.count) == bytes.count
    }

    /// Whether all bytes may stand in a field value.
    static func isFieldValue(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let base = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) else {
            return true
        }
        return weir_field_value_count(base, bytes.count) == bytes.count
    }

    /// Whether all bytes may stand in a request target; see `weir_target_count`.
    static func isTarget(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let base = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) else {
            return false
        }
        return bytes.count > 0 && weir_target_count(base, bytes.count) == bytes.count
    }

    @inline(__always)
    static func equals(_ bytes: UnsafeRawBufferPointer, _ text: StaticString) -> Bool {
        guard bytes.count == text.utf8CodeUnitCount, let base = bytes.baseAddress else {
            return false
        }
        return memcmp(base, text.utf8Start, bytes.count) == 0
    }

    /// `lower` is in lower case. Both are tokens, where setting bit 5 changes only letters. By
    /// words, the last of which overlaps the one before: for a name that is written in the source,
    /// that makes two or three comparisons.
    @inline(__always)
    package static func equalsIgnoringCase(
        _ bytes: UnsafeRawBufferPointer, _ lower: StaticString
    ) -> Bool {
        let count = lower.utf8CodeUnitCount
        guard bytes.count == count, let base = bytes.baseAddress else { return false }
        let expected = UnsafeRawPointer(lower.utf8Start)
        if count >= 8 {
            var difference: UInt64 = 0
            var offset = 0
            while offset + 8 < count {
                difference |= Self.difference(base + offset, expected + offset, UInt64.self)
                offset += 8
            }
            return difference
                | Self.difference(base + count - 8, expected + count - 8, UInt64.self) == 0
        }
        if count >= 4 {
            return difference(base, expected, UInt32.self)
                | difference(base + count - 4, expected + count - 4, UInt32.self) == 0
        }
        var index = 0
        while index < count {
            guard difference(base + index, expected + index, UInt8.self) == 0 else { return false }
            index += 1
        }
        return true
    }

    @inline(__always)
    private static func difference<Word: FixedWidthInteger & BitwiseCopyable>(
        _ bytes: UnsafeRawPointer, _ lower: UnsafeRawPointer, _ type: Word.Type
    ) -> Word {
        let caseBits = ~Word(0) / 0xFF &* 0x20
        return (bytes.loadUnaligned(as: Word.self) | caseBits) ^ lower.loadUnaligned(as: Word.self)
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
