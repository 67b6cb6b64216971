import CNghttp2
import Glibc
import WeirCore

/// What nghttp2 tells of the client's frames. All of it runs inside of the session. False, where
/// something can be false, ends the connection: the client has used up one of its allowances.
extension HTTP2ServerConnection {
    private func stream(_ id: Int32) -> HTTP2ServerStream? {
        guard let session, let pointer = nghttp2_session_get_stream_user_data(session, id) else {
            return nil
        }
        // SAFETY: the streams that nghttp2 knows of are in `streams`.
        return Unmanaged<HTTP2ServerStream>.fromOpaque(pointer).takeUnretainedValue()
    }

    /// Counts what costs us and leads to nothing, before anything is done about it.
    func frameBegan(_ head: nghttp2_frame_hd) -> Bool {
        let now = worker.loop.nowNanoseconds
        switch UInt32(head.type) {
        case NGHTTP2_HEADERS.rawValue:
            continuations = 0
            return true
        case NGHTTP2_DATA.rawValue:
            let ends = head.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0
            return head.length > 0 || ends || idleFrames.take(nowNanoseconds: now)
        case NGHTTP2_WINDOW_UPDATE.rawValue: return windowUpdates.take(nowNanoseconds: now)
        case NGHTTP2_CONTINUATION.rawValue:
            continuations += 1
            return continuations <= HTTP2ServerLimits.continuationsMax
        case NGHTTP2_SETTINGS.rawValue:
            windowsBefore = widestWindows()
            return takeIdleFrame()
        default: return takeIdleFrame()
        }
    }

    private func widestWindows() -> StreamWindows {
        guard let session else { return StreamWindows() }
        let initial = nghttp2_session_get_remote_settings(
            session, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE)
        let widest = streams.lazy.map {
            nghttp2_session_get_stream_remote_window_size(session, $0.id)
        }.max()
        return StreamWindows(initial: Int64(initial), widest: widest.map(Int64.init))
    }

    /// RFC 9113 §6.9.2; nghttp2 resets the streams whose windows it cannot open so far.
    private func settingsReceived() {
        settingsCame()
        guard let widest = windowsBefore.widest else { return }
        let change = widestWindows().initial - windowsBefore.initial
        if widest + change > Int64(Int32.max) { misused(NGHTTP2_FLOW_CONTROL_ERROR) }
    }

    private func takeIdleFrame() -> Bool {
        idleFrames.take(nowNanoseconds: worker.loop.nowNanoseconds)
    }

    /// Something that nghttp2 answers with a reset (or the end).
    func frameRefused(_ head: nghttp2_frame_hd) -> Bool {
        // A stream above the limit is reset without having been opened.
        if UInt32(head.type) == NGHTTP2_HEADERS.rawValue, stream(head.stream_id) == nil {
            resetSent(head.stream_id)
        }
        return takeIdleFrame()
    }

    // MARK: Heads

    func headersBegan(_ frame: UnsafePointer<nghttp2_frame>) -> Bool {
        let id = frame.pointee.hd.stream_id
        blockBegan()
        guard frame.pointee.headers.cat == NGHTTP2_HCAT_REQUEST else {
            block = stream(id)
            assembler.begin(.trailers)
            return true
        }
        let stream = worker.takeHTTP2Stream(for: self)
        stream.open(id, on: self)
        stream.index = streams.count
        streams.append(stream)
        // SAFETY: the table holds the stream until nghttp2 has closed it.
        let pointer = Unmanaged.passUnretained(stream).toOpaque()
        guard let session, nghttp2_session_set_stream_user_data(session, id, pointer) == 0 else {
            return false
        }
        block = stream
        assembler.begin(.request)
        return true
    }

    func headerReceived(name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) -> Bool {
        guard block != nil else { return true }
        assembler.add(name: name, value: value)
        return assembler.progress.listBytes <= HTTP2ServerLimits.listBytesMax
    }

    func frameReceived(_ frame: UnsafePointer<nghttp2_frame>) -> Bool {
        let head = frame.pointee.hd
        let ends = head.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0
        switch UInt32(head.type) {
        case NGHTTP2_HEADERS.rawValue:
            guard let stream = block else { return true }
            block = nil
            let isRequest = frame.pointee.headers.cat == NGHTTP2_HCAT_REQUEST
            let result = assembler.finish(endsStream: ends)
            if isRequest {
                stream.begin(result, method: assembler.method, endsStream: ends)
            } else {
                stream.trailersCame(result)
            }
            if ends { stream.requestEnds() }
        case NGHTTP2_DATA.rawValue where ends: stream(head.stream_id)?.requestEnds()
        case NGHTTP2_SETTINGS.rawValue: settingsReceived()
        case NGHTTP2_PING.rawValue where head.flags & UInt8(NGHTTP2_FLAG_ACK.rawValue) != 0:
            pingAnswered()
        default: break
        }
        return true
    }

    // MARK: Bodies

    func dataReceived(_ id: Int32, _ bytes: UnsafeRawBufferPointer) {
        guard let stream = stream(id) else { return consume(id, bytes.count) }
        stream.take(bytes)
    }

    /// The bytes have gone on, and the client may send as many more.
    func consume(_ id: Int32, _ count: Int) {
        guard let session, count > 0 else { return }
        nghttp2_session_consume(session, id, count)
    }

    /// A DATA frame, from the stream's queue to the socket's without a buffer between them.
    func writeData(head: UnsafeRawBufferPointer, count: Int, of stream: HTTP2ServerStream) -> Int32
    {
        guard let connection, let room = connection.reserve(head.count + count),
            let target = room.baseAddress, let source = head.baseAddress
        else { return NGHTTP2_ERR_WOULDBLOCK.rawValue }
        memcpy(target, source, head.count)
        stream.moveBytes(count, to: target + head.count)
        connection.commit(head.count + count)
        windowUpdates.add(HTTP2ServerLimits.windowUpdatesPerData)
        return 0
    }

    // MARK: Ends

    func streamEndSent(_ id: Int32) { stream(id)?.responseIsSent() }

    func streamClosed(_ id: Int32) -> Bool {
        guard let stream = stream(id) else { return true }
        let index = stream.index
        let last = streams.removeLast()
        if index < streams.count {
            streams[index] = last
            last.index = index
        }
        if block === stream { block = nil }
        streamEnded(id)
        let isWhole = stream.isAnswered
        stream.closed()
        if isWhole || resets.take(nowNanoseconds: worker.loop.nowNanoseconds) { return true }
        // While it writes, an error would be the end without a goodbye.
        misused()
        return !isReading
    }
}

/// The windows that streams have towards the client, before its settings change them.
struct StreamWindows {
    var initial: Int64 = 0
    /// `nil` where no stream is open.
    var widest: Int64?
}
