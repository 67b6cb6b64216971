/// The head of a response as HTTP/2 carries it; what passes and what is added is the same as in
/// `ResponseHeadWriter`.
enum HTTP2ResponseFields {
    /// `contentLength` below 0: none is written.
    static func write(
        status: Int, upstream: HTTPHead?, exchange: Exchange, contentLength: Int64, hasBody: Bool,
        to values: HTTP2NameValues
    ) {
        values.reset()
        values.add(":status") { $0.write(decimal: UInt64(status)) }
        if let upstream {
            let namesFields = upstream.flags.contains(.namesFields)
            values.add(fieldsOf: upstream) { field in
                ResponseRules.keeps(
                    field, of: upstream, exchange, keepsLength: contentLength >= 0,
                    namesFields: namesFields)
            }
        }
        if contentLength >= 0, upstream?.contentLength != contentLength {
            values.add("content-length", .never) { $0.write(decimal: UInt64(contentLength)) }
        }
        if upstream?.has(.date) != true { values.add("date", exchange.worker.dateValue()) }
        if !exchange.isOwn {
            if let upstream {
                values.add("via", upstream.flags.contains(.http2) ? "2 weir" : "1.1 weir")
            }
            values.add("weir-request-id", .never) { writer in
                writer.write("req_")
                writer.write(identifier: exchange.requestID)
            }
        }
        values.add(lines: exchange.addedResponseFields.lines)
        guard exchange.declaresTrailers else { return }
        if hasBody {
            values.add("trailer", exchange.trailerNames)
        } else {
            values.add(lines: exchange.responseTrailers.lines)
        }
    }
}
