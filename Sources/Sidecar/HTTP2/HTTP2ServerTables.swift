import CNghttp2

/// What every session of a worker is made with. nghttp2 copies both when it makes a session.
final class HTTP2ServerTables {
    private let callbacks: OpaquePointer
    private let options: OpaquePointer

    init() throws(HTTP2Error) {
        var callbacks: OpaquePointer?
        var options: OpaquePointer?
        guard nghttp2_session_callbacks_new(&callbacks) == 0, let callbacks else {
            throw .outOfMemory
        }
        guard nghttp2_option_new(&options) == 0, let options else {
            nghttp2_session_callbacks_del(callbacks)
            throw .outOfMemory
        }
        self.callbacks = callbacks
        self.options = options
        nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, serverFrameBegan)
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, serverFrameReceived)
        nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, serverFrameInvalid)
        nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, serverHeadersBegan)
        nghttp2_session_callbacks_set_on_header_callback(callbacks, serverHeader)
        nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, serverHeaderInvalid)
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, serverData)
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, serverStreamClosed)
        nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, serverFrameSent)
        nghttp2_session_callbacks_set_send_data_callback(callbacks, serverSendData)
        // Windows are opened when bytes have gone where they belong.
        nghttp2_option_set_no_auto_window_update(options, 1)
        nghttp2_option_set_max_outbound_ack(options, HTTP2ServerLimits.acknowledgementsMax)
        nghttp2_option_set_max_settings(options, HTTP2ServerLimits.settingsMax)
        // `HTTP2ServerLimits.resets` counts them, and answers with the error code that fits.
        nghttp2_option_set_stream_reset_rate_limit(options, 1 << 40, 1 << 20)
    }

    deinit {
        nghttp2_session_callbacks_del(callbacks)
        nghttp2_option_del(options)
    }

    /// A session whose first frames are queued. `user` gets the callbacks.
    func makeSession(user: UnsafeMutableRawPointer) throws(HTTP2Error) -> OpaquePointer {
        var session: OpaquePointer?
        guard nghttp2_session_server_new2(&session, callbacks, user, options) == 0, let session
        else { throw .outOfMemory }
        var settings = [
            Self.setting(
                NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, HTTP2ServerLimits.streamsMax),
            Self.setting(
                NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, UInt32(HTTP2ServerLimits.streamWindowBytes)),
            Self.setting(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, UInt32(Limits.headBytesMax)),
            // The tree of RFC 7540 costs time with every frame, and almost nobody asks for it.
            Self.setting(NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1),
        ]
        let submitted = nghttp2_submit_settings(
            session, UInt8(NGHTTP2_FLAG_NONE.rawValue), &settings, settings.count)
        let widened = nghttp2_session_set_local_window_size(
            session, UInt8(NGHTTP2_FLAG_NONE.rawValue), 0, HTTP2ServerLimits.connectionWindowBytes)
        guard submitted == 0, widened == 0 else {
            nghttp2_session_del(session)
            throw .outOfMemory
        }
        return session
    }

    private static func setting(
        _ id: nghttp2_settings_id, _ value: UInt32
    ) -> nghttp2_settings_entry {
        nghttp2_settings_entry(settings_id: Int32(id.rawValue), value: value)
    }
}

// MARK: - Callbacks

// SAFETY, for all of them: `user` is the connection that made the call into nghttp2 and lives until
// the call returns; pointers are valid for the callback only. The reference is borrowed, because a
// counted one would cost two atomic operations with each field.

@inline(__always)
private func connection<Result>(
    _ user: UnsafeMutableRawPointer?, _ body: (HTTP2ServerConnection) -> Result
) -> Result {
    guard let user else { preconditionFailure("a session without its connection") }
    return Unmanaged<HTTP2ServerConnection>.fromOpaque(user)._withUnsafeGuaranteedRef(body)
}

@inline(__always)
private func result(_ isFine: Bool) -> Int32 {
    isFine ? 0 : Int32(NGHTTP2_ERR_CALLBACK_FAILURE.rawValue)
}

private let serverFrameBegan: nghttp2_on_begin_frame_callback = { _, head, user in
    guard let head else { return 0 }
    return result(connection(user) { $0.frameBegan(head.pointee) })
}

private let serverFrameReceived: nghttp2_on_frame_recv_callback = { _, frame, user in
    guard let frame else { return 0 }
    return result(connection(user) { $0.frameReceived(frame) })
}

private let serverFrameInvalid: nghttp2_on_invalid_frame_recv_callback = { _, frame, _, user in
    guard let head = frame?.pointee.hd else { return 0 }
    return result(connection(user) { $0.frameRefused(head) })
}

private let serverHeadersBegan: nghttp2_on_begin_headers_callback = { _, frame, user in
    guard let frame else { return 0 }
    return result(connection(user) { $0.headersBegan(frame) })
}

private let serverHeader: nghttp2_on_header_callback = {
    _, _, name, nameCount, value, valueCount, _, user in
    result(
        connection(user) {
            $0.headerReceived(
                name: UnsafeRawBufferPointer(start: name, count: nameCount),
                value: UnsafeRawBufferPointer(start: value, count: valueCount))
        })
}

/// Bytes that no field may have: nghttp2 would leave the field out, and we refuse the message (RFC
/// 9113 §8.2.1, §8.1.1).
private let serverHeaderInvalid: nghttp2_on_invalid_header_callback = { _, _, _, _, _, _, _, _ in
    NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue
}

private let serverData: nghttp2_on_data_chunk_recv_callback = { _, _, stream, data, count, user in
    connection(user) { $0.dataReceived(stream, UnsafeRawBufferPointer(start: data, count: count)) }
    return 0
}

private let serverStreamClosed: nghttp2_on_stream_close_callback = { _, stream, _, user in
    result(connection(user) { $0.streamClosed(stream) })
}

private let serverFrameSent: nghttp2_on_frame_send_callback = { _, frame, user in
    guard let head = frame?.pointee.hd else { return 0 }
    switch UInt32(head.type) {
    case NGHTTP2_DATA.rawValue, NGHTTP2_HEADERS.rawValue:
        if head.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0 {
            connection(user) { $0.streamEndSent(head.stream_id) }
        }
    case NGHTTP2_RST_STREAM.rawValue: connection(user) { $0.resetSent(head.stream_id) }
    case NGHTTP2_GOAWAY.rawValue: connection(user) { $0.goodbyeSent() }
    default: break
    }
    return 0
}

/// How much of a stream's bytes the next DATA frame takes; `serverSendData` writes them.
let serverBodyWanted: nghttp2_data_source_read_callback = { _, _, _, limit, flags, source, _ in
    guard let flags, let pointer = source?.pointee.ptr else { return 0 }
    // SAFETY: the stream is in its connection's table for as long as nghttp2 knows of it.
    return Unmanaged<HTTP2ServerStream>.fromOpaque(pointer)._withUnsafeGuaranteedRef {
        $0.bytesForFrame(limit, &flags.pointee)
    }
}

private let serverSendData: nghttp2_send_data_callback = { _, _, head, count, source, user in
    guard let head, let pointer = source?.pointee.ptr else { return 0 }
    // SAFETY: as above; the head of a frame has nine bytes (RFC 9113 §4.1).
    return Unmanaged<HTTP2ServerStream>.fromOpaque(pointer)._withUnsafeGuaranteedRef { stream in
        connection(user) {
            $0.writeData(
                head: UnsafeRawBufferPointer(start: head, count: 9), count: count, of: stream)
        }
    }
}
