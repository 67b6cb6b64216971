import Glibc
import WeirCore

/// A connection to an endpoint that is being opened, and the exchanges that wait for it. It owns
/// the connection until that can carry requests, and then hands it to the codec of its protocol:
/// HTTP/1.1 begins at once; HTTP/2 says first how many streams it takes.
package final class UpstreamOpening: ConnectionOwner {
    let target: UpstreamTarget
    let endpoint: Endpoint
    private var connection: Connection?
    private var waiting: ContiguousArray<Exchange> = []

    init(target: UpstreamTarget, endpoint: Endpoint) {
        self.target = target
        self.endpoint = endpoint
    }

    /// Takes the descriptor over, also when it throws.
    func start(_ descriptor: Int32, tls: TLSSession?) throws(SystemError) {
        let connection: Connection
        do {
            connection = try Connection(
                worker: target.worker, descriptor: descriptor, owner: self, isConnecting: true,
                tls: tls)
        } catch {
            _ = Glibc.close(descriptor)
            throw error
        }
        self.connection = connection
        target.worker.loop.setDeadline(
            connection, afterNanoseconds: target.timeouts.connectNanoseconds)
    }

    // MARK: Who waits

    /// Whether one more exchange may wait for this connection.
    var hasRoom: Bool {
        switch target.wire(to: endpoint) {
        case .http1: waiting.isEmpty
        case .http2: waiting.count < Limits.streamsExpected
        }
    }

    func join(_ exchange: Exchange) {
        waiting.append(exchange)
        exchange.opening = self
    }

    /// The exchange is over. The connection is opened nevertheless, and waits for somebody else.
    func forget(_ exchange: Exchange) { waiting.removeAll { $0 === exchange } }

    // MARK: What becomes of it

    override func connected() {
        guard let connection else { return }
        self.connection = nil
        switch chosen(by: connection) {
        case .http1:
            target.worker.loop.setDeadline(connection, atNanoseconds: .max)
            let codec = HTTP1ClientConnection(target, endpoint, connection)
            connection.handOver(to: codec)
            completed(codec)
        case .http2:
            let codec = HTTP2UpstreamConnection(target, endpoint, connection, opening: self)
            connection.handOver(to: codec)
            codec.start()
        }
    }

    /// With TLS the peer has chosen (RFC 7301); without a choice it speaks HTTP/1.1.
    private func chosen(by connection: Connection) -> UpstreamProtocol {
        guard let tls = connection.tls else { return target.wire }
        let chosen: UpstreamProtocol = tls.applicationProtocol == .http2 ? .http2 : .http1
        endpoint.chosen = chosen
        return chosen
    }

    /// One of those who wait can have the connection.
    private func completed(_ connection: HTTP1ClientConnection) {
        target.opened(self)
        let waiting = takeWaiting()
        if let first = waiting.first {
            first.upstreamReady(connection)
        } else {
            target.release(connection)
        }
        for exchange in waiting.dropFirst() { exchange.retryCheckout() }
    }

    /// The connection takes streams now.
    func completed(_ connection: HTTP2UpstreamConnection) {
        target.opened(self)
        for exchange in takeWaiting() {
            guard exchange.phase == .connecting else { continue }
            if let stream = connection.takeStream() {
                exchange.upstreamReady(stream)
            } else {
                exchange.retryCheckout()
            }
        }
        target.serveWaiting(connection)
    }

    /// There will be no connection, for any of those who wait for it.
    func fail(_ failure: UpstreamFailure) {
        connection?.close()
        connection = nil
        target.opened(self)
        let waiting = takeWaiting()
        for exchange in waiting where exchange.phase == .connecting {
            exchange.upstreamFailed(failure)
        }
        target.connectionClosed(endpoint)
    }

    private func takeWaiting() -> ContiguousArray<Exchange> {
        let waiting = self.waiting
        self.waiting = []
        for exchange in waiting { exchange.opening = nil }
        return waiting
    }

    // MARK: Events before the connection is there

    /// Nothing is delivered before `connected`.
    override func received(_ bytes: UnsafeRawBufferPointer) -> Int { 0 }
    override func ended() { fail(.connectFailed(ECONNRESET)) }
    override func failed(_ code: Int32) {
        guard let failure = connection?.tlsFailure else { return fail(.connectFailed(code)) }
        target.handshakeFailed(failure, at: endpoint)
        fail(.handshakeFailed(failure))
    }
    override func deadlinePassed() { fail(.connectTimeout) }
}
