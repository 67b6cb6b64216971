/// What a client says first that knows that we speak HTTP/2 (RFC 9113 §3.4).
enum HTTP2Preface {
    enum Match { case no, partly, yes }

    /// How far the bytes are its first part; the whole has `SM` behind it, which nghttp2 checks.
    static func match(_ bytes: UnsafeRawBufferPointer) -> Match {
        let head: StaticString = "PRI * HTTP/2.0\r\n\r\n"
        let count = min(bytes.count, head.utf8CodeUnitCount)
        for index in 0..<count where bytes[index] != head.utf8Start[index] { return .no }
        return count == head.utf8CodeUnitCount ? .yes : .partly
    }
}
