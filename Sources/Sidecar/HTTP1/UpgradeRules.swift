/// Which requests may turn their connection into another protocol's (RFC 9110 §7.8), and which
/// answers do. What is not passed on is ignored, as the RFC allows: the request goes on without it.
///
/// Protocols that would carry further requests past the admission (HTTP in any version, TLS) are
/// never passed on: with `h2c` that is a known way to smuggle. Nor is an upgrade of a request with
/// a body, because where that ends and the new protocol begins two parsers may see differently.
enum UpgradeRules {
    static func isPassed(_ head: HTTPHead) -> Bool {
        guard head.flags.contains(.namesUpgrade), !head.flags.contains(.http2),
            // RFC 9110 §7.8: in HTTP/1.0 it is ignored.
            head.minorVersion >= 1, !head.flags.contains(.chunked), head.contentLength <= 0,
            !head.flags.contains(.expectsContinue), head.count(of: .upgrade) == 1,
            let offer = head.value(of: .upgrade)
        else { return false }
        var protocols = 0
        let areFine = ASCII.forEachListElement(offer) { name in
            protocols += 1
            return isProtocol(name) && !carriesRequests(name)
        }
        return areFine && protocols > 0
    }

    /// Whether a 101 agrees to what was offered, and to nothing else (RFC 9110 §15.2.2).
    static func isAgreed(_ answer: HTTPHead, to request: HTTPHead) -> Bool {
        guard answer.flags.contains(.namesUpgrade), answer.minorVersion >= 1,
            answer.contentLength < 0, !answer.flags.contains(.chunked),
            answer.count(of: .upgrade) == 1, let chosen = answer.value(of: .upgrade),
            let offer = request.value(of: .upgrade)
        else { return false }
        return !ASCII.forEachListElement(offer) { !equals($0, chosen) }
    }

    /// Whether a client may have taken the upgrade for granted. One that asks for `h2c` may not
    /// (RFC 7540 §3.2 told it to wait), and some do so with every first request.
    static func mayBeOptimistic(_ request: HTTPHead) -> Bool {
        request.flags.contains(.namesUpgrade) && !request.has(.http2Settings)
    }

    /// `name` or `name/version`.
    private static func isProtocol(_ text: UnsafeRawBufferPointer) -> Bool {
        let parts = text.split(
            separator: UInt8(ascii: "/"), maxSplits: 1, omittingEmptySubsequences: false)
        return parts.allSatisfy { ASCII.isToken(UnsafeRawBufferPointer(rebasing: $0)) }
    }

    private static func carriesRequests(_ text: UnsafeRawBufferPointer) -> Bool {
        let end = text.firstIndex(of: UInt8(ascii: "/")) ?? text.endIndex
        let name = UnsafeRawBufferPointer(rebasing: text[..<end])
        for refused: StaticString in ["h2c", "h2", "h3", "http", "https", "tls"]
        where ASCII.equalsIgnoringCase(name, refused) { return true }
        return false
    }

    private static func equals(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer) -> Bool {
        ASCII.equalsIgnoringCase(a, b)
    }
}
