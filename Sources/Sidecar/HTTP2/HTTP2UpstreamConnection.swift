import CNghttp2
import Glibc
import WeirCore

/// A pooled HTTP/2 connection to an upstream (RFC 9113): many exchanges at once, one stream each.
///
/// nghttp2 does framing, HPACK and the stream states; what it reports goes straight to the streams,
/// so that nothing is queued or copied between a frame and the client that it is for. Its callbacks
/// run inside of `mem_recv` and `mem_send`, which must not be entered from there: what they set off
/// is submitted, and goes out in the next turn of `produce`.
///
///     greeting ──SETTINGS──► open ──GOAWAY, retired──► leaving ──last stream──► closed
///
/// The first SETTINGS is waited for: it says how many streams the peer takes, and that it speaks
/// HTTP/2 at all, before a request depends on either.
package final class HTTP2UpstreamConnection: OutputSource {
    private enum Phase { case greeting, open, leaving, closed }

    unowned(unsafe) let worker: Worker
    let target: UpstreamTarget
    let endpoint: Endpoint
    private var connection: Connection?
    private var opening: UpstreamOpening?
    private(set) var session: OpaquePointer?
    /// Some stream has been answered.
    var hasServed = false
    private var phase = Phase.greeting

    /// Those that nghttp2 may still speak of, and those that are about to begin.
    private var streams: ContiguousArray<HTTP2UpstreamStream> = []
    private var spare: ContiguousArray<HTTP2UpstreamStream> = []
    private static let spareMax = 32
    private var streamsMax = 0

    /// The header block that has begun, and what came of it before the end of a read.
    private var isInBlock = false
    private var block = ByteQueue()
    private var blockProgress = HTTP2HeadAssembler.Progress()

    /// Inside of a call of nghttp2.
    private var isEntered = false
    private var hasRoomAgain = false
    private var isBroken = false
    private var drainedStreams: ContiguousArray<HTTP2UpstreamStream> = []

    /// Servers of gRPC take PINGs without traffic between them for abuse.
    private var liveness: HTTP2Liveness

    /// `connection` is open, and its owner from now on is this object.
    init(
        _ target: UpstreamTarget, _ endpoint: Endpoint, _ connection: Connection,
        opening: UpstreamOpening
    ) {
        worker = target.worker
        self.target = target
        self.endpoint = endpoint
        self.connection = connection
        self.opening = opening
        liveness = HTTP2Liveness(
            silence: target.timeouts.upstreamSilenceNanoseconds,
            patience: target.timeouts.upstreamPongNanoseconds,
            lonePause: Limits.lonePingNanoseconds, now: target.worker.loop.nowNanoseconds)
    }

    deinit { nghttp2_session_del(session) }

    /// Sends the preface and our SETTINGS. The deadline of the connect goes on.
    func start() {
        do {
            session = try HTTP2UpstreamCallbacks.makeSession(for: self)
        } catch {
            return fail(.noMemory)
        }
        worker.produceLater(self)
    }

    var bytesWritten: UInt64 { connection?.bytesWritten ?? .max }

    // MARK: Streams

    var hasRoom: Bool { phase == .open && streams.count < streamsMax }

    /// A stream that has not begun; `nil` when the peer takes no more of them now.
    func takeStream() -> HTTP2UpstreamStream? {
        guard hasRoom, let session else { return nil }
        // The numbers of streams run out in the end.
        guard nghttp2_session_check_request_allowed(session) != 0 else {
            leave()
            return nil
        }
        let stream = spare.popLast() ?? HTTP2UpstreamStream(self)
        stream.index = streams.count
        streams.append(stream)
        return stream
    }

    /// Begins the request on the wire. False: there is no memory for it.
    func submit(_ stream: HTTP2UpstreamStream, _ exchange: Exchange, hasBody: Bool) -> Bool {
        guard let session else { return false }
        let head = exchange.requestHead
        let bytes = RequestHeadWriter.bytesMax(exchange, head)
        guard let slab = worker.loop.pool.lend(atLeast: bytes) else { return false }
        defer { worker.loop.pool.giveBack(slab) }
        let values = worker.nameValues
        values.reset()
        addPseudoFields(exchange, head, to: values)
        let room = UnsafeMutableRawBufferPointer(start: slab.base, count: slab.capacity)
        guard RequestHeadWriter.write(exchange, to: values, room: room) else { return false }
        var provider = nghttp2_data_provider()
        provider.source.ptr = stream.pointer
        provider.read_callback = nghttp2OnUpstreamBodyWanted
        let id = withUnsafePointer(to: &provider) { provider in
            nghttp2_submit_request(
                session, nil, values.pairs, values.count, hasBody ? provider : nil, stream.pointer)
        }
        guard id > 0 else { return false }
        stream.id = id
        // Otherwise silence is being looked into already.
        if streams.count == 1 { setDeadline(target.timeouts.upstreamSilenceNanoseconds) }
        worker.produceLater(self)
        return true
    }

    private func addPseudoFields(
        _ exchange: Exchange, _ head: HTTPHead, to values: HTTP2NameValues
    ) {
        values.add(":method", head.bytes(head.methodRange))
        values.add(":scheme", target.isSecure ? "https" : "http")
        values.add(":authority") { writer in
            if var host = exchange.target?.hostOverride {
                host.withUTF8 { writer.write(UnsafeRawBufferPointer($0)) }
            } else if head.host.isEmpty {
                writer.write("localhost")
            } else {
                writer.write(head.bytes(head.host))
            }
        }
        values.add(":path") { RequestHeadWriter.writeTarget(exchange, head, &$0) }
    }

    func resumeBody(of stream: HTTP2UpstreamStream) {
        guard let session else { return }
        nghttp2_session_resume_data(session, stream.id)
        worker.produceLater(self)
    }

    func reset(_ stream: HTTP2UpstreamStream) {
        guard let session else { return }
        nghttp2_submit_rst_stream(
            session, UInt8(NGHTTP2_FLAG_NONE.rawValue), stream.id, NGHTTP2_CANCEL.rawValue)
        worker.produceLater(self)
    }

    func consumed(_ count: Int, of stream: HTTP2UpstreamStream) {
        guard let session, count > 0 else { return }
        nghttp2_session_consume_stream(session, stream.id, count)
        worker.produceLater(self)
    }

    /// nghttp2 has forgotten the stream, or never knew it.
    func ended(_ stream: HTTP2UpstreamStream) {
        let index = stream.index
        guard index >= 0, index < streams.count else { return }
        stream.index = -1
        let last = streams.removeLast()
        if index < streams.count {
            streams[index] = last
            last.index = index
        }
        if spare.count < Self.spareMax, phase != .closed {
            spare.append(stream)
        } else {
            stream.dispose()
        }
        hasRoomAgain = true
        // From inside of a call of nghttp2 `settle` follows anyway.
        worker.produceLater(self)
    }

    // MARK: Bytes

    override func received(_ bytes: UnsafeRawBufferPointer) -> Int {
        guard let session, let base = bytes.baseAddress, !isBroken else { return bytes.count }
        liveness.heard(now: worker.loop.nowNanoseconds)
        let pool = worker.loop.pool
        if isInBlock { worker.headAssembler.resume(blockProgress, from: &block, pool: pool) }
        isEntered = true
        let taken = nghttp2_session_mem_recv(
            session, base.assumingMemoryBound(to: UInt8.self), bytes.count)
        isEntered = false
        if taken != bytes.count { isBroken = true }
        if isInBlock {
            // Other connections use the assembler before the rest of the block comes.
            blockProgress = worker.headAssembler.progress
            if !worker.headAssembler.park(in: &block, pool: pool) { isBroken = true }
        }
        settle()
        return bytes.count
    }

    override func produce() {
        guard !isEntered, let session, let connection else { return }
        isEntered = true
        while !connection.isCongested {
            var data: UnsafePointer<UInt8>?
            let count = nghttp2_session_mem_send(session, &data)
            if count < 0 { isBroken = true }
            guard count > 0 else { break }
            connection.emit(UnsafeRawBufferPointer(start: data, count: count))
        }
        isEntered = false
        settle()
    }

    override func drained() { worker.produceLater(self) }

    /// What a call of nghttp2 set off and could not do itself.
    private func settle() {
        while let stream = drainedStreams.popLast() { stream.bodyDrained() }
        if isBroken { return fail(.protocolError) }
        guard let session else { return }
        if phase == .greeting, streamsMax > 0 { opened() }
        if hasRoomAgain {
            hasRoomAgain = false
            if phase == .open { target.serveWaiting(self) }
        }
        if streams.isEmpty, phase == .open || phase == .leaving { becameIdle() }
        if nghttp2_session_want_write(session) != 0 {
            worker.produceLater(self)
        } else if nghttp2_session_want_read(session) == 0 {
            // A GOAWAY of either side, and nothing is left to be done.
            fail(.closedBeforeAnswer)
        }
    }

    private func opened() {
        phase = .open
        target.share(self)
        let opening = self.opening
        self.opening = nil
        setDeadline(target.timeouts.upstreamSilenceNanoseconds)
        opening?.completed(self)
    }

    private func becameIdle() {
        if phase == .leaving { return close() }
        setDeadline(target.timeouts.http2IdleNanoseconds)
    }

    // MARK: Frames

    func settingsReceived() {
        guard let session else { return }
        let said = nghttp2_session_get_remote_settings(
            session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS)
        streamsMax = min(Int(said), Limits.streamsPerConnection)
        hasRoomAgain = true
        // A peer that takes none now cannot be waited for.
        if phase == .greeting, streamsMax == 0 { isBroken = true }
    }

    func goAwayReceived() { leave() }

    /// Any frame but the answer to a PING.
    func frameReceived() { liveness.frameCame() }

    func headersBegan(_ stream: HTTP2UpstreamStream) {
        isInBlock = true
        worker.headAssembler.begin(stream.hasHead ? .trailers : .response)
    }

    /// False when the stream is to be reset for it.
    func fieldReceived(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> Bool {
        guard isInBlock else { return false }
        worker.headAssembler.add(name: name, value: value)
        if worker.headAssembler.progress.failure == nil { return true }
        isInBlock = false
        return false
    }

    func headersEnded(_ stream: HTTP2UpstreamStream, endsStream: Bool) {
        guard isInBlock else { return }
        isInBlock = false
        switch worker.headAssembler.finish(endsStream: endsStream) {
        case .failure: stream.failed(.protocolError)
        case .success(let head) where stream.hasHead:
            // What must not stand in trailers is left out behind this, as in HTTP/1.1.
            guard endsStream else { return stream.failed(.protocolError) }
            stream.responseIsWhole(head.fieldCount == 0 ? nil : head)
        case .success(let head): stream.headReceived(head, endsStream: endsStream)
        }
    }

    func emit(_ frameHead: UnsafeRawBufferPointer, _ bytes: UnsafeRawBufferPointer) {
        connection?.emit(frameHead)
        connection?.emit(bytes)
    }

    /// nghttp2 will not send this request: the peer has said goodbye, or it was cancelled.
    func notSent(_ id: Int32) {
        streams.first { $0.id == id }?.closed(NGHTTP2_REFUSED_STREAM.rawValue)
    }

    func drainedLater(_ stream: HTTP2UpstreamStream) { drainedStreams.append(stream) }

    // MARK: Liveness

    private func setDeadline(_ nanoseconds: UInt64) {
        guard let connection else { return }
        worker.loop.setDeadline(connection, afterNanoseconds: nanoseconds)
    }

    /// While streams are open, silence is looked into.
    private func watch() {
        guard phase == .open || phase == .leaving else { return }
        switch liveness.step(now: worker.loop.nowNanoseconds) {
        case .wait(let nanoseconds): setDeadline(nanoseconds)
        case .ping(let nanoseconds):
            nghttp2_submit_ping(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), nil)
            worker.produceLater(self)
            setDeadline(nanoseconds)
        case .giveUp: fail(.closedBeforeAnswer)
        }
    }

    override func deadlinePassed() {
        switch phase {
        case .greeting: fail(.connectTimeout)
        case .open, .leaving:
            if streams.isEmpty { close() } else { watch() }
        case .closed: break
        }
    }

    // MARK: The end

    override func ended() { fail(.closedBeforeAnswer) }
    override func failed(_ code: Int32) {
        fail(phase == .greeting ? .connectFailed(code) : .closedBeforeAnswer)
    }

    /// No new streams. What is under way goes on.
    func retire() {
        leave()
        if streams.isEmpty { worker.produceLater(self) }
    }

    private func leave() {
        guard phase == .open else { return }
        phase = .leaving
        target.unshare(self)
    }

    /// Says goodbye, as far as the socket takes it at once.
    private func close() {
        guard let session, let connection, !isEntered else { return }
        nghttp2_session_terminate_session(session, NGHTTP2_NO_ERROR.rawValue)
        isEntered = true
        var data: UnsafePointer<UInt8>?
        while !connection.isCongested {
            let count = nghttp2_session_mem_send(session, &data)
            guard count > 0 else { break }
            connection.emit(UnsafeRawBufferPointer(start: data, count: count))
        }
        isEntered = false
        worker.scratch.flush()
        release()
    }

    /// The connection is over, with whatever is on it.
    private func fail(_ failure: UpstreamFailure) {
        guard phase != .closed else { return }
        if let opening {
            self.opening = nil
            phase = .closed
            connection?.close()
            connection = nil
            return opening.fail(failure)
        }
        // What tells the peer that it broke the protocol.
        if isBroken { return close() }
        release(failure)
    }

    private func release(_ failure: UpstreamFailure = .closedBeforeAnswer) {
        guard phase != .closed else { return }
        leave()
        phase = .closed
        let reason = isBroken ? .protocolError : failure
        // They ask what was sent, so the connection is closed behind them.
        while let stream = streams.last { stream.connectionFailed(reason) }
        for stream in spare { stream.dispose() }
        spare.removeAll()
        connection?.close()
        connection = nil
        isInBlock = false
        block.discard(pool: worker.loop.pool)
        target.connectionClosed(endpoint)
    }
}
