import CNghttp2

/// The client's side of one HTTP/2 connection (RFC 9113), independent of sockets: bytes go in with
/// `receive`, bytes come out with `takeOutput`, and what the peer said comes out of `takeEvents`.
///
/// nghttp2 does framing, HPACK and the stream states. Its callbacks run inside `receive` and
/// `takeOutput`; they copy what they need into `events` and never call back into the session,
/// because nghttp2 must not be entered twice. Flow control is joined to the consumer: windows are
/// opened by `consume` only, so that a peer cannot make us hold more than `HTTP2Limits` says.
package final class HTTP2ClientSession {
    /// A request body on its way: whole, and sent as the peer's windows allow.
    private struct OutgoingBody {
        var bytes: [UInt8]
        var sent = 0
    }

    private let limits: HTTP2Limits
    private var session: OpaquePointer?
    private var events: [HTTP2Event] = []
    private var outgoing: [Int32: OutgoingBody] = [:]
    private var outgoingBytes = 0
    private var headers: [Int32: IncomingHeaders] = [:]
    /// Streams whose last event has not been queued.
    private var open: Set<Int32> = []

    package init(limits: HTTP2Limits = HTTP2Limits()) throws(HTTP2Error) {
        self.limits = limits
        let callbacks = try HTTP2Callbacks()
        let options = try HTTP2Options(limits)
        // SAFETY: the session is deleted in deinit and calls back only inside calls that this
        // object makes, so the unretained pointer never outlives the object.
        let user = Unmanaged.passUnretained(self).toOpaque()
        let result = nghttp2_session_client_new2(&session, callbacks.raw, user, options.raw)
        guard result == 0, let session else { throw .outOfMemory }
        var settings = [
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_ENABLE_PUSH.rawValue), value: 0),
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS.rawValue), value: 0),
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE.rawValue),
                value: UInt32(limits.streamWindowBytes)),
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE.rawValue),
                value: UInt32(limits.headerListBytesMax)),
        ]
        let submitted = nghttp2_submit_settings(
            session, UInt8(NGHTTP2_FLAG_NONE.rawValue), &settings, settings.count)
        let widened = nghttp2_session_set_local_window_size(
            session, UInt8(NGHTTP2_FLAG_NONE.rawValue), 0, limits.connectionWindowBytes)
        guard submitted == 0, widened == 0 else { throw .outOfMemory }
    }

    deinit { nghttp2_session_del(session) }

    // MARK: Bytes and events

    /// Takes what the peer sent. After an error nothing more may be received; output may be left.
    package func receive(_ bytes: UnsafeRawBufferPointer) throws(HTTP2Error) {
        guard let base = bytes.baseAddress, bytes.count > 0 else { return }
        let taken = nghttp2_session_mem_recv(
            session, base.assumingMemoryBound(to: UInt8.self), bytes.count)
        guard taken == bytes.count else {
            throw .protocolViolation(Int32(truncatingIfNeeded: taken))
        }
    }

    /// Everything learned since the last call. Take it after each `receive`: the number of events
    /// is bounded by the bytes of one.
    package func takeEvents() -> [HTTP2Event] {
        defer { events.removeAll(keepingCapacity: true) }
        return events
    }

    /// The next piece to send, at most some frames; empty when there is nothing to send now. `body`
    /// must copy what it cannot write at once.
    package func takeOutput(
        _ body: (UnsafeRawBufferPointer) -> Void
    ) throws(HTTP2Error) -> Bool {
        var data: UnsafePointer<UInt8>?
        let count = nghttp2_session_mem_send(session, &data)
        guard count >= 0 else { throw .protocolViolation(Int32(truncatingIfNeeded: count)) }
        guard count > 0, let data else { return false }
        body(UnsafeRawBufferPointer(start: data, count: count))
        return true
    }

    package var isFinished: Bool {
        nghttp2_session_want_read(session) == 0 && nghttp2_session_want_write(session) == 0
    }

    // MARK: Requests

    /// Opens a stream; the frames come out of `takeOutput`.
    package func submit(
        _ head: HTTP2RequestHead, body: [UInt8] = []
    ) throws(HTTP2Error) -> Int32 {
        guard outgoingBytes + body.count <= limits.outgoingBytesMax else { throw .outgoingFull }
        // After a GOAWAY nghttp2 would take the request and never send it.
        guard nghttp2_session_check_request_allowed(session) != 0 else {
            throw .streamRefused(NGHTTP2_ERR_START_STREAM_NOT_ALLOWED.rawValue)
        }
        let stream = submitRequest(head.allFields, hasBody: !body.isEmpty)
        guard stream > 0 else { throw .streamRefused(stream) }
        open.insert(stream)
        if !body.isEmpty {
            outgoing[stream] = OutgoingBody(bytes: body)
            outgoingBytes += body.count
        }
        return stream
    }

    private func submitRequest(_ fields: [HTTP2Field], hasBody: Bool) -> Int32 {
        // nghttp2 copies names and values before it returns.
        withNameValues(fields) { pairs in
            guard hasBody else {
                return nghttp2_submit_request(
                    session, nil, pairs.baseAddress, pairs.count, nil, nil)
            }
            var provider = nghttp2_data_provider()
            provider.read_callback = nghttp2OnBodyWanted
            return nghttp2_submit_request(
                session, nil, pairs.baseAddress, pairs.count, &provider, nil)
        }
    }

    /// Opens the windows by what somebody has taken of a stream's data. Harmless for a stream that
    /// is closed: the connection's window still needs it.
    package func consume(stream: Int32, _ count: Int) {
        nghttp2_session_consume(session, stream, count)
    }

    package func cancel(stream: Int32) {
        nghttp2_submit_rst_stream(
            session, UInt8(NGHTTP2_FLAG_NONE.rawValue), stream, NGHTTP2_CANCEL.rawValue)
    }

    package func ping(_ opaque: UInt64) {
        var bytes = opaque.bigEndian
        withUnsafeBytes(of: &bytes) {
            _ = nghttp2_submit_ping(
                session, UInt8(NGHTTP2_FLAG_NONE.rawValue),
                $0.baseAddress?.assumingMemoryBound(to: UInt8.self))
        }
    }

    /// Says goodbye; what is open may finish.
    package func shutDown() {
        nghttp2_session_terminate_session(session, NGHTTP2_NO_ERROR.rawValue)
    }

    // MARK: From the callbacks

    fileprivate func frameReceived(_ frame: UnsafePointer<nghttp2_frame>) {
        let head = frame.pointee.hd
        switch UInt32(head.type) {
        case NGHTTP2_SETTINGS.rawValue where head.flags & UInt8(NGHTTP2_FLAG_ACK.rawValue) == 0:
            events.append(.settings)
        case NGHTTP2_PING.rawValue where head.flags & UInt8(NGHTTP2_FLAG_ACK.rawValue) != 0:
            let opaque = withUnsafeBytes(of: frame.pointee.ping.opaque_data) {
                UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self))
            }
            events.append(.pong(opaque))
        case NGHTTP2_GOAWAY.rawValue:
            let goAway = frame.pointee.goaway
            events.append(
                .goAway(lastStream: goAway.last_stream_id, errorCode: goAway.error_code))
        case NGHTTP2_HEADERS.rawValue: headersEnded(head.stream_id)
        default: break
        }
    }

    private func headersEnded(_ stream: Int32) {
        guard let received = headers.removeValue(forKey: stream) else { return }
        guard let status = received.status else {
            events.append(.trailers(stream: stream, fields: received.fields))
            return
        }
        // Informational responses are not for us; the final head follows.
        guard status >= 200 else { return }
        events.append(.head(stream: stream, status: status, fields: received.fields))
    }

    fileprivate func headersBegan(_ stream: Int32) {
        headers[stream] = IncomingHeaders()
    }

    /// False when the list is longer than the limits allow.
    fileprivate func headerReceived(_ stream: Int32, name: String, value: String) -> Bool {
        guard headers[stream] != nil else { return false }
        return headers[stream]?.add(name, value, limits) ?? false
    }

    fileprivate func dataReceived(_ stream: Int32, _ bytes: UnsafeBufferPointer<UInt8>) {
        events.append(.data(stream: stream, Array(bytes)))
    }

    fileprivate func streamClosed(_ stream: Int32, errorCode: UInt32) {
        headers[stream] = nil
        if let body = outgoing.removeValue(forKey: stream) { outgoingBytes -= body.bytes.count }
        guard open.remove(stream) != nil else { return }
        events.append(.closed(stream: stream, errorCode: errorCode))
    }

    /// Copies the next piece of a body; second result: whether it was the last.
    fileprivate func bodyWanted(
        _ stream: Int32, into buffer: UnsafeMutableBufferPointer<UInt8>
    ) -> (count: Int, isLast: Bool) {
        guard var body = outgoing[stream] else { return (0, true) }
        let count = min(buffer.count, body.bytes.count - body.sent)
        _ = buffer.update(fromContentsOf: body.bytes[body.sent..<body.sent + count])
        body.sent += count
        let isLast = body.sent == body.bytes.count
        if isLast {
            outgoing[stream] = nil
            outgoingBytes -= body.bytes.count
        } else {
            outgoing[stream]?.sent = body.sent
        }
        return (count, isLast)
    }
}

/// One header section as it arrives.
private struct IncomingHeaders {
    var status: Int?
    var fields: [HTTP2Field] = []
    var bytes = 0

    mutating func add(_ name: String, _ value: String, _ limits: HTTP2Limits) -> Bool {
        bytes += name.utf8.count + value.utf8.count + 32
        guard bytes <= limits.headerListBytesMax, fields.count < limits.fieldsMax else {
            return false
        }
        if name == ":status" {
            status = Int(value)
        } else {
            fields.append(HTTP2Field(name, value))
        }
        return true
    }
}

// MARK: - Callbacks of nghttp2

// SAFETY, for all of them: `user` is the session object that made the call into nghttp2, alive for
// that call; frame, name, value and data pointers are valid for the callback only, and are copied.

private func session(_ user: UnsafeMutableRawPointer?) -> HTTP2ClientSession? {
    user.map { Unmanaged<HTTP2ClientSession>.fromOpaque($0).takeUnretainedValue() }
}

let nghttp2OnFrameReceived: nghttp2_on_frame_recv_callback = { _, frame, user in
    if let frame { session(user)?.frameReceived(frame) }
    return 0
}

let nghttp2OnHeadersBegan: nghttp2_on_begin_headers_callback = { _, frame, user in
    if let frame { session(user)?.headersBegan(frame.pointee.hd.stream_id) }
    return 0
}

let nghttp2OnHeader: nghttp2_on_header_callback = {
    _, frame, name, nameCount, value, valueCount, _, user in
    guard let frame, let name, let value, let session = session(user) else { return 0 }
    let kept = session.headerReceived(
        frame.pointee.hd.stream_id,
        name: String(decoding: UnsafeBufferPointer(start: name, count: nameCount), as: UTF8.self),
        value: String(
            decoding: UnsafeBufferPointer(start: value, count: valueCount), as: UTF8.self))
    // Resets this stream and leaves the others alone.
    return kept ? 0 : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue
}

let nghttp2OnData: nghttp2_on_data_chunk_recv_callback = { _, _, stream, data, count, user in
    session(user)?.dataReceived(stream, UnsafeBufferPointer(start: data, count: count))
    return 0
}

let nghttp2OnStreamClosed: nghttp2_on_stream_close_callback = { _, stream, errorCode, user in
    session(user)?.streamClosed(stream, errorCode: errorCode)
    return 0
}

/// A request that waited for its turn when the peer said goodbye: it never had a stream to close.
let nghttp2OnFrameNotSent: nghttp2_on_frame_not_send_callback = { _, frame, _, user in
    guard let head = frame?.pointee.hd, UInt32(head.type) == NGHTTP2_HEADERS.rawValue else {
        return 0
    }
    session(user)?.streamClosed(head.stream_id, errorCode: NGHTTP2_REFUSED_STREAM.rawValue)
    return 0
}

let nghttp2OnBodyWanted: nghttp2_data_source_read_callback = {
    _, stream, buffer, capacity, flags, _, user in
    guard let session = session(user), let buffer else { return 0 }
    let (count, isLast) = session.bodyWanted(
        stream, into: UnsafeMutableBufferPointer(start: buffer, count: capacity))
    if isLast { flags?.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue }
    return count
}
