import CLinux

/// The one parser of heads, for both directions: strict, because whatever two parsers on a path
/// read differently is a way to smuggle a request (RFC 9112 §11.2). Each line is found by its line
/// feed and validated once; nothing is repaired. Parsing has no state: while a head is incomplete,
/// only `HeadScan` looks at what arrives, and the whole is parsed when its end is there, so a head
/// that comes byte by byte costs no more than one that comes at once.
package enum HeadParser {
    /// `fields` has room for `Limits.fieldsMax` entries.
    package static func parseRequest(
        _ bytes: UnsafeRawBufferPointer, fields: UnsafeMutablePointer<HTTPField>,
        into head: inout HTTPHead
    ) -> HeadResult {
        parse(bytes, fields: fields, into: &head, isRequest: true)
    }

    package static func parseResponse(
        _ bytes: UnsafeRawBufferPointer, fields: UnsafeMutablePointer<HTTPField>,
        into head: inout HTTPHead
    ) -> HeadResult {
        parse(bytes, fields: fields, into: &head, isRequest: false)
    }

    private static func parse(
        _ bytes: UnsafeRawBufferPointer, fields: UnsafeMutablePointer<HTTPField>,
        into head: inout HTTPHead, isRequest: Bool
    ) -> HeadResult {
        guard let base = bytes.baseAddress else { return .needsMore }
        head = HTTPHead(base: base, fields: fields)
        var position = 0
        // RFC 9112 §2.2: one empty line before a request line is forgiven.
        if isRequest, bytes.count >= 2, bytes[0] == 0x0D, bytes[1] == 0x0A { position = 2 }
        switch line(bytes, from: position) {
        case .needsMore: return incomplete(bytes, isRequest)
        case .malformed: return .failed(.malformed)
        case .ends(let end):
            head.byteCount = end
            if let error = isRequest
                ? requestLine(bytes, position, end, &head) : statusLine(bytes, position, end, &head)
            {
                return .failed(error)
            }
            position = end + 2
        }
        switch parseFields(bytes, from: position, into: &head) {
        case .complete(let end):
            guard end <= Limits.headBytesMax else { return .failed(.tooLarge) }
            head.byteCount = end
            if let error = HeadRules.check(&head, isRequest: isRequest) { return .failed(error) }
            return .complete(end)
        case .needsMore: return incomplete(bytes, isRequest)
        case .failed(let error): return .failed(error)
        }
    }

    private static func incomplete(_ bytes: UnsafeRawBufferPointer, _ isRequest: Bool) -> HeadResult
    {
        if bytes.count >= Limits.headBytesMax { return .failed(.tooLarge) }
        // Something that is no HTTP at all is told so at once, not after the timeout.
        if isRequest, let first = bytes.first, !ASCII.isToken(first), first != 0x0D {
            return .failed(.malformed)
        }
        return .needsMore
    }

    enum LineResult {
        /// The offset of the carriage return.
        case ends(Int)
        case needsMore
        case malformed
    }

    @inline(__always)
    static func line(_ bytes: UnsafeRawBufferPointer, from position: Int) -> LineResult {
        guard position < bytes.count, let base = bytes.baseAddress else { return .needsMore }
        let start = base.assumingMemoryBound(to: UInt8.self)
        guard let feed = weir_find_line_feed(start + position, bytes.count - position) else {
            return .needsMore
        }
        let offset = feed - start
        // A bare line feed ends no line (RFC 9112 §2.2 lets us refuse it). A bare carriage return
        // is found by the checks of what stands in the line.
        guard offset > position, bytes[offset - 1] == 0x0D else { return .malformed }
        return .ends(offset - 1)
    }

    // MARK: Field lines (also of trailers)

    static func parseFields(
        _ bytes: UnsafeRawBufferPointer, from start: Int, into head: inout HTTPHead
    ) -> HeadResult {
        // A plain pointer, because the subscript of a buffer costs four times as much here; every
        // index lies between `position` and `end`, which `line` found in the buffer.
        guard let base = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) else {
            return .needsMore
        }
        // Kept apart from `head`, which is memory that every write would have to go through.
        var count = head.fieldCount
        var present = head.present
        defer {
            head.fieldCount = count
            head.present = present
        }
        let fields = head.fields
        var position = start
        while true {
            let end: Int
            switch line(bytes, from: position) {
            case .needsMore: return .needsMore
            case .malformed: return .failed(.malformed)
            case .ends(let offset): end = offset
            }
            if end == position { return .complete(end + 2) }
            guard count < Limits.fieldsMax, end < Limits.headBytesMax else {
                return .failed(.tooLarge)
            }
            guard let field = fieldLine(base, position, end) else { return .failed(.malformed) }
            fields[count] = field
            count += 1
            present |= 1 &<< UInt64(field.id.rawValue)
            position = end + 2
        }
    }

    /// RFC 9112 §5: `field-name ":" OWS field-value OWS`, no space before the colon, no folding.
    @inline(__always)
    private static func fieldLine(
        _ bytes: UnsafePointer<UInt8>, _ start: Int, _ end: Int
    ) -> HTTPField? {
        var colon = start
        var hasUnderscore = false
        while colon < end {
            let byte = bytes[colon]
            // Most bytes of names are letters and hyphens.
            if (byte | 0x20) &- 97 >= 26 && byte != UInt8(ascii: "-") {
                guard ASCII.isToken(byte) else { break }
                hasUnderscore = hasUnderscore || byte == UInt8(ascii: "_")
            }
            colon += 1
        }
        guard colon > start, colon < end, bytes[colon] == UInt8(ascii: ":") else { return nil }
        var first = colon + 1
        var last = end
        while first < last, bytes[first] == 0x20 || bytes[first] == 0x09 { first += 1 }
        while last > first, bytes[last - 1] == 0x20 || bytes[last - 1] == 0x09 { last -= 1 }
        let value = UnsafeRawBufferPointer(start: bytes + first, count: last - first)
        guard ASCII.isFieldValue(value) else { return nil }
        let name = UnsafeRawBufferPointer(start: bytes + start, count: colon - start)
        if hasUnderscore, FieldName.isDisguised(name) { return nil }
        return HTTPField(
            name: ByteRange(start, colon), value: ByteRange(first, last), id: FieldName.of(name))
    }

    // MARK: First lines

    static let methodBytesMax = 32

    /// RFC 9112 §3: `method SP request-target SP HTTP-version`, single spaces.
    private static func requestLine(
        _ bytes: UnsafeRawBufferPointer, _ start: Int, _ end: Int, _ head: inout HTTPHead
    ) -> HeadError? {
        guard let base = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) else {
            return .malformed
        }
        var position = start
        while position < end, ASCII.isToken(base[position]) { position += 1 }
        guard position > start, position - start <= methodBytesMax, position < end,
            bytes[position] == 0x20
        else { return .malformed }
        head.methodRange = ByteRange(start, position)
        head.method = .of(UnsafeRawBufferPointer(rebasing: bytes[start..<position]))
        let targetStart = position + 1
        position = targetStart
        while position < end, isTarget(base[position]) { position += 1 }
        guard position > targetStart, position < end, bytes[position] == 0x20 else {
            return .malformed
        }
        guard position - targetStart <= Limits.targetBytesMax else { return .tooLarge }
        if let error = version(bytes, position + 1, end, &head) { return error }
        return RequestTarget.parse(bytes, targetStart, position, &head)
    }

    /// RFC 3986 characters, and `{`, `|`, `}` that clients send unescaped. No fragment, nothing
    /// that servers read differently (`\`), nothing beyond ASCII.
    @inline(__always)
    static func isTarget(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x22, 0x23, 0x3C, 0x3E, 0x5C, 0x5E, 0x60: false
        default: byte > 0x20 && byte < 0x7F
        }
    }

    /// `HTTP/1.0` or `HTTP/1.1`; another well-formed version is 505.
    private static func version(
        _ bytes: UnsafeRawBufferPointer, _ start: Int, _ end: Int, _ head: inout HTTPHead
    ) -> HeadError? {
        guard end - start == 8 else { return .malformed }
        let text = UnsafeRawBufferPointer(rebasing: bytes[start..<end])
        guard text[0] == 0x48, text[1] == 0x54, text[2] == 0x54, text[3] == 0x50, text[4] == 0x2F,
            (48...57).contains(text[5]), text[6] == UInt8(ascii: "."), (48...57).contains(text[7])
        else { return .malformed }
        guard text[5] == UInt8(ascii: "1"), text[7] <= UInt8(ascii: "1") else { return .version }
        head.minorVersion = text[7] - 48
        return nil
    }

    /// RFC 9112 §4: `HTTP-version SP status-code SP [ reason-phrase ]`; the last space is often
    /// missing together with the phrase, and nothing depends on it.
    private static func statusLine(
        _ bytes: UnsafeRawBufferPointer, _ start: Int, _ end: Int, _ head: inout HTTPHead
    ) -> HeadError? {
        guard end - start >= 12 else { return .malformed }
        guard end < Limits.headBytesMax else { return .tooLarge }
        if let error = version(bytes, start, start + 8, &head) { return error }
        guard bytes[start + 8] == 0x20 else { return .malformed }
        var status = 0
        for offset in 9..<12 {
            let byte = bytes[start + offset]
            guard (48...57).contains(byte) else { return .malformed }
            status = status * 10 + Int(byte - 48)
        }
        guard (100...599).contains(status) else { return .malformed }
        head.status = status
        guard end - start > 12 else { return nil }
        guard bytes[start + 12] == 0x20 else { return .malformed }
        head.reason = ByteRange(start + 13, end)
        let reason = UnsafeRawBufferPointer(rebasing: bytes[(start + 13)..<end])
        return ASCII.isFieldValue(reason) ? nil : .malformed
    }
}

/// Finds the end of a head that comes in pieces, looking at each byte once.
package struct HeadScan {
    private var scanned = 0

    package init() {}

    /// True when the head's end is there, or when something is wrong that the parser will find.
    package mutating func hasEnd(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let base = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) else {
            return false
        }
        if bytes.count >= Limits.headBytesMax { return true }
        while scanned < bytes.count,
            let feed = weir_find_line_feed(base + scanned, bytes.count - scanned)
        {
            let offset = feed - base
            if offset == 0 || bytes[offset - 1] != 0x0D { return true }
            if offset >= 2, bytes[offset - 2] == 0x0A, offset > 3 { return true }
            scanned = offset + 1
        }
        scanned = bytes.count
        return false
    }
}
