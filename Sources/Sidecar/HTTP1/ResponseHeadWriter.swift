/// Writes response heads for HTTP/1.1 clients: the upstream's fields without those of its hop, ours
/// behind them, and the framing of the body that we chose.
enum ResponseHeadWriter {
    /// `contentLength` below 0: none is written. False when there is no memory for it.
    static func write(
        status: Int, upstream: HTTPHead?, exchange: Exchange, connection: Connection,
        contentLength: Int64, isChunked: Bool, closes: Bool, keepsAliveOld: Bool
    ) -> Bool {
        let bytes =
            (upstream?.byteCount ?? 0) + exchange.addedResponseFields.count
            + exchange.responseTrailers.count + 512
        guard let room = connection.reserve(bytes) else { return false }
        var writer = HeadWriter(room)
        writer.write("HTTP/1.1 ")
        writer.write(decimal: UInt64(status))
        writer.write(" ")
        if let upstream, !upstream.reason.isEmpty {
            writer.write(upstream.bytes(upstream.reason))
        } else {
            writer.write(ReasonPhrase.of(status))
        }
        writer.write("\r\n")
        if let upstream {
            copyFields(upstream, exchange, contentLength >= 0, &writer)
        }
        if contentLength >= 0, upstream?.contentLength != contentLength {
            writer.write("content-length: ")
            writer.write(decimal: UInt64(contentLength))
            writer.write("\r\n")
        }
        if upstream?.has(.date) != true { exchange.worker.writeDate(to: &writer) }
        if !exchange.isOwn { writeIdentity(exchange, upstream, &writer) }
        writer.write(exchange.addedResponseFields.lines)
        if exchange.declaresTrailers {
            if isChunked {
                writer.write("trailer: ")
                writer.write(exchange.trailerNames)
                writer.write("\r\n")
            } else {
                writer.write(exchange.responseTrailers.lines)
            }
        }
        if isChunked { writer.write("transfer-encoding: chunked\r\n") }
        if closes { writer.write("connection: close\r\n") }
        if keepsAliveOld { writer.write("connection: keep-alive\r\n") }
        writer.write("\r\n")
        guard !writer.overflowed else { return false }
        connection.commit(writer.count)
        return true
    }

    private static func writeIdentity(
        _ exchange: Exchange, _ upstream: HTTPHead?, _ writer: inout HeadWriter
    ) {
        if let upstream {
            let isHTTP2 = upstream.flags.contains(.http2)
            writer.write(isHTTP2 ? "via: 2 weir\r\n" : "via: 1.1 weir\r\n")
        }
        writer.write("weir-request-id: req_")
        writer.write(identifier: exchange.requestID)
        writer.write("\r\n")
    }

    private static func copyFields(
        _ head: HTTPHead, _ exchange: Exchange, _ keepsLength: Bool, _ writer: inout HeadWriter
    ) {
        let namesFields = head.flags.contains(.namesFields)
        writer.copyFields(of: head) { field in
            ResponseRules.keeps(
                field, of: head, exchange, keepsLength: keepsLength, namesFields: namesFields)
        }
    }

    /// 101: the upstream's fields with the two that make it one, and ours.
    static func writeSwitch(
        _ head: HTTPHead, exchange: Exchange, connection: Connection
    ) -> Bool {
        exchange.addedResponseFields.add("connection", "upgrade" as StaticString)
        exchange.addedResponseFields.add("upgrade", head.string(of: .upgrade) ?? "")
        return write(
            status: head.status, upstream: head, exchange: exchange, connection: connection,
            contentLength: -1, isChunked: false, closes: false, keepsAliveOld: false)
    }

    static func writeInformational(_ head: HTTPHead, to connection: Connection) {
        guard let room = connection.reserve(head.byteCount + 64) else { return }
        var writer = HeadWriter(room)
        writer.write("HTTP/1.1 ")
        writer.write(decimal: UInt64(head.status))
        writer.write(" ")
        writer.write(ReasonPhrase.of(head.status))
        writer.write("\r\n")
        writer.copyFields(of: head) { ResponseRules.keepsInformational($0, of: head) }
        writer.write("\r\n")
        if !writer.overflowed { connection.commit(writer.count) }
    }

    /// The last chunk and the trailers: the upstream's that may pass, and ours.
    static func writeEnd(
        exchange: Exchange, upstreamTrailers: HTTPHead?, connection: Connection
    ) {
        if upstreamTrailers == nil, exchange.responseTrailers.isEmpty {
            return connection.emit("0\r\n\r\n")
        }
        let bytes = (upstreamTrailers?.byteCount ?? 0) + exchange.responseTrailers.count + 16
        guard let room = connection.reserve(bytes) else { return connection.emit("0\r\n\r\n") }
        var writer = HeadWriter(room)
        writer.write("0\r\n")
        if let upstreamTrailers {
            writer.copyFields(of: upstreamTrailers) { ResponseRules.keepsTrailer($0, exchange) }
        }
        writer.write(exchange.responseTrailers.lines)
        writer.write("\r\n")
        if writer.overflowed { return connection.emit("0\r\n\r\n") }
        connection.commit(writer.count)
    }
}
