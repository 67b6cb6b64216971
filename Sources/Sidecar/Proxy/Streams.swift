/// The downstream side of one exchange, whatever protocol carries it. Commands come from the
/// `Exchange`; events go to it. An HTTP/1.1 connection is one stream after another; an HTTP/2
/// connection makes one object for each.
package class ServerStream: ConnectionOwner {
    unowned(unsafe) let worker: Worker
    /// Who sent the request.
    var peer: SocketAddress
    /// Written once for all requests that come from there.
    lazy var peerHost = HostText(peer)
    var isSecure: Bool
    /// Whom the client's verified certificate names; `nil` where it had to show none.
    var identity: PeerIdentity?
    var exchange: Exchange?

    init(
        worker: Worker, peer: SocketAddress, isSecure: Bool, identity: PeerIdentity? = nil
    ) {
        self.worker = worker
        self.peer = peer
        self.isSecure = isSecure
        self.identity = identity
    }

    /// Whether trailers can be sent to this client at all.
    var carriesTrailers: Bool { true }

    /// A 1xx head of the upstream's; `nil` for our own `100 Continue`.
    func sendInformational(_ head: HTTPHead?) { preconditionFailure("abstract") }
    /// The final head: the upstream's fields, if there are, and the exchange's added ones.
    /// `contentLength` below 0 means that it is not known.
    func sendHead(status: Int, upstream: HTTPHead?, contentLength: Int64, hasBody: Bool) {
        preconditionFailure("abstract")
    }
    func sendBody(_ bytes: UnsafeRawBufferPointer) { preconditionFailure("abstract") }
    /// The end of the response, with the exchange's trailers and those of the upstream.
    func sendEnd(upstreamTrailers: HTTPHead?) { preconditionFailure("abstract") }
    // A tunnel (`Exchange+Tunnel`).
    /// Whether the connection can turn into another protocol's; HTTP/2 cannot (RFC 9113 §8.6).
    var carriesTunnels: Bool { false }
    /// Writes the head of a 101; from here on the connection carries bytes.
    func beginTunnel(_ head: HTTPHead) { preconditionFailure("abstract") }
    func sendTunnel(_ bytes: UnsafeRawBufferPointer) { preconditionFailure("abstract") }
    /// The upstream sends no more.
    func endTunnelOutput() { preconditionFailure("abstract") }
    /// Closes, once everything has left.
    func endTunnel() { preconditionFailure("abstract") }

    /// The response cannot be finished: make sure that the client sees that.
    func abort() { preconditionFailure("abstract") }
    func pauseBody() { preconditionFailure("abstract") }
    func resumeBody() { preconditionFailure("abstract") }
    /// Waiting output is more than the stream should hold.
    var isCongested: Bool { preconditionFailure("abstract") }
}

/// Why an upstream could not give a whole response.
package enum UpstreamFailure: Equatable, Sendable {
    case connectFailed(Int32)
    /// Connected, but there was no TLS session with whom we wanted to meet.
    case handshakeFailed(TLSFailure)
    case connectTimeout
    /// Closed before any byte of the response. On a reused connection, most likely because the
    /// upstream closed it at the same time (RFC 9112 §9.3.1).
    case closedBeforeAnswer
    /// The upstream says that it has not begun with the request (RFC 9113 §8.7).
    case refused
    /// The upstream gave up this request before it answered.
    case reset
    case protocolError
    case firstByteTimeout
    case stalled
    case diedMidStream
    case noMemory
}

/// The upstream side of one exchange.
package class ClientStream: ConnectionOwner {
    unowned(unsafe) let worker: Worker
    let endpoint: Endpoint
    var exchange: Exchange?

    init(worker: Worker, endpoint: Endpoint) {
        self.worker = worker
        self.endpoint = endpoint
    }

    /// Has carried an exchange before, so that it may have been closed under us.
    var isReused: Bool { preconditionFailure("abstract") }
    /// Some byte of this exchange's request was taken by the kernel.
    var hasSent: Bool { preconditionFailure("abstract") }
    /// Writes the head. False when there is no memory for it.
    func begin(_ exchange: Exchange) -> Bool { preconditionFailure("abstract") }
    /// Whether gRPC can be carried at all.
    var speaksHTTP2: Bool { false }
    func sendBody(_ bytes: UnsafeRawBufferPointer) { preconditionFailure("abstract") }
    func sendEnd(trailers: HTTPHead?) { preconditionFailure("abstract") }
    func cancel() { preconditionFailure("abstract") }
    var carriesTunnels: Bool { false }
    func beginTunnel() { preconditionFailure("abstract") }
    /// The client sends no more.
    func endTunnelOutput() { preconditionFailure("abstract") }
    func pauseResponse() { preconditionFailure("abstract") }
    func resumeResponse() { preconditionFailure("abstract") }
    var isCongested: Bool { preconditionFailure("abstract") }
}
