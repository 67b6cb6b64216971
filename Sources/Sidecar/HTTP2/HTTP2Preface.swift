/// What a client says first that knows that we speak HTTP/2 (RFC 9113 §3.4).
enum HTTP2Preface {
    enum Match { case no, partly, yes }

    /// With the `SM` and its empty line.
    static let byteCount = 24

    /// How far the bytes are its first part; the whole has `SM` behind it, which nghttp2 checks.
    static func match(_ bytes: UnsafeRawBufferPointer) -> Match {
        let head: StaticString = "PRI * HTTP/2.0\r\n\r\n"
        let count = min(bytes.count, head.utf8CodeUnitCount)
        for index in 0..<count where bytes[index] != head.utf8Start[index] { return .no }
        return count == head.utf8CodeUnitCount ? .yes : .partly
    }

    /// Whether a first line that was refused is no line of HTTP/1.1 either: three words, of which
    /// the second is no target and the third no version. Who says that on a connection that could
    /// have been HTTP/2 has a wrong preface, and understands no answer in HTTP/1.1.
    static func isOfNeither(_ bytes: UnsafeRawBufferPointer) -> Bool {
        let line = bytes.prefix { $0 != 0x0D && $0 != 0x0A }
        let words = line.split(separator: 0x20, omittingEmptySubsequences: false)
        guard words.count == 3, words.allSatisfy({ !$0.isEmpty }), line.count < bytes.count else {
            return false
        }
        let isTarget = words[1].contains { $0 == 0x2F || $0 == 0x2A || $0 == 0x3A }
        return !isTarget && !words[2].starts(with: "HTTP/".utf8)
    }
}
