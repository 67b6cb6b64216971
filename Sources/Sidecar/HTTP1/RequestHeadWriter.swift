/// Writes request heads for HTTP/1.1 upstreams: the client's fields without those of its hop and
/// those that only we may say, then ours.
enum RequestHeadWriter {
    /// Fields that need a decision; everything else is copied in runs.
    private static let decided: UInt64 =
        FieldName.connection.bit | FieldName.keepAlive.bit | FieldName.proxyConnection.bit
        | FieldName.te.bit | FieldName.upgrade.bit | FieldName.transferEncoding.bit
        | FieldName.proxyAuthenticate.bit | FieldName.proxyAuthorization.bit
        | FieldName.http2Settings.bit | FieldName.weir.bit | FieldName.trailer.bit
        | FieldName.host.bit | FieldName.contentLength.bit | FieldName.expect.bit
        | FieldName.xForwardedFor.bit | FieldName.xForwardedProto.bit | FieldName.xForwardedHost.bit
        | FieldName.forwarded.bit | FieldName.traceparent.bit | FieldName.maxForwards.bit

    /// False when there is no memory for it.
    static func write(_ exchange: Exchange, to connection: Connection) -> Bool {
        let head = exchange.requestHead
        guard let room = connection.reserve(bytesMax(exchange, head)) else { return false }
        var writer = HeadWriter(room)
        let hasTrace = head.value(of: .traceparent).map(isTraceparent) ?? false
        writeRequestLine(exchange, head, &writer)
        copyFields(exchange, head, hasTrace, &writer)
        writeHost(exchange, head, &writer)
        writeLength(exchange, head, &writer)
        if exchange.requestLength < 0, !exchange.bodyIsHeld {
            writer.write("transfer-encoding: chunked\r\n")
        }
        writeOwn(exchange, head, hasTrace, &writer)
        if exchange.asksUpgrade { writeUpgrade(head, &writer) }
        writer.write(exchange.addedRequestFields.lines)
        writer.write("\r\n")
        guard !writer.overflowed else { return false }
        connection.commit(writer.count)
        return true
    }

    /// The fields of an HTTP/2 request, behind its pseudo-fields. Their values stand in the head
    /// and in `room`, which has `bytesMax`. False when they did not fit.
    static func write(
        _ exchange: Exchange, to values: HTTP2NameValues, room: UnsafeMutableRawBufferPointer
    ) -> Bool {
        let head = exchange.requestHead
        let hasTrace = head.value(of: .traceparent).map(isTraceparent) ?? false
        let namesFields = head.flags.contains(.namesFields)
        values.add(fieldsOf: head) { field in
            // What `Host` says stands in `:authority`.
            field.id != .host && keeps(field, exchange, head, hasTrace, namesFields: namesFields)
        }
        var writer = HeadWriter(room)
        writeLength(exchange, head, &writer)
        writeOwn(exchange, head, hasTrace, &writer)
        // RFC 9113 §8.2.2: the one thing that TE may say. Servers of gRPC ask for it.
        if head.flags.contains(.acceptsTrailers) { writer.write("te: trailers\r\n") }
        guard !writer.overflowed else { return false }
        values.add(
            lines: UnsafeRawBufferPointer(
                rebasing: UnsafeRawBufferPointer(room)[..<writer.count]))
        values.add(lines: exchange.addedRequestFields.lines)
        return !values.overflowed
    }

    /// Of the whole head, with what is added to it.
    static func bytesMax(_ exchange: Exchange, _ head: HTTPHead) -> Int {
        2 * head.byteCount + exchange.addedRequestFields.count
            + (exchange.targetOverride?.utf8.count ?? 0)
            + (exchange.target?.hostOverride?.utf8.count ?? 0)
            + (exchange.target?.pathPrefix.utf8.count ?? 0) + 512
    }

    /// Which trailers of a request may pass.
    static func keepsTrailer(_ field: HTTPField, _ exchange: Exchange) -> Bool {
        if field.id == .weir { return exchange.isOwn }
        return !field.id.isHopByHop && !field.id.isProtected
    }

    /// The last chunk, and the trailers that may pass.
    static func writeEnd(_ trailers: HTTPHead, _ exchange: Exchange?, to connection: Connection) {
        guard let exchange, let room = connection.reserve(trailers.byteCount + 8) else {
            return connection.emit("0\r\n\r\n")
        }
        var writer = HeadWriter(room)
        writer.write("0\r\n")
        writer.copyFields(of: trailers) { keepsTrailer($0, exchange) }
        writer.write("\r\n")
        connection.commit(writer.count)
    }

    private static func writeOwn(
        _ exchange: Exchange, _ head: HTTPHead, _ hasTrace: Bool, _ writer: inout HeadWriter
    ) {
        if let left = exchange.maxForwards {
            writer.write("max-forwards: ")
            writer.write(decimal: left - 1)
            writer.write("\r\n")
        }
        if !exchange.isOwn {
            writeForwarded(exchange, head, &writer)
            writeVia(head, &writer)
        }
        if !hasTrace { writeTrace(exchange.worker, &writer) }
        if exchange.announcesDeadline { writeDeadline(exchange, &writer) }
    }

    /// RFC 9110 §7.6.3: the protocol that the message came by.
    private static func writeVia(_ head: HTTPHead, _ writer: inout HeadWriter) {
        if head.flags.contains(.http2) { return writer.write("via: 2 weir\r\n") }
        writer.write("via: 1.")
        writer.write(decimal: UInt64(head.minorVersion))
        writer.write(" weir\r\n")
    }

    private static func writeUpgrade(_ head: HTTPHead, _ writer: inout HeadWriter) {
        guard let offer = head.value(of: .upgrade) else { return }
        writer.write("connection: upgrade\r\nupgrade: ")
        writer.write(offer)
        writer.write("\r\n")
    }

    /// What is left now, after the queue and the connect.
    private static func writeDeadline(_ exchange: Exchange, _ writer: inout HeadWriter) {
        let now = exchange.worker.loop.nowNanoseconds
        let left = exchange.dueNanoseconds - min(exchange.dueNanoseconds, now)
        writer.write("request-timeout-ms: ")
        writer.write(decimal: left / 1_000_000)
        writer.write("\r\n")
        guard exchange.isGRPC else { return }
        // Eight digits at most, which are a day and more in milliseconds.
        writer.write("grpc-timeout: ")
        writer.write(decimal: min(left / 1_000_000, 99_999_999))
        writer.write("m\r\n")
    }

    private static func writeRequestLine(
        _ exchange: Exchange, _ head: HTTPHead, _ writer: inout HeadWriter
    ) {
        writer.write(head.bytes(head.methodRange))
        writer.write(" ")
        writeTarget(exchange, head, &writer)
        writer.write(" HTTP/1.1\r\n")
    }

    static func writeTarget(
        _ exchange: Exchange, _ head: HTTPHead, _ writer: inout HeadWriter
    ) {
        // `*` is about the server and has no path (RFC 9110 §9.3.7).
        if var prefix = exchange.target?.pathPrefix, !prefix.isEmpty,
            head.method != .options || head.path.starts(with: "/".utf8)
        {
            prefix.withUTF8 { writer.write(UnsafeRawBufferPointer($0)) }
        }
        if var target = exchange.targetOverride {
            target.withUTF8 { writer.write(UnsafeRawBufferPointer($0)) }
        } else if head.target.isEmpty {
            // An absolute target without a path (RFC 9112 §3.2.1 and §3.2.4).
            writer.write(head.method == .options ? "*" : "/")
        } else {
            writer.write(head.bytes(head.target))
        }
    }

    private static func copyFields(
        _ exchange: Exchange, _ head: HTTPHead, _ hasTrace: Bool, _ writer: inout HeadWriter
    ) {
        let namesFields = head.flags.contains(.namesFields)
        writer.copyFields(of: head) { field in
            keeps(field, exchange, head, hasTrace, namesFields: namesFields)
        }
    }

    @inline(__always)
    private static func keeps(
        _ field: HTTPField, _ exchange: Exchange, _ head: HTTPHead, _ hasTrace: Bool,
        namesFields: Bool
    ) -> Bool {
        if field.id == .other && !namesFields { return true }
        if exchange.removesRequestField(field.id) { return false }
        if decided >> UInt64(field.id.rawValue) & 1 != 0 {
            return keeps(field, exchange, head, hasTrace)
        }
        return !namesFields || !head.connectionNames(head.bytes(field.name))
    }

    private static func keeps(
        _ field: HTTPField, _ exchange: Exchange, _ head: HTTPHead, _ hasTrace: Bool
    ) -> Bool {
        switch field.id {
        case .weir: return exchange.trustsPeer
        case .host: return exchange.target?.hostOverride == nil
        case .contentLength: return !exchange.bodyIsHeld
        // A held body has been asked for by us already.
        case .expect: return head.flags.contains(.expectsContinue) && !exchange.bodyIsHeld
        case .traceparent: return hasTrace
        case .maxForwards: return exchange.maxForwards == nil
        case .xForwardedProto, .xForwardedHost: return exchange.isOwn || exchange.trustsPeer
        case .xForwardedFor, .forwarded: return exchange.isOwn
        default: return false
        }
    }

    private static func writeHost(
        _ exchange: Exchange, _ head: HTTPHead, _ writer: inout HeadWriter
    ) {
        if var host = exchange.target?.hostOverride {
            writer.write("host: ")
            host.withUTF8 { writer.write(UnsafeRawBufferPointer($0)) }
            writer.write("\r\n")
        } else if !head.has(.host) {
            // HTTP/1.0 may leave it out, HTTP/1.1 may not.
            writer.write("host: ")
            if head.host.isEmpty { writer.write("localhost") }
            writer.write(head.bytes(head.host))
            writer.write("\r\n")
        }
    }

    private static func writeLength(
        _ exchange: Exchange, _ head: HTTPHead, _ writer: inout HeadWriter
    ) {
        if exchange.bodyIsHeld {
            // RFC 9110 §8.6: no length for a method that expects no body and has none.
            guard !exchange.held.isEmpty || head.contentLength >= 0 || head.flags.contains(.chunked)
            else { return }
            writer.write("content-length: ")
            writer.write(decimal: UInt64(exchange.held.count))
            writer.write("\r\n")
        }
    }

    /// As Envoy's users know them: the client's address is appended to `X-Forwarded-For`; scheme
    /// and host are what we saw, unless a proven peer says what it saw; `Forwarded` (RFC 7239) is
    /// continued where somebody began it, and not begun.
    private static func writeForwarded(
        _ exchange: Exchange, _ head: HTTPHead, _ writer: inout HeadWriter
    ) {
        let trusts = exchange.trustsPeer
        writer.write("x-forwarded-for: ")
        writeJoined(.xForwardedFor, head, &writer)
        if let server = exchange.server { writer.write(server.peerHost) }
        writer.write("\r\n")
        if !(trusts && head.has(.xForwardedProto)) {
            writer.write("x-forwarded-proto: ")
            writer.write(exchange.isSecure ? "https\r\n" : "http\r\n")
        }
        if !(trusts && head.has(.xForwardedHost)), !head.host.isEmpty {
            writer.write("x-forwarded-host: ")
            writer.write(head.bytes(head.host))
            writer.write("\r\n")
        }
        guard head.has(.forwarded) else { return }
        writer.write("forwarded: ")
        writeJoined(.forwarded, head, &writer)
        writer.write("for=\"")
        if let server = exchange.server {
            if case .ipv6 = server.peer { writer.write("[") }
            writer.write(server.peerHost)
            if case .ipv6 = server.peer { writer.write("]") }
        }
        writer.write(exchange.isSecure ? "\";proto=https\r\n" : "\";proto=http\r\n")
    }

    /// All values of a field as one list that something is appended to.
    private static func writeJoined(
        _ name: FieldName, _ head: HTTPHead, _ writer: inout HeadWriter
    ) {
        guard head.has(name) else { return }
        for index in 0..<head.fieldCount where head.fields[index].id == name {
            let value = head.bytes(head.fields[index].value)
            guard !value.isEmpty else { continue }
            writer.write(value)
            writer.write(", ")
        }
    }

    /// W3C Trace Context: passed on as it is (we are no span of our own), or begun, not sampled.
    private static func writeTrace(_ worker: Worker, _ writer: inout HeadWriter) {
        writer.write("traceparent: 00-")
        writer.write(hex: worker.random() | 1, digits: 16)
        writer.write(hex: worker.random(), digits: 16)
        writer.write("-")
        writer.write(hex: worker.random() | 1, digits: 16)
        writer.write("-00\r\n")
    }

    /// `00-` 32 hex `-` 16 hex `-` 2 hex, in lower case, identifiers not all zero.
    static func isTraceparent(_ value: UnsafeRawBufferPointer) -> Bool {
        guard value.count == 55, let base = value.baseAddress else { return false }
        let bytes = base.assumingMemoryBound(to: UInt8.self)
        guard bytes[0] == 0x30, bytes[1] == 0x30 else { return false }
        guard bytes[2] == 0x2D, bytes[35] == 0x2D, bytes[52] == 0x2D else { return false }
        return isIdentifier(base + 3, words: 4) && isIdentifier(base + 36, words: 2)
            && isLowerHex(bytes[53]) && isLowerHex(bytes[54])
    }

    /// Digits, not all of them zeros.
    @inline(__always)
    private static func isIdentifier(_ bytes: UnsafeRawPointer, words: Int) -> Bool {
        var nonzero: UInt64 = 0
        for index in 0..<words {
            let word = bytes.loadUnaligned(fromByteOffset: index * 8, as: UInt64.self)
            guard areLowerHex(word) else { return false }
            nonzero |= word ^ ones &* 0x30
        }
        return nonzero != 0
    }

    private static let ones: UInt64 = 0x0101_0101_0101_0101

    /// Whether eight bytes are digits. Added to a byte below 0x80, 0x80 − n sets its highest bit
    /// from n on.
    @inline(__always)
    private static func areLowerHex(_ word: UInt64) -> Bool {
        let high = ones &* 0x80
        guard word & high == 0 else { return false }
        let isDigit = (word &+ ones &* (0x80 - 0x30)) & ~(word &+ ones &* (0x80 - 0x3A))
        let isLetter = (word &+ ones &* (0x80 - 0x61)) & ~(word &+ ones &* (0x80 - 0x67))
        return (isDigit | isLetter) & high == high
    }

    @inline(__always)
    private static func isLowerHex(_ byte: UInt8) -> Bool {
        byte &- 0x30 < 10 || byte &- 0x61 < 6
    }
}
