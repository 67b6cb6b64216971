/// One field of a message; names in lower case (RFC 9113 §8.2.1).
package struct HTTP2Field: Hashable, Sendable {
    package var name: String
    package var value: String
    /// Never entered in the compression table (RFC 7541 §7.1.3): credentials.
    package var isSecret: Bool

    package init(_ name: String, _ value: String, isSecret: Bool = false) {
        self.name = name
        self.value = value
        self.isSecret = isSecret
    }
}

package struct HTTP2RequestHead: Hashable, Sendable {
    package var method: String
    package var scheme = "http"
    package var authority: String
    package var path: String
    package var fields: [HTTP2Field]

    package init(method: String, authority: String, path: String, fields: [HTTP2Field] = []) {
        self.method = method
        self.authority = authority
        self.path = path
        self.fields = fields
    }

    var allFields: [HTTP2Field] {
        [
            HTTP2Field(":method", method), HTTP2Field(":scheme", scheme),
            HTTP2Field(":authority", authority), HTTP2Field(":path", path),
        ] + fields
    }
}

/// What a session learned from the bytes that it was given, in their order.
package enum HTTP2Event: Equatable, Sendable {
    /// The peer's first or later SETTINGS: from the first one on, the connection is known to work.
    case settings
    /// The final response head.
    case head(stream: Int32, status: Int, fields: [HTTP2Field])
    /// Counts against the windows until `consume`.
    case data(stream: Int32, [UInt8])
    case trailers(stream: Int32, fields: [HTTP2Field])
    /// The last event of a stream. 0 is a whole exchange; anything else an error code of RFC 9113
    /// §7.
    case closed(stream: Int32, errorCode: UInt32)
    case pong(UInt64)
    /// No new streams; those above `lastStream` were not processed and may be sent again elsewhere.
    case goAway(lastStream: Int32, errorCode: UInt32)
}

/// The session is of no use any more, or one call was refused.
package enum HTTP2Error: Error, Equatable, Sendable {
    /// The peer broke the protocol; nghttp2's code. Send what is left to send, then close.
    case protocolViolation(Int32)
    /// Bodies that wait for the peer's window reached their limit.
    case outgoingFull
    /// No stream can be opened: the peer said goodbye, or stream numbers ran out.
    case streamRefused(Int32)
    case outOfMemory
}
