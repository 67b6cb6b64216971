/// The grammar of RFC 9112 §7.1 as it is written down there, over a body that is there as a whole:
/// slow, and without anything in common with the decoder that it judges.
struct ChunksReference {
    private let bytes: [UInt8]
    private var position = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// The body's data and its end; `nil` for what is malformed or not whole.
    mutating func decode() -> (data: [UInt8], end: Int)? {
        var data: [UInt8] = []
        while let size = sizeLine() {
            if size == 0 { return skipTrailers() ? (data, position) : nil }
            guard bytes.count - position >= size else { return nil }
            data += bytes[position..<(position + size)]
            position += size
            guard take(13), take(10) else { return nil }
        }
        return nil
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard position < bytes.count, bytes[position] == byte else { return false }
        position += 1
        return true
    }

    private mutating func takeWhile(_ isGood: (UInt8) -> Bool) -> ArraySlice<UInt8> {
        let start = position
        while position < bytes.count, isGood(bytes[position]) { position += 1 }
        return bytes[start..<position]
    }

    private mutating func skipSpace() { _ = takeWhile { $0 == 32 || $0 == 9 } }

    private mutating func sizeLine() -> Int? {
        let digits = takeWhile {
            (48...57).contains($0) || (65...70).contains($0) || (97...102).contains($0)
        }
        guard (1...15).contains(digits.count) else { return nil }
        let size = Int(String(decoding: digits, as: UTF8.self), radix: 16)
        while true {
            if take(13) { return take(10) ? size : nil }
            skipSpace()
            guard take(59) else { return nil }
            guard skipExtension() else { return nil }
        }
    }

    private mutating func skipExtension() -> Bool {
        skipSpace()
        guard !takeWhile(Self.isToken).isEmpty else { return false }
        let behindName = position
        skipSpace()
        guard take(61) else {
            // The space belongs to the next extension.
            position = behindName
            return true
        }
        skipSpace()
        guard take(34) else { return !takeWhile(Self.isToken).isEmpty }
        while position < bytes.count {
            let byte = bytes[position]
            position += 1
            if byte == 34 { return true }
            if byte == 92, position < bytes.count {
                guard Self.isText(bytes[position]) else { return false }
                position += 1
            } else if !Self.isText(byte) {
                return false
            }
        }
        return false
    }

    /// Lines up to the empty one. What stands in them the head's parser judges.
    private mutating func skipTrailers() -> Bool {
        while true {
            let line = takeWhile { $0 != 10 }
            guard line.last == 13, take(10) else { return false }
            if line.count == 1 { return true }
            guard let first = line.first, !isFirst || Self.isToken(first) else { return false }
            isFirst = false
        }
    }

    /// The decoder looks at the first byte of the section only.
    private var isFirst = true

    private static func isToken(_ byte: UInt8) -> Bool {
        switch byte {
        case 48...57, 65...90, 97...122: true
        default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
        }
    }

    private static func isText(_ byte: UInt8) -> Bool { byte == 9 || byte >= 32 && byte != 127 }
}
