import CNghttp2
import WeirCore

/// One exchange on an HTTP/2 connection to an upstream. What it holds of a request is bounded by
/// `Limits.streamQueueBytes` (the source is paused above it), and what the peer may send ahead of
/// the client by the stream's window: it is opened only by what the client's side has taken.
final class HTTP2UpstreamStream: ClientStream {
    private let connection: HTTP2UpstreamConnection
    private let deadline = StreamDeadline()
    /// nghttp2's number; 0 before the request and after the end.
    var id: Int32 = 0
    /// Position in the connection's list.
    var index = -1

    private var queue = ByteQueue()
    private var trailers = ByteQueue()
    private var requestIsWhole = false
    private var endIsSent = false
    private var isDeferred = false
    private var isFull = false
    private var bytesWrittenBefore: UInt64 = 0

    private(set) var hasHead = false
    private var isHead = false
    private var isPaused = false
    private var unconsumed = 0
    private var wasResetByPeer = false
    private var isEnding = false

    init(_ connection: HTTP2UpstreamConnection) {
        self.connection = connection
        super.init(worker: connection.worker, endpoint: connection.endpoint)
        deadline.stream = self
    }

    /// For nghttp2. SAFETY: the connection keeps the stream in its list until nghttp2 has reported
    /// its end, or is deleted itself.
    var pointer: UnsafeMutableRawPointer { Unmanaged.passUnretained(self).toOpaque() }

    /// The object is not used again.
    func dispose() { worker.loop.clearDeadline(deadline) }

    // MARK: The request goes out

    override var speaksHTTP2: Bool { true }
    override var isReused: Bool { connection.hasServed }
    override var hasSent: Bool { connection.bytesWritten > bytesWrittenBefore }
    override var isCongested: Bool { isFull }

    override func begin(_ exchange: Exchange) -> Bool {
        self.exchange = exchange
        bytesWrittenBefore = connection.bytesWritten
        requestIsWhole = false
        endIsSent = false
        isDeferred = false
        isFull = false
        hasHead = false
        isPaused = false
        unconsumed = 0
        wasResetByPeer = false
        isHead = exchange.requestHead.method == .head
        let hasBody = exchange.bodyIsHeld ? !exchange.held.isEmpty : exchange.requestLength != 0
        guard connection.submit(self, exchange, hasBody: hasBody) else { return false }
        endIsSent = !hasBody
        return true
    }

    override func sendBody(_ bytes: UnsafeRawBufferPointer) {
        guard id > 0, bytes.count > 0 else { return }
        guard queue.append(bytes, pool: worker.loop.pool) else {
            exchange?.upstreamFailed(.noMemory)
            return
        }
        resume()
        if queue.count >= Limits.streamQueueBytes, !isFull {
            isFull = true
            exchange?.upstreamCongested()
        }
    }

    override func sendEnd(trailers: HTTPHead?) {
        guard id > 0 else { return }
        requestIsWhole = true
        if let trailers { keep(trailers) }
        resume()
        if !hasHead { setDeadline(connection.target.timeouts.firstByteNanoseconds) }
    }

    /// They are sent behind the body, which may have to wait for the peer's window.
    private func keep(_ head: HTTPHead) {
        guard let exchange,
            let room = trailers.reserve(head.byteCount + 2, pool: worker.loop.pool)
        else { return }
        var writer = HeadWriter(
            UnsafeMutableRawBufferPointer(start: room, count: head.byteCount + 2))
        writer.copyFields(of: head) { RequestHeadWriter.keepsTrailer($0, exchange) }
        trailers.added(writer.count)
    }

    private func resume() {
        guard isDeferred else { return }
        isDeferred = false
        connection.resumeBody(of: self)
    }

    // MARK: nghttp2 asks for the request's body

    /// How much of it there is, at most `capacity`; `nil` when there is nothing now.
    func bodyWanted(_ capacity: Int) -> Int? {
        let count = min(capacity, queue.count)
        if count == 0, !requestIsWhole {
            isDeferred = true
            return nil
        }
        return count
    }

    /// Whether `count` bytes are the last.
    func isLast(_ count: Int) -> Bool { requestIsWhole && count == queue.count }

    /// The body has ended. True when trailers follow.
    func bodyEnded() -> Bool {
        endIsSent = true
        guard !trailers.isEmpty, let session = connection.session else { return false }
        let values = worker.nameValues
        values.reset()
        values.add(lines: trailers.bytes)
        let result =
            values.overflowed
            ? -1 : nghttp2_submit_trailer(session, id, values.pairs, values.count)
        trailers.discard(pool: worker.loop.pool)
        return result == 0
    }

    func sendFrame(_ frameHead: UnsafeRawBufferPointer, _ count: Int) {
        connection.emit(
            frameHead, UnsafeRawBufferPointer(rebasing: queue.bytes[..<min(count, queue.count)]))
        queue.consume(count, pool: worker.loop.pool)
        if isFull, queue.count <= Limits.streamQueueBytes / 2 {
            isFull = false
            connection.drainedLater(self)
        }
    }

    func bodyDrained() { exchange?.upstreamDrained() }

    // MARK: The response comes in

    func headReceived(_ head: HTTPHead, endsStream: Bool) {
        if head.status < 200 {
            exchange?.responseInformational(head)
            return
        }
        hasHead = true
        connection.hasServed = true
        let hasBody = !isHead && !endsStream && head.status != 204 && head.status != 304
        touch()
        exchange?.responseBegan(
            head, contentLength: length(head, hasBody: hasBody), hasBody: hasBody)
        if endsStream { responseIsWhole(nil) }
    }

    private func length(_ head: HTTPHead, hasBody: Bool) -> Int64 {
        if hasBody || isHead || head.status == 304 { return head.contentLength }
        // 204 must have no length (RFC 9110 §8.6); elsewhere the end of the stream is one.
        return head.status == 204 ? -1 : 0
    }

    func dataReceived(_ bytes: UnsafeRawBufferPointer) {
        guard let exchange else { return connection.consumed(bytes.count, of: self) }
        touch()
        exchange.responseBytes(bytes)
        if isPaused {
            unconsumed += bytes.count
        } else {
            connection.consumed(bytes.count, of: self)
        }
    }

    func responseIsWhole(_ trailers: HTTPHead?) {
        let exchange = self.exchange
        self.exchange = nil
        setDeadline(.max)
        // RFC 9113 §8.1: a whole answer before the end of the request; the rest is not needed.
        if !endIsSent, id > 0 { connection.reset(self) }
        exchange?.responseEnded(trailers: trailers)
    }

    override func pauseResponse() {
        isPaused = true
        // Now the client is slow and not the upstream.
        setDeadline(.max)
    }

    override func resumeResponse() {
        guard isPaused else { return }
        isPaused = false
        if hasHead { touch() }
        let count = unconsumed
        unconsumed = 0
        connection.consumed(count, of: self)
    }

    private func touch() {
        if !isPaused, exchange != nil {
            setDeadline(connection.target.timeouts.streamIdleNanoseconds)
        }
    }

    private func setDeadline(_ nanoseconds: UInt64) {
        if nanoseconds == .max {
            worker.loop.setDeadline(deadline, atNanoseconds: .max)
        } else {
            worker.loop.setDeadline(deadline, afterNanoseconds: nanoseconds)
        }
    }

    fileprivate func timedOut() { failed(hasHead ? .stalled : .firstByteTimeout) }

    // MARK: The end

    /// The exchange cancels the stream.
    func failed(_ failure: UpstreamFailure) {
        guard let exchange else { return }
        exchange.upstreamFailed(failure)
        // Where the exchange had ended already nobody has.
        cancel()
    }

    override func cancel() {
        exchange = nil
        setDeadline(.max)
        queue.discard(pool: worker.loop.pool)
        trailers.discard(pool: worker.loop.pool)
        if id > 0 {
            connection.reset(self)
        } else if !isEnding {
            connection.ended(self)
        }
    }

    func resetReceived() { wasResetByPeer = true }

    /// nghttp2 has ended the stream: whole, by a reset of either side, or by a GOAWAY.
    func closed(_ code: UInt32) {
        end(failure(code))
    }

    private func failure(_ code: UInt32) -> UpstreamFailure {
        if code == NGHTTP2_REFUSED_STREAM.rawValue, !hasHead { return .refused }
        if !wasResetByPeer { return .protocolError }
        return hasHead ? .diedMidStream : .reset
    }

    /// The connection is over, and does not report the ends of its streams any more.
    func connectionFailed(_ failure: UpstreamFailure) {
        end(hasHead && failure == .closedBeforeAnswer ? .diedMidStream : failure)
    }

    /// An exchange that is still here has no whole response. It may begin anew at once, and must
    /// not be given this very object for that, so the object goes back behind it.
    private func end(_ failure: UpstreamFailure) {
        id = 0
        isEnding = true
        exchange?.upstreamFailed(failure)
        isEnding = false
        exchange = nil
        setDeadline(.max)
        queue.discard(pool: worker.loop.pool)
        trailers.discard(pool: worker.loop.pool)
        connection.ended(self)
    }
}

private final class StreamDeadline: Timed {
    // SAFETY: the stream clears the deadline before it goes (`dispose`).
    unowned(unsafe) var stream: HTTP2UpstreamStream?

    override func deadlinePassed() {
        guard let stream else { return }
        stream.timedOut()
        stream.worker.flush()
    }
}
