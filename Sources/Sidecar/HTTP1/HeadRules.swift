/// What the fields of a head mean together: framing (RFC 9112 §6), the connection (§9.3, RFC 9110
/// §7.6.1), the host (RFC 9112 §3.2) and the expectation (RFC 9110 §10.1.1).
enum HeadRules {
    /// Names whose presence asks for a closer look; an ordinary head has `Host` and little else.
    private static let looked: UInt64 =
        FieldName.host.bit | FieldName.contentLength.bit | FieldName.transferEncoding.bit
        | FieldName.connection.bit | FieldName.expect.bit
        | FieldName.te.bit

    /// A reader that took protected fields from here would see another message than one that does
    /// not (RFC 9110 §6.5.1).
    static func allowTrailers(_ trailers: HTTPHead) -> Bool {
        !(0..<trailers.fieldCount).contains { trailers.fields[$0].id.isProtected }
    }

    static func check(_ head: inout HTTPHead, isRequest: Bool) -> HeadError? {
        if head.present & looked != 0 {
            for index in 0..<head.fieldCount {
                let field = head.fields[index]
                guard field.id.bit & looked != 0 else { continue }
                if let error = check(field, &head, isRequest) { return error }
            }
        }
        if head.flags.contains(.chunked) {
            // Two ways to tell the length: refused, never chosen between (RFC 9112 §6.1). HTTP/1.0
            // knows no transfer coding.
            if head.contentLength >= 0 || head.minorVersion == 0 { return .malformed }
        }
        guard isRequest else { return nil }
        // Also where the target names the host (RFC 9112 §3.2).
        if !head.has(.host) && head.minorVersion >= 1 { return .malformed }
        // Neither is for us to understand in HTTP/1.0 (RFC 9110 §10.1.1, §7.8).
        if head.minorVersion == 0 { head.flags.subtract([.expectsContinue, .namesUpgrade]) }
        return nil
    }

    private static func check(
        _ field: HTTPField, _ head: inout HTTPHead, _ isRequest: Bool
    ) -> HeadError? {
        let value = head.bytes(field.value)
        switch field.id {
        case .host: return isRequest ? host(field, value, &head) : nil
        case .contentLength: return contentLength(value, &head)
        case .transferEncoding: return transferEncoding(value, &head)
        case .connection: return connection(value, &head)
        case .expect where isRequest:
            guard ASCII.equalsIgnoringCase(value, "100-continue") else { return .expectation }
            head.flags.insert(.expectsContinue)
            return nil
        case .te:
            _ = ASCII.forEachListElement(value) { element in
                if ASCII.equalsIgnoringCase(element, "trailers") {
                    head.flags.insert(.acceptsTrailers)
                }
                return true
            }
            return nil
        default: return nil
        }
    }

    /// Exactly one, and the same as the authority of an absolute target.
    private static func host(
        _ field: HTTPField, _ value: UnsafeRawBufferPointer, _ head: inout HTTPHead
    ) -> HeadError? {
        guard RequestTarget.isAuthority(value), head.count(of: .host) == 1 else {
            return .malformed
        }
        if !head.host.isEmpty {
            return ASCII.equalsIgnoringCase(value, head.bytes(head.host)) ? nil : .malformed
        }
        head.host = field.value
        return nil
    }

    /// Digits and nothing else, once. `5, 5` and a repeated field are refused although RFC 9112
    /// §6.3 would allow to repair them; so are leading zeros, which some read as octal.
    private static func contentLength(
        _ value: UnsafeRawBufferPointer, _ head: inout HTTPHead
    ) -> HeadError? {
        guard (1...18).contains(value.count), head.contentLength < 0,
            value.count == 1 || value[0] != UInt8(ascii: "0")
        else { return .malformed }
        var length: Int64 = 0
        for byte in value {
            guard (48...57).contains(byte) else { return .malformed }
            length = length * 10 + Int64(byte - 48)
        }
        head.contentLength = length
        return nil
    }

    private static func transferEncoding(
        _ value: UnsafeRawBufferPointer, _ head: inout HTTPHead
    ) -> HeadError? {
        guard !head.flags.contains(.chunked) else { return .malformed }
        guard ASCII.equalsIgnoringCase(value, "chunked") else {
            // Another coding under a proper `chunked` is something that we do not have (501);
            // everything else has no known end.
            var codings = 0
            var chunked = 0
            var endsChunked = false
            _ = ASCII.forEachListElement(value) { coding in
                codings += 1
                endsChunked = ASCII.equalsIgnoringCase(coding, "chunked")
                if endsChunked { chunked += 1 }
                return true
            }
            return endsChunked && chunked == 1 && codings > 1 ? .notImplemented : .malformed
        }
        head.flags.insert(.chunked)
        return nil
    }

    private static func connection(
        _ value: UnsafeRawBufferPointer, _ head: inout HTTPHead
    ) -> HeadError? {
        var flags = head.flags
        let isFine = ASCII.forEachListElement(value) { option in
            guard ASCII.isToken(option) else { return false }
            if ASCII.equalsIgnoringCase(option, "close") {
                flags.insert(.close)
            } else if ASCII.equalsIgnoringCase(option, "keep-alive") {
                flags.insert(.keepAlive)
            } else {
                let id = FieldName.of(option)
                if id.isProtected { return false }
                if !id.isHopByHop { flags.insert(.namesFields) }
                if id == .upgrade { flags.insert(.namesUpgrade) }
            }
            return true
        }
        head.flags = flags
        return isFine ? nil : .malformed
    }
}

extension HTTPHead {
    /// Whether a `Connection` field names this one; asked only when `namesFields` is set.
    func connectionNames(_ name: UnsafeRawBufferPointer) -> Bool {
        for index in 0..<fieldCount where fields[index].id == .connection {
            let isAbsent = ASCII.forEachListElement(bytes(fields[index].value)) {
                !ASCII.equalsIgnoringCase($0, name)
            }
            if !isAbsent { return true }
        }
        return false
    }
}
