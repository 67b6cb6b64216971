import CNghttp2
import Glibc
import WeirCore

/// One request of an HTTP/2 client and its answer. The object is used again for other streams, of
/// other connections too, as soon as nghttp2 has closed its stream and no exchange refers to it.
///
/// Flow control is joined here. Request bytes are consumed (and the client's window opened) when
/// the exchange has taken them; while it pauses they wait in `incoming`, which the window bounds.
/// Response bytes wait in `outgoing` for the client's window; above one read the upstream pauses.
final class HTTP2ServerStream: ServerStream {
    unowned(unsafe) private(set) var connection: HTTP2ServerConnection?
    private(set) var id: Int32 = 0
    /// Position in the connection's table.
    var index = -1

    // The request.
    /// END_STREAM has come.
    private var requestIsWhole = false
    /// The exchange needs no `requestEnded` (any more).
    private var exchangeHasEnd = false
    private var bodyIsPaused = false
    private var incoming = ByteQueue()
    /// What came behind `incoming`, as lines.
    private var requestTrailers = ByteQueue()
    private var pace = BodyPace()
    private var discarded = 0
    private var clientWaits = false
    /// In the connection's list of streams whose body goes on.
    var awaitsTurn = false

    // The response.
    private enum Body { case none, open, ended, broken }
    private var body = Body.none
    private var headIsSubmitted = false
    private var outgoing = ByteQueue()
    private var trailers = ByteQueue()
    /// nghttp2 asked for bytes when there were none.
    private var isAsleep = false
    private var isFull = false
    /// END_STREAM has left.
    private(set) var isAnswered = false

    private var deadline: StreamDeadline?
    private var isTimed = false

    /// Nothing but an object for `open`.
    init(worker: Worker, peer: SocketAddress) {
        super.init(worker: worker, peer: peer, isSecure: false)
        let deadline = StreamDeadline()
        deadline.stream = self
        self.deadline = deadline
    }

    func open(_ id: Int32, on connection: HTTP2ServerConnection) {
        self.id = id
        self.connection = connection
        peer = connection.accepted.peer
        peerHost = connection.peerHost
        isSecure = connection.accepted.isSecure
        identity = connection.accepted.identity
        requestIsWhole = false
        exchangeHasEnd = false
        bodyIsPaused = false
        discarded = 0
        clientWaits = false
        awaitsTurn = false
        body = .none
        headIsSubmitted = false
        isAsleep = false
        isFull = false
        isAnswered = false
    }

    /// nghttp2 has closed the stream, or the connection is gone. If there is an exchange, its
    /// client has left.
    func closed() {
        guard let connection else { return }
        if let session = connection.session, !incoming.isEmpty {
            // The connection's window outlives the stream's.
            nghttp2_session_consume_connection(session, incoming.count)
        }
        connection.pendingBytes -= outgoing.count
        self.connection = nil
        let pool = worker.loop.pool
        incoming.discard(pool: pool)
        requestTrailers.discard(pool: pool)
        outgoing.discard(pool: pool)
        trailers.discard(pool: pool)
        setDeadline(.max)
        let exchange = self.exchange
        self.exchange = nil
        exchange?.downstreamFailed()
        worker.putBack(self)
    }

    // MARK: The request

    func begin(_ result: Result<HTTPHead, HeadError>, method: HTTPMethod, endsStream: Bool) {
        guard let connection else { return }
        let exchange = worker.takeExchange()
        self.exchange = exchange
        requestIsWhole = endsStream
        switch result {
        case .success(let head):
            exchangeHasEnd = endsStream || head.contentLength == 0
            clientWaits = head.flags.contains(.expectsContinue)
            if !endsStream {
                pace.begin(
                    patienceNanoseconds: worker.timeouts.bodyProgressNanoseconds,
                    now: worker.loop.nowNanoseconds)
                rearm()
            }
            exchange.begin(server: self, interceptor: connection.accepted.interceptor, head: head)
        case .failure(let error):
            exchangeHasEnd = true
            exchange.refuseUnparsed(server: self, error.reason, method: method)
        }
    }

    /// The last of the request; nghttp2 has seen to it that they end the stream.
    func trailersCame(_ result: Result<HTTPHead, HeadError>) {
        switch result {
        case .success(let trailers):
            guard HeadRules.allowTrailers(trailers) else { return refuseRest(.malformed) }
            let lines = UnsafeRawBufferPointer(start: trailers.base, count: trailers.byteCount)
            // Without memory for them the request goes without them.
            if !exchangeHasEnd { _ = requestTrailers.append(lines, pool: worker.loop.pool) }
        case .failure(let error): refuseRest(error.reason)
        }
    }

    private func refuseRest(_ reason: Reason) {
        exchangeHasEnd = true
        exchange?.requestMalformed(reason)
    }

    func take(_ bytes: UnsafeRawBufferPointer) {
        guard let exchange, !exchangeHasEnd else { return discard(bytes.count) }
        if bodyIsPaused || !incoming.isEmpty {
            // Within the window, which is not opened before these have gone on.
            if !incoming.append(bytes, pool: worker.loop.pool) {
                connection?.consume(id, bytes.count)
                refuseRest(.overloaded)
            }
            return
        }
        pace.received(bytes.count, now: worker.loop.nowNanoseconds)
        rearm()
        exchange.requestBytes(bytes)
        connection?.consume(id, bytes.count)
    }

    /// What is left of a request whose answer is decided: a small rest is read to its end, and the
    /// client that sends a large one is told to stop (RFC 9113 §8.1).
    private func discard(_ count: Int) {
        connection?.consume(id, count)
        discarded += count
        if isAnswered, discarded > Limits.drainBytesMax { reset(NGHTTP2_NO_ERROR) }
    }

    func requestEnds() {
        requestIsWhole = true
        tellEnd()
        rearm()
    }

    /// When all before it has gone on.
    private func tellEnd() {
        guard requestIsWhole, !exchangeHasEnd, !bodyIsPaused, incoming.isEmpty else { return }
        exchangeHasEnd = true
        guard let base = requestTrailers.bytes.baseAddress else {
            exchange?.requestEnded()
            return
        }
        var trailers = HTTPHead(base: base, fields: worker.headFields)
        trailers.byteCount = requestTrailers.count
        let result = HeadParser.parseFields(requestTrailers.bytes, from: 0, into: &trailers)
        guard case .complete = result else { return refuseRest(.malformed) }
        exchange?.requestEnded(trailers: trailers)
        requestTrailers.discard(pool: worker.loop.pool)
    }

    func deliverIncoming() {
        while !bodyIsPaused, !incoming.isEmpty, let exchange {
            let count = min(incoming.count, Limits.readBytes)
            exchange.requestBytes(UnsafeRawBufferPointer(rebasing: incoming.bytes[..<count]))
            // The exchange may have been refused meanwhile, and the bytes be gone.
            guard !incoming.isEmpty else { return }
            incoming.consume(count, pool: worker.loop.pool)
            connection?.consume(id, count)
            // So that it is known at once whether the upstream takes more.
            worker.flush()
        }
        tellEnd()
        rearm()
    }

    override func pauseBody() {
        if !bodyIsPaused { pace.pause(now: worker.loop.nowNanoseconds) }
        bodyIsPaused = true
        rearm()
    }

    override func resumeBody() {
        guard bodyIsPaused else { return }
        bodyIsPaused = false
        pace.resume(now: worker.loop.nowNanoseconds)
        rearm()
        guard !incoming.isEmpty || requestIsWhole, !exchangeHasEnd, !awaitsTurn else { return }
        awaitsTurn = true
        connection?.resumeLater(self)
    }

    // MARK: The response

    override func sendInformational(_ head: HTTPHead?) {
        guard let connection, let session = connection.session, !headIsSubmitted else { return }
        let values = worker.nameValues
        values.reset()
        let status = head?.status ?? 100
        if status == 100 { clientWaits = false }
        values.add(":status") { $0.write(decimal: UInt64(status)) }
        if let head {
            values.add(fieldsOf: head) { ResponseRules.keepsInformational($0, of: head) }
        }
        guard !values.overflowed else { return }
        nghttp2_submit_headers(
            session, UInt8(NGHTTP2_FLAG_NONE.rawValue), id, nil, values.pairs, values.count, nil)
        connection.wantsTurn()
    }

    override func sendHead(
        status: Int, upstream: HTTPHead?, contentLength: Int64, hasBody: Bool
    ) {
        guard let exchange, let connection, let session = connection.session else { return }
        let values = worker.nameValues
        HTTP2ResponseFields.write(
            status: status, upstream: upstream, exchange: exchange, contentLength: contentLength,
            hasBody: hasBody, to: values)
        headIsSubmitted = true
        guard !values.overflowed else { return abort() }
        // A body that is known to be empty needs no frame of its own.
        let endsWithHead = !hasBody || contentLength == 0 && !exchange.declaresTrailers
        body = endsWithHead ? .none : .open
        var provider = nghttp2_data_provider()
        provider.source.ptr = Unmanaged.passUnretained(self).toOpaque()
        provider.read_callback = serverBodyWanted
        let submitted = withUnsafePointer(to: &provider) {
            nghttp2_submit_response(
                session, id, values.pairs, values.count, endsWithHead ? nil : $0)
        }
        guard submitted == 0 else { return abort() }
        if !endsWithHead,
            contentLength < 0 || contentLength > HTTP2ServerLimits.incrementalAboveBytes
        {
            var priority = nghttp2_extpri(
                urgency: UInt32(NGHTTP2_EXTPRI_DEFAULT_URGENCY), inc: 1)
            nghttp2_session_change_extpri_stream_priority(session, id, &priority, 0)
        }
        connection.wantsTurn()
    }

    override func sendBody(_ bytes: UnsafeRawBufferPointer) {
        guard body == .open, bytes.count > 0, let connection else { return }
        guard outgoing.append(bytes, pool: worker.loop.pool) else {
            return reset(NGHTTP2_INTERNAL_ERROR)
        }
        connection.pendingBytes += bytes.count
        if !isTimed { rearm() }
        wake()
        if outgoing.count >= HTTP2ServerLimits.framedAtOnceBytes { connection.pump() }
        if outgoing.count >= HTTP2ServerLimits.streamPendingBytes, !isFull {
            isFull = true
            exchange?.downstreamCongested()
        }
    }

    override func sendEnd(upstreamTrailers: HTTPHead?) {
        guard let exchange else { return }
        if body == .open {
            keepTrailers(upstreamTrailers, exchange)
            body = .ended
            wake()
        }
        self.exchange = nil
        dropIncoming()
        rearm()
    }

    /// They are sent behind the last byte, when the exchange is gone.
    private func keepTrailers(_ upstream: HTTPHead?, _ exchange: Exchange) {
        let bytes = (upstream?.byteCount ?? 0) + exchange.responseTrailers.count
        guard bytes > 0, let room = trailers.reserve(bytes, pool: worker.loop.pool) else { return }
        var writer = HeadWriter(UnsafeMutableRawBufferPointer(start: room, count: bytes))
        if let upstream {
            writer.copyFields(of: upstream) { ResponseRules.keepsTrailer($0, exchange) }
        }
        writer.write(exchange.responseTrailers.lines)
        trailers.added(writer.count)
        if trailers.isEmpty { trailers.discard(pool: worker.loop.pool) }
    }

    /// Its bytes were for an exchange that needs no more.
    private func dropIncoming() {
        bodyIsPaused = false
        exchangeHasEnd = true
        let count = incoming.count
        guard count > 0 else { return }
        incoming.discard(pool: worker.loop.pool)
        discard(count)
    }

    /// What there is goes out first, then the reset.
    override func abort() {
        exchange = nil
        dropIncoming()
        if body == .open {
            body = .broken
            wake()
        } else {
            reset(NGHTTP2_INTERNAL_ERROR)
        }
        rearm()
    }

    override var isCongested: Bool { isFull }

    private func wake() {
        guard let connection else { return }
        if isAsleep, let session = connection.session {
            isAsleep = false
            nghttp2_session_resume_data(session, id)
        }
        connection.wantsTurn()
    }

    private func reset(_ code: nghttp2_error_code) {
        guard let connection, let session = connection.session else { return }
        nghttp2_submit_rst_stream(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), id, code.rawValue)
        connection.wantsTurn()
    }

    // MARK: Frames go out (inside of the session)

    func bytesForFrame(_ limit: Int, _ flags: inout UInt32) -> Int {
        let count = min(outgoing.count, limit)
        if count == outgoing.count {
            switch body {
            case .open:
                if count == 0 {
                    isAsleep = true
                    return Int(NGHTTP2_ERR_DEFERRED.rawValue)
                }
            case .broken:
                if count == 0 { return Int(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue) }
            case .ended, .none:
                flags |= NGHTTP2_DATA_FLAG_EOF.rawValue
                if submitTrailers() { flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue }
            }
        }
        flags |= NGHTTP2_DATA_FLAG_NO_COPY.rawValue
        return count
    }

    private func submitTrailers() -> Bool {
        guard !trailers.isEmpty, let session = connection?.session else { return false }
        let values = worker.nameValues
        values.reset()
        values.add(lines: trailers.bytes)
        let isSubmitted =
            !values.overflowed
            && nghttp2_submit_trailer(session, id, values.pairs, values.count) == 0
        trailers.discard(pool: worker.loop.pool)
        return isSubmitted
    }

    /// What `bytesForFrame` promised.
    func moveBytes(_ count: Int, to target: UnsafeMutableRawPointer) {
        guard count > 0, let source = outgoing.bytes.baseAddress else { return }
        memcpy(target, source, count)
        outgoing.consume(count, pool: worker.loop.pool)
        connection?.pendingBytes -= count
        rearm()
        if isFull, outgoing.count <= HTTP2ServerLimits.streamResumeBytes {
            isFull = false
            connection?.relieveLater(self)
        }
    }

    func responseIsSent() {
        isAnswered = true
        guard !requestIsWhole else { return }
        // A client that was not told to continue may never send the rest.
        if clientWaits || discarded > Limits.drainBytesMax { return reset(NGHTTP2_NO_ERROR) }
        setDeadline(in: worker.timeouts.lingerNanoseconds)
    }

    // MARK: Time

    /// Bytes that wait for the client's window must move, and a request's body that nobody holds up
    /// must come at a pace.
    private func rearm() {
        if !outgoing.isEmpty {
            setDeadline(in: worker.timeouts.bodyProgressNanoseconds)
        } else if !requestIsWhole && !bodyIsPaused && exchange != nil {
            setDeadline(pace.dueNanoseconds)
        } else if !(isAnswered && !requestIsWhole) {
            setDeadline(.max)
        }
    }

    private func setDeadline(in delay: UInt64) {
        let (due, overflow) = worker.loop.nowNanoseconds.addingReportingOverflow(delay)
        setDeadline(overflow ? .max : due)
    }

    private func setDeadline(_ due: UInt64) {
        guard let deadline, due < .max || isTimed else { return }
        isTimed = due < .max
        worker.loop.setDeadline(deadline, atNanoseconds: due)
    }

    fileprivate func timedOut() {
        isTimed = false
        if isAnswered {
            reset(NGHTTP2_NO_ERROR)
        } else if outgoing.isEmpty {
            exchange?.requestTimedOut()
        } else {
            reset(NGHTTP2_CANCEL)
        }
    }

    /// Before the object goes for good.
    func forgetDeadline() {
        if let deadline { worker.loop.clearDeadline(deadline) }
    }
}

/// A stream's place among the loop's deadlines; as old as its stream.
private final class StreamDeadline: Timed {
    unowned(unsafe) var stream: HTTP2ServerStream?
    override func deadlinePassed() { stream?.timedOut() }
}
