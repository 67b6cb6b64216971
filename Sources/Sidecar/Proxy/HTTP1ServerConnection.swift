import Glibc
import WeirCore

/// A downstream HTTP/1.1 connection: requests one after another, answered in order (pipelined ones
/// wait unread). It frames; what becomes of a request is the exchange's matter. A client that
/// begins with the preface of HTTP/2 (RFC 9113 §3.3) is handed to that.
package final class HTTP1ServerConnection: ServerStream, ServedConnection {
    private enum Phase {
        /// Between requests, or in the middle of a head.
        case head
        case lengthBody, chunkedBody
        /// The request is whole, the response is not.
        case responding
        /// Another protocol's bytes.
        case tunnel
        /// The response is whole, the request is not: what is left of it is thrown away.
        case discarding
        /// The last response is sent; what still comes is read and thrown away, so that the close
        /// does not reset the connection before the client has read it (RFC 9112 §9.6).
        case lingering
        case closed
    }

    enum ResponseFraming { case none, length, chunked, untilClose }

    private let interceptor: Interceptor
    private(set) var connection: Connection?
    /// Position in the worker's list.
    var index = -1

    private var phase = Phase.head
    private var scan: HeadScan?
    private var remaining: Int64 = 0
    private var decoder = ChunkedDecoder()
    private var bodyIsPaused = false
    private var pace = BodyPace()
    private var discarded = 0
    private var hasEnded = false
    /// Some request came before.
    private var hasServed = false

    // What the request in progress said.
    private var clientKeepsAlive = true
    private var clientMinorVersion: UInt8 = 1
    private var expectsContinue = false
    private var continueSent = false

    var framing = ResponseFraming.none
    var closesAfter = false
    private var responseIsWhole = false
    private var aborted = false
    private var endsOutput = false

    init(_ accepted: AcceptedConnection) {
        interceptor = accepted.interceptor
        super.init(
            worker: accepted.worker, peer: accepted.peer, isSecure: accepted.isSecure,
            identity: accepted.identity)
    }

    func start(_ descriptor: Int32) throws(SystemError) {
        start(
            on: try Connection(
                worker: worker, descriptor: descriptor, owner: self, isConnecting: false))
    }

    func start(on connection: Connection) {
        connection.failsOnHangup = true
        self.connection = connection
        worker.loop.setDeadline(connection, afterNanoseconds: worker.timeouts.headNanoseconds)
    }

    // MARK: Bytes come in

    override func received(_ bytes: UnsafeRawBufferPointer) -> Int {
        var offset = 0
        while offset < bytes.count {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[offset...])
            let used: Int
            switch phase {
            case .head: used = takeHead(rest)
            case .lengthBody: used = takeLengthBody(rest)
            case .chunkedBody: used = takeChunkedBody(rest)
            case .responding:
                // A pipelined request. It waits, and nothing more is read before its turn.
                connection?.pause()
                return offset
            case .tunnel:
                if bodyIsPaused { return offset }
                exchange?.tunnelUp(rest)
                used = rest.count
            case .discarding, .lingering: used = discard(rest)
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
        var head = HTTPHead(
            base: UnsafeRawPointer(worker.headFields), fields: worker.headFields)
        switch HeadParser.parseRequest(bytes, fields: worker.headFields, into: &head) {
        case .complete(let count):
            scan = nil
            begin(head)
            return count
        case .needsMore: return waitForMore(bytes)
        // With TLS, ALPN has chosen (RFC 9113 §3.2).
        case .failed(.version) where !hasServed && !isSecure && HTTP2Preface.match(bytes) != .no:
            return HTTP2Preface.match(bytes) == .yes ? handOver(bytes) : waitForMore(bytes)
        case .failed(let error):
            if !hasServed, HTTP2Preface.isOfNeither(bytes) { close() } else { refuseHead(error) }
            return bytes.count
        }
    }

    private func waitForMore(_ bytes: UnsafeRawBufferPointer) -> Int {
        if scan == nil {
            var scan = HeadScan()
            _ = scan.hasEnd(bytes)
            self.scan = scan
            // Once, and not with each byte: a head has this long in all.
            setDeadline(worker.timeouts.headNanoseconds)
        }
        return 0
    }

    /// The client knows that we speak HTTP/2. Looked for only where a version was wrong, so that it
    /// costs HTTP/1.1 nothing.
    private func handOver(_ bytes: UnsafeRawBufferPointer) -> Int {
        guard let connection else { return bytes.count }
        let successor: HTTP2ServerConnection
        do throws(HTTP2Error) {
            successor = try HTTP2ServerConnection(
                AcceptedConnection(worker: worker, peer: peer, interceptor: interceptor))
        } catch {
            close()
            return bytes.count
        }
        phase = .closed
        self.connection = nil
        successor.start(on: connection)
        worker.replace(self, by: successor)
        return successor.received(bytes)
    }

    private func begin(_ head: HTTPHead) {
        hasServed = true
        clientKeepsAlive = head.keepsAlive
        clientMinorVersion = head.minorVersion
        expectsContinue = head.flags.contains(.expectsContinue)
        continueSent = false
        responseIsWhole = false
        framing = .none
        closesAfter = false
        discarded = 0
        if head.flags.contains(.chunked) {
            phase = .chunkedBody
            decoder = ChunkedDecoder()
        } else if head.contentLength > 0 {
            phase = .lengthBody
            remaining = head.contentLength
        } else {
            phase = .responding
        }
        if phase == .responding {
            setDeadline(.max)
        } else {
            let patience = worker.timeouts.bodyProgressNanoseconds
            pace.begin(patienceNanoseconds: patience, now: worker.loop.nowNanoseconds)
            keepPace()
        }
        let exchange = worker.takeExchange()
        self.exchange = exchange
        exchange.begin(server: self, interceptor: interceptor, head: head)
    }

    private func takeLengthBody(_ bytes: UnsafeRawBufferPointer) -> Int {
        if bodyIsPaused { return 0 }
        let count = Int(min(Int64(bytes.count), remaining))
        remaining -= Int64(count)
        let isLast = remaining == 0
        if !isLast { keepPace(received: count) }
        exchange?.requestBytes(UnsafeRawBufferPointer(rebasing: bytes[..<count]))
        if isLast, phase == .lengthBody || phase == .discarding { requestIsWhole() }
        return count
    }

    private func takeChunkedBody(_ bytes: UnsafeRawBufferPointer) -> Int {
        var offset = 0
        while offset < bytes.count, !bodyIsPaused, phase == .chunkedBody || phase == .discarding {
            switch decoder.next(bytes, from: &offset) {
            case .data(let start, let count):
                keepPace(received: count)
                exchange?.requestBytes(
                    UnsafeRawBufferPointer(rebasing: bytes[start..<(start + count)]))
            case .needsMore: return bytes.count
            case .end:
                // What is no field line may be somebody's next request.
                guard endChunkedBody() else { return refuseBody(bytes.count) }
                return offset
            case .malformed, .tooLarge: return refuseBody(bytes.count)
            }
        }
        return offset
    }

    /// False when the trailers are not what may stand there.
    private func endChunkedBody() -> Bool {
        if decoder.trailers.isEmpty {
            requestIsWhole()
            return true
        }
        return decoder.trailers.withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress else { return true }
            var trailers = HTTPHead(base: base, fields: worker.headFields)
            trailers.byteCount = bytes.count
            guard case .complete = HeadParser.parseFields(bytes, from: 0, into: &trailers),
                HeadRules.allowTrailers(trailers)
            else { return false }
            requestIsWhole(trailers: trailers)
            return true
        }
    }

    /// All bytes are taken: nothing behind a body without an end can be a request.
    private func refuseBody(_ count: Int) -> Int {
        clientKeepsAlive = false
        closesAfter = true
        phase = .lingering
        if let exchange { exchange.requestMalformed(.malformed) } else { linger() }
        return count
    }

    private func requestIsWhole(trailers: HTTPHead? = nil) {
        if phase == .discarding { return next() }
        phase = .responding
        setDeadline(.max)
        exchange?.requestEnded(trailers: trailers)
    }

    /// What is left of a request whose answer is sent: a small rest is read to its end, and the
    /// connection lives on; a large one is not worth it.
    private func discard(_ bytes: UnsafeRawBufferPointer) -> Int {
        discarded += bytes.count
        if phase == .lingering {
            if discarded > Limits.drainBytesMax { close() }
            return bytes.count
        }
        if discarded > Limits.drainBytesMax {
            linger()
            return bytes.count
        }
        if remaining > 0 { return takeLengthBody(bytes) }
        return takeChunkedBody(bytes)
    }

    // MARK: Other events

    override func ended() {
        hasEnded = true
        switch phase {
        case .head, .discarding, .lingering: close()
        case .lengthBody, .chunkedBody: fail()
        case .responding: exchange?.downstreamEnded()
        case .tunnel: exchange?.tunnelClientEnded()
        case .closed: break
        }
    }

    override func failed(_ code: Int32) { fail() }

    private func fail() {
        guard phase != .closed else { return }
        let exchange = self.exchange
        self.exchange = nil
        close()
        exchange?.downstreamFailed()
    }

    override func congested() {
        setDeadline(worker.timeouts.bodyProgressNanoseconds)
        exchange?.downstreamCongested()
    }

    override func drained() {
        if endsOutput { connection?.shutDownWriting() }
        switch phase {
        case .responding, .tunnel: setDeadline(.max)
        case .lingering: linger()
        case .head, .lengthBody, .chunkedBody, .discarding, .closed: break
        }
        exchange?.downstreamDrained()
    }

    override func deadlinePassed() {
        switch phase {
        case .head:
            // Silence between requests is no fault; half a head is.
            if scan == nil { close() } else { refuseHead(nil) }
        case .lengthBody, .chunkedBody:
            if connection?.isCongested == true { return fail() }
            closesAfter = true
            clientKeepsAlive = false
            exchange?.requestTimedOut()
        case .responding, .tunnel: fail()
        case .discarding, .lingering: close()
        case .closed: break
        }
    }

    private func keepPace(received count: Int = 0) {
        guard let connection else { return }
        pace.received(count, now: worker.loop.nowNanoseconds)
        worker.loop.setDeadline(connection, atNanoseconds: pace.dueNanoseconds)
    }

    private func setDeadline(_ nanoseconds: UInt64) {
        guard let connection else { return }
        if nanoseconds == .max {
            worker.loop.setDeadline(connection, atNanoseconds: .max)
        } else {
            worker.loop.setDeadline(connection, afterNanoseconds: nanoseconds)
        }
    }

    override func pauseBody() {
        let wasPaused = bodyIsPaused
        bodyIsPaused = true
        // The client is waiting for us now, not we for it.
        if phase == .lengthBody || phase == .chunkedBody {
            setDeadline(.max)
            if !wasPaused { pace.pause(now: worker.loop.nowNanoseconds) }
            connection?.pause()
        }
        if phase == .tunnel { connection?.pause() }
    }

    override func resumeBody() {
        guard bodyIsPaused else { return }
        bodyIsPaused = false
        if phase == .lengthBody || phase == .chunkedBody {
            pace.resume(now: worker.loop.nowNanoseconds)
            keepPace()
            connection?.resume()
        }
        if phase == .tunnel { connection?.resume() }
    }

    override var isCongested: Bool { connection?.isCongested ?? false }
    override var carriesTunnels: Bool { true }
    override var carriesTrailers: Bool { clientMinorVersion >= 1 }

    // MARK: The response goes out

    override func sendInformational(_ head: HTTPHead?) {
        guard let connection, clientMinorVersion >= 1 else { return }
        guard let head else {
            continueSent = true
            connection.emit("HTTP/1.1 100 Continue\r\n\r\n")
            return worker.flush()
        }
        if head.status == 100 { continueSent = true }
        ResponseHeadWriter.writeInformational(head, to: connection)
        worker.flush()
    }

    override func sendHead(
        status: Int, upstream: HTTPHead?, contentLength: Int64, hasBody: Bool
    ) {
        guard let exchange, let connection else { return }
        let reframes = exchange.declaresTrailers && hasBody && clientMinorVersion >= 1
        if !hasBody {
            framing = .none
        } else if contentLength >= 0, !reframes {
            framing = .length
        } else {
            framing = clientMinorVersion >= 1 ? .chunked : .untilClose
        }
        // What comes behind an upgrade that did not happen may be of another protocol: no request.
        closesAfter =
            closesAfter || UpgradeRules.mayBeOptimistic(exchange.requestHead) || decidesToClose()
        let isWritten = ResponseHeadWriter.write(
            status: status, upstream: upstream, exchange: exchange, connection: connection,
            contentLength: framing == .chunked ? -1 : contentLength, isChunked: framing == .chunked,
            closes: closesAfter, keepsAliveOld: clientMinorVersion == 0 && !closesAfter)
        if !isWritten { aborted = true }
    }

    private func decidesToClose() -> Bool {
        if !clientKeepsAlive || worker.isDraining || framing == .untilClose || hasEnded {
            return true
        }
        switch phase {
        case .lengthBody:
            // A client that was not told to continue may send the body or the next request.
            return remaining > Int64(Limits.drainBytesMax) || (expectsContinue && !continueSent)
        case .chunkedBody: return expectsContinue && !continueSent
        case .head, .responding, .tunnel, .discarding, .lingering, .closed: return false
        }
    }

    override func sendBody(_ bytes: UnsafeRawBufferPointer) {
        guard let connection, bytes.count > 0, !aborted else { return }
        switch framing {
        case .none: break
        case .length, .untilClose: connection.emit(bytes)
        case .chunked:
            // Size, data and line end leave together: some clients wait for the last of them.
            guard let room = connection.reserve(bytes.count + 20) else { return abort() }
            var writer = HeadWriter(room)
            writer.write(hex: UInt64(bytes.count))
            writer.write("\r\n")
            writer.write(bytes)
            writer.write("\r\n")
            connection.commit(writer.count)
        }
    }

    override func sendEnd(upstreamTrailers: HTTPHead?) {
        guard let connection, let exchange else { return }
        if aborted { return abort() }
        if framing == .chunked {
            ResponseHeadWriter.writeEnd(
                exchange: exchange, upstreamTrailers: upstreamTrailers, connection: connection)
        }
        responseIsWhole = true
        self.exchange = nil
        bodyIsPaused = false
        switch phase {
        case .responding: next()
        case .lengthBody, .chunkedBody:
            if closesAfter { return linger() }
            phase = .discarding
            setDeadline(worker.timeouts.lingerNanoseconds)
            connection.resume()
        case .lingering: linger()
        case .head, .tunnel, .discarding, .closed: break
        }
    }

    // MARK: A tunnel

    override func beginTunnel(_ head: HTTPHead) {
        guard let exchange, let connection else { return }
        framing = .none
        let isWritten = ResponseHeadWriter.writeSwitch(
            head, exchange: exchange, connection: connection)
        guard isWritten else { return cut() }
        phase = .tunnel
        bodyIsPaused = false
        setDeadline(.max)
        // What came behind the head waits unread.
        connection.resume()
        connection.offerAgain()
        if hasEnded { exchange.tunnelClientEnded() }
    }

    override func sendTunnel(_ bytes: UnsafeRawBufferPointer) { connection?.emit(bytes) }

    override func endTunnelOutput() {
        endsOutput = true
        connection?.shutDownWriting()
    }

    override func endTunnel() {
        exchange = nil
        closesAfter = true
        endsOutput = false
        phase = .responding
        next()
    }

    override func abort() {
        exchange = nil
        phase = .closed
        // What was sent so far may still be useful; only a body that ends with the connection must
        // not look whole.
        if framing == .untilClose {
            closeConnection(resets: true)
        } else {
            worker.flush()
            closeConnection(resets: false)
        }
    }

    /// Refuses bytes that are no request. `nil`: it took too long.
    private func refuseHead(_ error: HeadError?) {
        clientKeepsAlive = false
        clientMinorVersion = 1
        framing = .none
        closesAfter = true
        responseIsWhole = false
        discarded = 0
        phase = .lingering
        let exchange = worker.takeExchange()
        self.exchange = exchange
        exchange.refuseUnparsed(server: self, error?.reason ?? .requestTimeout)
    }

    // MARK: The next request, or the end

    private func next() {
        if closesAfter || hasEnded {
            discarded = 0
            worker.flush()
            // Nothing unread can turn the close into a reset, unless the client sent more.
            if connection?.hasUnread == true || isCongested { return linger() }
            return close()
        }
        phase = .head
        setDeadline(worker.timeouts.keepAliveNanoseconds)
        connection?.resume()
        connection?.offerAgain()
    }

    private func linger() {
        phase = .lingering
        guard let connection else { return }
        connection.shutDownWriting()
        // What was sent has not left yet: `drained` comes back here.
        if connection.isCongested {
            return setDeadline(worker.timeouts.bodyProgressNanoseconds)
        }
        setDeadline(worker.timeouts.lingerNanoseconds)
        connection.resume()
        if hasEnded { close() }
    }

    private func close() {
        phase = .closed
        closeConnection(resets: false)
    }

    private func closeConnection(resets: Bool) {
        connection?.close(resets: resets)
        detach()
    }

    private func detach() {
        connection = nil
        worker.connectionClosed(self)
    }

    /// Between requests: closes. Otherwise the response in progress says `Connection: close`.
    func drain() {
        if phase == .head, scan == nil { close() } else { closesAfter = true }
    }

    func cut() { fail() }
}

extension HeadError {
    var reason: Reason {
        switch self {
        case .malformed: .malformed
        case .tooLarge: .headersTooLarge
        case .targetTooLong: .uriTooLong
        case .version: .version
        case .notImplemented: .notImplemented
        case .expectation: .expectation
        }
    }
}

extension Exchange {
    /// Answers something that was no request. No interceptor hears of it.
    func refuseUnparsed(server: ServerStream, _ reason: Reason, method: HTTPMethod = .other) {
        self.server = server
        phase = .deciding
        requestHead.method = method
        refuse(Refusal(reason))
    }
}
