import CNghttp2

/// What nghttp2 calls for connections to upstreams.
enum HTTP2UpstreamCallbacks {
    /// A session whose preface and SETTINGS are ready to be sent.
    static func makeSession(
        for connection: HTTP2UpstreamConnection
    ) throws(HTTP2Error) -> OpaquePointer {
        var limits = HTTP2Limits()
        limits.outboundAcknowledgementsMax = Limits.outboundAcknowledgementsMax
        let options = try HTTP2Options(limits)
        let callbacks = try HTTP2Callbacks(empty: ())
        set(callbacks.raw)
        var session: OpaquePointer?
        // SAFETY: the session is deleted in the connection's deinit and calls back only inside of
        // calls that the connection makes, so the unretained pointer never outlives it.
        let user = Unmanaged.passUnretained(connection).toOpaque()
        let result = nghttp2_session_client_new2(&session, callbacks.raw, user, options.raw)
        guard result == 0, let session else { throw .outOfMemory }
        guard submitSettings(session) else {
            nghttp2_session_del(session)
            throw .outOfMemory
        }
        return session
    }

    private static func set(_ callbacks: OpaquePointer) {
        nghttp2_session_callbacks_set_on_frame_recv_callback(
            callbacks, nghttp2OnUpstreamFrame)
        nghttp2_session_callbacks_set_on_begin_headers_callback(
            callbacks, nghttp2OnUpstreamHeadersBegan)
        nghttp2_session_callbacks_set_on_header_callback(callbacks, nghttp2OnUpstreamHeader)
        nghttp2_session_callbacks_set_on_invalid_header_callback(
            callbacks, nghttp2OnUpstreamInvalidHeader)
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
            callbacks, nghttp2OnUpstreamData)
        nghttp2_session_callbacks_set_on_stream_close_callback(
            callbacks, nghttp2OnUpstreamStreamClosed)
        nghttp2_session_callbacks_set_on_frame_not_send_callback(
            callbacks, nghttp2OnUpstreamFrameNotSent)
        nghttp2_session_callbacks_set_send_data_callback(callbacks, nghttp2OnUpstreamSendData)
    }

    private static func submitSettings(_ session: OpaquePointer) -> Bool {
        var settings = [
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_ENABLE_PUSH.rawValue), value: 0),
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS.rawValue), value: 0),
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE.rawValue),
                value: UInt32(Limits.upstreamStreamWindowBytes)),
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE.rawValue),
                value: UInt32(Limits.headBytesMax)),
        ]
        let none = UInt8(NGHTTP2_FLAG_NONE.rawValue)
        let submitted = nghttp2_submit_settings(session, none, &settings, settings.count)
        let widened = nghttp2_session_set_local_window_size(
            session, none, 0, Limits.upstreamConnectionWindowBytes)
        return submitted == 0 && widened == 0
    }
}

// SAFETY, for all of them: `user` is the connection that made the call into nghttp2, alive for that
// call; a stream's pointer is valid until its end was reported (`HTTP2UpstreamStream.pointer`);
// frame, name, value and data pointers are valid for the callback only, and are copied or used up.

private func connection(_ user: UnsafeMutableRawPointer?) -> HTTP2UpstreamConnection? {
    user.map { Unmanaged<HTTP2UpstreamConnection>.fromOpaque($0).takeUnretainedValue() }
}

private func stream(_ pointer: UnsafeMutableRawPointer?) -> HTTP2UpstreamStream? {
    pointer.map { Unmanaged<HTTP2UpstreamStream>.fromOpaque($0).takeUnretainedValue() }
}

private func stream(_ session: OpaquePointer?, _ id: Int32) -> HTTP2UpstreamStream? {
    stream(nghttp2_session_get_stream_user_data(session, id))
}

let nghttp2OnUpstreamFrame: nghttp2_on_frame_recv_callback = { session, frame, user in
    guard let frame, let connection = connection(user) else { return 0 }
    let head = frame.pointee.hd
    let endsStream = head.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0
    let isAcknowledgement = head.flags & UInt8(NGHTTP2_FLAG_ACK.rawValue) != 0
    if UInt32(head.type) == NGHTTP2_PING.rawValue { return 0 }
    connection.frameReceived()
    switch UInt32(head.type) {
    case NGHTTP2_DATA.rawValue where endsStream:
        stream(session, head.stream_id)?.responseIsWhole(nil)
    case NGHTTP2_HEADERS.rawValue:
        if let stream = stream(session, head.stream_id) {
            connection.headersEnded(stream, endsStream: endsStream)
        }
    case NGHTTP2_RST_STREAM.rawValue: stream(session, head.stream_id)?.resetReceived()
    case NGHTTP2_SETTINGS.rawValue where !isAcknowledgement: connection.settingsReceived()
    case NGHTTP2_GOAWAY.rawValue: connection.goAwayReceived()
    default: break
    }
    return 0
}

let nghttp2OnUpstreamHeadersBegan: nghttp2_on_begin_headers_callback = { session, frame, user in
    if let frame, let stream = stream(session, frame.pointee.hd.stream_id) {
        connection(user)?.headersBegan(stream)
    }
    return 0
}

let nghttp2OnUpstreamHeader: nghttp2_on_header_callback = {
    _, _, name, nameCount, value, valueCount, _, user in
    let isTaken =
        connection(user)?.fieldReceived(
            UnsafeRawBufferPointer(start: name, count: nameCount),
            UnsafeRawBufferPointer(start: value, count: valueCount)) ?? false
    // Resets this stream and leaves the others alone.
    return isTaken ? 0 : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue
}

/// Without it nghttp2 would leave the field out and go on.
let nghttp2OnUpstreamInvalidHeader: nghttp2_on_invalid_header_callback = {
    _, _, _, _, _, _, _, _ in NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue
}

let nghttp2OnUpstreamData: nghttp2_on_data_chunk_recv_callback = {
    session, _, id, data, count, _ in
    // What one stream holds back must not stop the others.
    nghttp2_session_consume_connection(session, count)
    stream(session, id)?.dataReceived(UnsafeRawBufferPointer(start: data, count: count))
    return 0
}

let nghttp2OnUpstreamStreamClosed: nghttp2_on_stream_close_callback = { session, id, code, _ in
    stream(session, id)?.closed(code)
    return 0
}

/// A request that waited for its turn when the peer said goodbye: it never had a stream to close.
let nghttp2OnUpstreamFrameNotSent: nghttp2_on_frame_not_send_callback = { _, frame, _, user in
    if let head = frame?.pointee.hd, UInt32(head.type) == NGHTTP2_HEADERS.rawValue {
        connection(user)?.notSent(head.stream_id)
    }
    return 0
}

let nghttp2OnUpstreamBodyWanted: nghttp2_data_source_read_callback = {
    _, _, _, capacity, flags, source, _ in
    guard let flags, let stream = stream(source?.pointee.ptr) else {
        return Int(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
    }
    guard let count = stream.bodyWanted(capacity) else {
        return Int(NGHTTP2_ERR_DEFERRED.rawValue)
    }
    flags.pointee |= NGHTTP2_DATA_FLAG_NO_COPY.rawValue
    if stream.isLast(count) {
        flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue
        if stream.bodyEnded() { flags.pointee |= NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue }
    }
    return count
}

let nghttp2OnUpstreamSendData: nghttp2_send_data_callback = {
    _, _, frameHead, count, source, _ in
    stream(source?.pointee.ptr)?.sendFrame(
        UnsafeRawBufferPointer(start: frameHead, count: 9), count)
    return 0
}
