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
        if bytes.count >= Limits.headBytesMax {
            return .failed(isRequest ? tooLargeRequest(bytes) : .tooLarge)
        }
        // Something that is no HTTP at all is told so at once, not after the timeout.
        if isRequest, let first = bytes.first, !ASCII.isToken(first), first != 0x0D {
            return .failed(.malformed)
        }
        return .needsMore
    }

    /// Which part of a request is longer than we read: the method (which is none then), the target
    /// (RFC 9112 §3 demands a status of its own), or the fields.
    private static func tooLargeRequest(_ bytes: UnsafeRawBufferPointer) -> HeadError {
        let line = bytes.dropFirst(bytes[0] == 0x0D ? 2 : 0)
        guard let end = line.prefix(methodBytesMax + 1).firstIndex(of: 0x20) else {
            return .malformed
        }
        let target = bytes[(end + 1)...].prefix(Limits.targetBytesMax + 1)
        return target.contains { $0 == 0x20 || $0 == 0x0A } ? .tooLarge : .targetTooLong
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
            switch fieldLine(base, position, bytes.count) {
            case .ends(let end): return .complete(end)
            case .needsMore: return .needsMore
            case .malformed: return .failed(.malformed)
            case .field(let field, let end):
                guard count < Limits.fieldsMax, end < Limits.headBytesMax else {
                    return .failed(.tooLarge)
                }
                fields[count] = field
                count += 1
                present |= 1 &<< UInt64(field.id.rawValue)
                position = end
            }
        }
    }

    private enum FieldLine {
        /// With the offset of the next line.
        case field(HTTPField, Int)
        /// The empty line, and what lies behind it.
        case ends(Int)
        case needsMore
        case malformed
    }

    /// RFC 9112 §5: `field-name ":" OWS field-value OWS`, no space before the colon, no folding.
    /// Each byte is looked at once: what ends a run of good bytes must be the colon, or the line
    /// end in full. A bare carriage return or line feed ends no line.
    @inline(__always)
    private static func fieldLine(
        _ bytes: UnsafePointer<UInt8>, _ start: Int, _ count: Int
    ) -> FieldLine {
        let colon = start + weir_token_count(bytes + start, count - start)
        guard colon < count else { return .needsMore }
        guard colon > start, bytes[colon] == UInt8(ascii: ":") else {
            guard colon == start, bytes[colon] == 0x0D else { return .malformed }
            guard colon + 1 < count else { return .needsMore }
            return bytes[colon + 1] == 0x0A ? .ends(colon + 2) : .malformed
        }
        var first = colon + 1
        while first < count, bytes[first] == 0x20 || bytes[first] == 0x09 { first += 1 }
        let end = first + weir_field_value_count(bytes + first, count - first)
        guard end + 1 < count else {
            return end == count || bytes[end] == 0x0D ? .needsMore : .malformed
        }
        guard bytes[end] == 0x0D, bytes[end + 1] == 0x0A else { return .malformed }
        var last = end
        while last > first, bytes[last - 1] == 0x20 || bytes[last - 1] == 0x09 { last -= 1 }
        let name = UnsafeRawBufferPointer(start: bytes + start, count: colon - start)
        let id = FieldName.of(name)
        if id == .other || id == .weir, FieldName.isDisguised(name) { return .malformed }
        let field = HTTPField(name: ByteRange(start, colon), value: ByteRange(first, last), id: id)
        return .field(field, end + 2)
    }

    // MARK: First lines

    /// No method that anybody registered is half as long.
    static let methodBytesMax = 32

    /// RFC 9112 §3: `method SP request-target SP HTTP-version`, single spaces.
    private static func requestLine(
        _ bytes: UnsafeRawBufferPointer, _ start: Int, _ end: Int, _ head: inout HTTPHead
    ) -> HeadError? {
        guard let base = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) else {
            return .malformed
        }
        var position = start
        position += weir_token_count(base + position, end - position)
        guard position > start, position - start <= methodBytesMax, position < end,
            bytes[position] == 0x20
        else { return .malformed }
        head.methodRange = ByteRange(start, position)
        head.method = .of(UnsafeRawBufferPointer(rebasing: bytes[start..<position]))
        let targetStart = position + 1
        position = targetStart
        position += weir_target_count(base + position, end - position)
        guard position > targetStart, position < end, bytes[position] == 0x20 else {
            return .malformed
        }
        guard position - targetStart <= Limits.targetBytesMax else { return .targetTooLong }
        if let error = version(bytes, position + 1, end, &head) { return error }
        return RequestTarget.parse(bytes, targetStart, position, &head)
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
            if offset >= 2, bytes[offset - 2] == 0x0A { return true }
            scanned = offset + 1
        }
        scanned = bytes.count
        return false
    }
}
