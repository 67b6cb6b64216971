import Glibc

/// What is known of a downstream connection before its codec is made.
struct AcceptedConnection {
    unowned(unsafe) let worker: Worker
    let peer: SocketAddress
    let interceptor: Interceptor
    var isSecure = false
    /// Whom the client's verified certificate names.
    var identity: PeerIdentity?
}

/// A listener's TLS: the context of the moment, and who hears of handshakes that failed (on the
/// worker's loop).
package struct TLSListener: Sendable {
    let current: TLSCurrent<TLSServerContext>
    let failed: @Sendable (TLSFailure, SocketAddress) -> Void

    package init(
        _ current: TLSCurrent<TLSServerContext>,
        failed: @escaping @Sendable (TLSFailure, SocketAddress) -> Void = { _, _ in }
    ) {
        self.current = current
        self.failed = failed
    }
}

/// A downstream connection until its TLS handshake is over; then it is handed to the codec that
/// ALPN has chosen.
package final class ServerHandshake: ConnectionOwner {
    private var accepted: AcceptedConnection
    private let listener: TLSListener
    private var connection: Connection?
    /// Position in the worker's list.
    var index = -1

    init(_ accepted: AcceptedConnection, _ listener: TLSListener) {
        self.accepted = accepted
        self.listener = listener
    }

    func start(_ descriptor: Int32) throws {
        let worker = accepted.worker
        let connection = try Connection(
            worker: worker, descriptor: descriptor, owner: self, isConnecting: false,
            tls: try TLSSession(server: listener.current.context))
        self.connection = connection
        worker.loop.setDeadline(
            connection, afterNanoseconds: worker.timeouts.handshakeNanoseconds)
    }

    override func connected() {
        guard let connection, let tls = connection.tls else { return }
        self.connection = nil
        let worker = accepted.worker
        accepted.isSecure = true
        accepted.identity = tls.peer
        worker.handshakeEnded(self)
        worker.open(accepted, on: connection, as: tls.applicationProtocol ?? .http1)
    }

    /// Nothing of it is passed on before the handshake is over.
    override func received(_ bytes: UnsafeRawBufferPointer) -> Int { 0 }
    override func ended() { close() }

    override func failed(_ code: Int32) {
        if let failure = connection?.tlsFailure { listener.failed(failure, accepted.peer) }
        close()
    }

    override func deadlinePassed() {
        listener.failed(.connection(ETIMEDOUT), accepted.peer)
        close()
    }

    func close() {
        accepted.worker.handshakeEnded(self)
        connection?.close()
        connection = nil
    }
}
