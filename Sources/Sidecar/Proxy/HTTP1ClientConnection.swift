import Glibc
import WeirCore

/// An upstream HTTP/1.1 connection: one exchange at a time, idle in its endpoint's list between
/// them.
package final class HTTP1ClientConnection: ClientStream {
    private enum Phase {
        case idle
        case head, lengthBody, chunkedBody, untilClose
        /// Another protocol's bytes.
        case tunnel
        /// The response is whole; the connection is on its way back or closed.
        case closed
    }

    private let target: UpstreamTarget
    private var connection: Connection?
    private var phase = Phase.idle
    private var scan: HeadScan?
    private var remaining: Int64 = 0
    private var decoder = ChunkedDecoder()
    private var exchangesSeen = 0
    private var writtenBefore: UInt64 = 0
    private var requestIsWhole = false
    private var requestIsChunked = false
    private var responseKeepsAlive = true
    private var isHead = false
    private var endsOutput = false
    private var idleSinceNanoseconds: UInt64 = 0
    /// An idle connection that was used this recently is taken without asking the kernel: what the
    /// loop has not heard of by now is as likely to come after the question.
    private static let trustedIdleNanoseconds: UInt64 = 20_000_000

    /// `connection` is open, and its owner from now on is this object.
    init(_ target: UpstreamTarget, _ endpoint: Endpoint, _ connection: Connection) {
        self.target = target
        self.connection = connection
        super.init(worker: target.worker, endpoint: endpoint)
    }

    override var isReused: Bool { exchangesSeen > 1 }
    override var hasSent: Bool { (connection?.bytesWritten ?? .max) > writtenBefore }
    override var isCongested: Bool { connection?.isCongested ?? false }

    /// Whether an idle connection can be used now.
    func isUsable() -> Bool {
        guard phase == .idle, let connection, !connection.isClosed else { return false }
        let idle = worker.loop.nowNanoseconds &- idleSinceNanoseconds
        return idle < Self.trustedIdleNanoseconds || connection.isQuiet()
    }

    func becameIdle() {
        idleSinceNanoseconds = worker.loop.nowNanoseconds
        phase = .idle
        setDeadline(target.timeouts.upstreamIdleNanoseconds)
    }

    // MARK: The request goes out

    override func begin(_ exchange: Exchange) -> Bool {
        guard let connection else { return false }
        self.exchange = exchange
        exchangesSeen += 1
        writtenBefore = connection.bytesWritten
        phase = .head
        scan = nil
        requestIsWhole = false
        requestIsChunked = exchange.requestLength < 0 && !exchange.bodyIsHeld
        isHead = exchange.requestHead.method == .head
        setDeadline(.max)
        return RequestHeadWriter.write(exchange, to: connection)
    }

    override func sendBody(_ bytes: UnsafeRawBufferPointer) {
        guard let connection, bytes.count > 0 else { return }
        if phase == .tunnel { touch() }
        guard requestIsChunked else { return connection.emit(bytes) }
        guard let room = connection.reserve(bytes.count + 20) else {
            exchange?.upstreamFailed(.noMemory)
            return
        }
        var writer = HeadWriter(room)
        writer.write(hex: UInt64(bytes.count))
        writer.write("\r\n")
        writer.write(bytes)
        writer.write("\r\n")
        connection.commit(writer.count)
    }

    override func sendEnd(trailers: HTTPHead?) {
        guard let connection, phase != .closed else { return }
        if requestIsChunked {
            if let trailers {
                RequestHeadWriter.writeEnd(trailers, exchange, to: connection)
            } else {
                connection.emit("0\r\n\r\n")
            }
        }
        requestIsWhole = true
        if phase == .head { setDeadline(target.timeouts.firstByteNanoseconds) }
    }

    // MARK: The response comes in

    override func received(_ bytes: UnsafeRawBufferPointer) -> Int {
        var offset = 0
        while offset < bytes.count {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[offset...])
            let used: Int
            switch phase {
            case .head: used = takeHead(rest)
            case .lengthBody:
                used = takeLengthBody(rest, hasMore: rest.count > remaining)
            case .chunkedBody: used = takeChunkedBody(rest)
            case .untilClose:
                touch()
                exchange?.responseBytes(rest)
                used = rest.count
            case .tunnel:
                touch()
                exchange?.tunnelDown(rest)
                used = rest.count
            case .idle:
                // A response that nobody asked for. Whoever comes next must not get it.
                closeQuietly()
                return bytes.count
            case .closed: return bytes.count
            }
            if used == 0 { return offset }
            offset += used
        }
        return offset
    }

    private func takeHead(_ bytes: UnsafeRawBufferPointer) -> Int {
        if scan != nil {
            guard scan?.hasEnd(bytes) == true else { return 0 }
        }
        var head = HTTPHead(base: UnsafeRawPointer(worker.headFields), fields: worker.headFields)
        switch HeadParser.parseResponse(bytes, fields: worker.headFields, into: &head) {
        case .complete(let count):
            scan = nil
            if head.status < 200 {
                exchange?.responseInformational(head)
            } else {
                begin(head, hasMore: bytes.count > count)
            }
            return count
        case .needsMore:
            if scan == nil {
                var scan = HeadScan()
                _ = scan.hasEnd(bytes)
                self.scan = scan
            }
            return 0
        case .failed:
            fail(.protocolError)
            return bytes.count
        }
    }

    /// RFC 9112 §6.3: how long the body is.
    private func begin(_ head: HTTPHead, hasMore: Bool) {
        let hasBody = !isHead && head.status != 204 && head.status != 304
        responseKeepsAlive = head.keepsAlive
        // 204 must have no length (RFC 9110 §8.6); one that is there is not passed on.
        var contentLength = head.status == 204 ? -1 : head.contentLength
        if !hasBody {
            phase = .lengthBody
            remaining = 0
        } else if head.flags.contains(.chunked) {
            phase = .chunkedBody
            decoder = ChunkedDecoder()
            contentLength = -1
        } else if contentLength >= 0 {
            phase = .lengthBody
            remaining = contentLength
        } else {
            phase = .untilClose
            responseKeepsAlive = false
        }
        touch()
        exchange?.responseBegan(head, contentLength: contentLength, hasBody: hasBody)
        if phase == .lengthBody, remaining == 0 { complete(hasMore: hasMore) }
    }

    private func takeLengthBody(_ bytes: UnsafeRawBufferPointer, hasMore: Bool) -> Int {
        let count = Int(min(Int64(bytes.count), remaining))
        remaining -= Int64(count)
        if remaining > 0 { touch() }
        exchange?.responseBytes(UnsafeRawBufferPointer(rebasing: bytes[..<count]))
        if phase == .lengthBody, remaining == 0 { complete(hasMore: hasMore) }
        return count
    }

    private func takeChunkedBody(_ bytes: UnsafeRawBufferPointer) -> Int {
        var offset = 0
        touch()
        while phase == .chunkedBody {
            switch decoder.next(bytes, from: &offset) {
            case .data(let start, let count):
                exchange?.responseBytes(
                    UnsafeRawBufferPointer(rebasing: bytes[start..<(start + count)]))
            case .needsMore: return bytes.count
            case .end(let end):
                if decoder.trailers.isEmpty {
                    complete(hasMore: end < bytes.count)
                } else {
                    completeWithTrailers(hasMore: end < bytes.count)
                }
                return end
            case .malformed, .tooLarge:
                fail(.protocolError)
                return bytes.count
            }
        }
        return bytes.count
    }

    private func completeWithTrailers(hasMore: Bool) {
        decoder.trailers.withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress else { return }
            var trailers = HTTPHead(base: base, fields: worker.headFields)
            trailers.byteCount = bytes.count
            guard case .complete = HeadParser.parseFields(bytes, from: 0, into: &trailers) else {
                return fail(.protocolError)
            }
            complete(hasMore: hasMore, trailers: trailers)
        }
    }

    /// The connection goes back first, so that it is there for whoever comes next; then the
    /// exchange ends.
    private func complete(hasMore: Bool, trailers: HTTPHead? = nil) {
        let exchange = self.exchange
        self.exchange = nil
        // Bytes behind a response belong to nobody; a request that is not whole was cut.
        let isReusable =
            responseKeepsAlive && requestIsWhole && !hasMore
            && connection?.isClosed == false && connection?.hasEnded == false
        if isReusable {
            connection?.resume()
            phase = .idle
            exchange?.responseEnded(trailers: trailers)
            target.release(self)
        } else {
            closeQuietly()
            exchange?.responseEnded(trailers: trailers)
        }
    }

    // MARK: Other events

    override func ended() {
        switch phase {
        case .untilClose: complete(hasMore: false)
        case .tunnel: exchange?.tunnelUpstreamEnded()
        case .idle: closeQuietly()
        case .head: fail(.closedBeforeAnswer)
        case .lengthBody, .chunkedBody: fail(.diedMidStream)
        case .closed: break
        }
    }

    override func failed(_ code: Int32) {
        switch phase {
        case .idle: closeQuietly()
        case .head: fail(code == ENOBUFS ? .noMemory : .closedBeforeAnswer)
        case .lengthBody, .chunkedBody, .untilClose: fail(.diedMidStream)
        case .tunnel:
            exchange?.tunnelUpstreamBroke()
            closeQuietly()
        case .closed: break
        }
    }

    override func congested() { exchange?.upstreamCongested() }
    override func drained() {
        if endsOutput { connection?.shutDownWriting() }
        exchange?.upstreamDrained()
    }

    override func deadlinePassed() {
        switch phase {
        case .idle: closeQuietly()
        case .head: fail(.firstByteTimeout)
        case .lengthBody, .chunkedBody, .untilClose: fail(.stalled)
        case .tunnel: exchange?.tunnelTimedOut()
        case .closed: break
        }
    }

    override func pauseResponse() {
        guard phase != .idle, phase != .closed else { return }
        connection?.pause()
        // Now the client is slow and not the upstream.
        setDeadline(.max)
    }

    override func resumeResponse() {
        guard phase != .idle, phase != .closed else { return }
        if phase != .head { touch() }
        connection?.resume()
    }

    private func touch() { setDeadline(target.timeouts.streamIdleNanoseconds) }

    private func setDeadline(_ nanoseconds: UInt64) {
        guard let connection else { return }
        if nanoseconds == .max {
            worker.loop.setDeadline(connection, atNanoseconds: .max)
        } else {
            worker.loop.setDeadline(connection, afterNanoseconds: nanoseconds)
        }
    }

    // MARK: A tunnel

    override var carriesTunnels: Bool { true }

    override func beginTunnel() {
        phase = .tunnel
        touch()
    }

    override func endTunnelOutput() {
        endsOutput = true
        connection?.shutDownWriting()
    }

    // MARK: The end

    private func fail(_ failure: UpstreamFailure) {
        let exchange = self.exchange
        // The exchange asks this object what was sent, so it is closed afterwards.
        exchange?.upstreamFailed(failure)
        closeQuietly()
    }

    override func cancel() {
        exchange = nil
        closeQuietly()
    }

    /// Closes; the exchange, if there is one, is not told.
    func closeQuietly() {
        guard phase != .closed else { return }
        let wasIdle = phase == .idle
        phase = .closed
        exchange = nil
        connection?.close()
        connection = nil
        target.connectionClosed(self, wasIdle: wasIdle)
    }
}
