/// What one HTTP/2 session may hold, with the reason for each number. Flow control is joined: the
/// peer may send only what somebody has consumed, so these windows are also memory limits.
package struct HTTP2Limits: Sendable {
    /// Streams that a peer may have open towards us; a client accepts none (no server push).
    package var concurrentStreamsMax: UInt32 = 100
    /// Name and value lengths plus 32 for each field (RFC 9113 §6.5.2); above it the stream is
    /// reset.
    package var headerListBytesMax = 16 * 1024
    package var fieldsMax = 100
    /// What one stream may send ahead of its consumer: a whole policy projection in few turns.
    package var streamWindowBytes: Int32 = 256 * 1024
    /// What all streams together may send ahead.
    package var connectionWindowBytes: Int32 = 1024 * 1024
    /// Bytes of request bodies that wait for the peer's window.
    package var outgoingBytesMax = 16 * 1024 * 1024
    /// Answers to PING and SETTINGS that a peer can make us queue before it is taken for an attack.
    package var outboundAcknowledgementsMax = 64

    package init() {}
}
