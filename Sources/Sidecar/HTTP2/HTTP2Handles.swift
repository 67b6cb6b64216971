import CNghttp2

/// The table of callbacks that a session copies when it is made.
struct HTTP2Callbacks: ~Copyable {
    let raw: OpaquePointer

    init(empty: Void) throws(HTTP2Error) {
        var callbacks: OpaquePointer?
        guard nghttp2_session_callbacks_new(&callbacks) == 0, let callbacks else {
            throw .outOfMemory
        }
        raw = callbacks
    }

    init() throws(HTTP2Error) {
        try self.init(empty: ())
        nghttp2_session_callbacks_set_on_frame_recv_callback(raw, nghttp2OnFrameReceived)
        nghttp2_session_callbacks_set_on_begin_headers_callback(raw, nghttp2OnHeadersBegan)
        nghttp2_session_callbacks_set_on_header_callback(raw, nghttp2OnHeader)
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(raw, nghttp2OnData)
        nghttp2_session_callbacks_set_on_stream_close_callback(raw, nghttp2OnStreamClosed)
        nghttp2_session_callbacks_set_on_frame_not_send_callback(raw, nghttp2OnFrameNotSent)
    }

    deinit { nghttp2_session_callbacks_del(raw) }
}

struct HTTP2Options: ~Copyable {
    let raw: OpaquePointer

    init(_ limits: HTTP2Limits) throws(HTTP2Error) {
        var options: OpaquePointer?
        guard nghttp2_option_new(&options) == 0, let options else { throw .outOfMemory }
        raw = options
        // Windows are opened by `consume`, when the data has gone where it belongs.
        nghttp2_option_set_no_auto_window_update(raw, 1)
        nghttp2_option_set_max_outbound_ack(raw, limits.outboundAcknowledgementsMax)
        nghttp2_option_set_peer_max_concurrent_streams(raw, limits.concurrentStreamsMax)
    }

    deinit { nghttp2_option_del(raw) }
}

/// Fields as nghttp2 takes them; the pointers are valid inside `body` only.
func withNameValues<Result>(
    _ fields: [HTTP2Field], _ body: (UnsafeBufferPointer<nghttp2_nv>) -> Result
) -> Result {
    var storage: [UInt8] = []
    for field in fields {
        storage.append(contentsOf: field.name.utf8)
        storage.append(contentsOf: field.value.utf8)
    }
    // One byte more, so that the base address exists when every field is empty.
    storage.append(0)
    return storage.withUnsafeMutableBufferPointer { bytes in
        var offset = 0
        var pairs: [nghttp2_nv] = []
        for field in fields {
            let nameCount = field.name.utf8.count
            let valueCount = field.value.utf8.count
            let flag = field.isSecret ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE
            pairs.append(
                nghttp2_nv(
                    name: bytes.baseAddress.map { $0 + offset },
                    value: bytes.baseAddress.map { $0 + offset + nameCount },
                    namelen: nameCount, valuelen: valueCount, flags: UInt8(flag.rawValue)))
            offset += nameCount + valueCount
        }
        return pairs.withUnsafeBufferPointer(body)
    }
}
