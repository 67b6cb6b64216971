import Glibc
import WeirCore

/// What is spoken to an upstream.
package enum UpstreamProtocol: Sendable {
    case http1
    /// With prior knowledge (RFC 9113 §3.3); with TLS, where the peer chooses it.
    case http2
}

/// One address of an upstream, with its connections that can take a request.
package final class Endpoint {
    package let address: SocketAddress
    /// HTTP/1.1, between requests. Last in, first out: the warmest connection is used again, and
    /// superfluous ones grow old.
    var idle: ContiguousArray<HTTP1ClientConnection> = []
    /// HTTP/2, with streams or without. The first that has room is taken, so that the last grow
    /// old.
    var shared: ContiguousArray<HTTP2UpstreamConnection> = []
    /// Connections being opened that many exchanges may wait for.
    fileprivate var openings: ContiguousArray<UpstreamOpening> = []
    var openConnections = 0
    var isRetired = false
    /// What its last connection spoke, where the peer chooses; `nil` before the first.
    var chosen: UpstreamProtocol?
    /// For the next TLS connection to it.
    let ticket = TLSTicket()

    init(_ address: SocketAddress) { self.address = address }
}

/// How the connections to an upstream are made.
package enum UpstreamTransport: Sendable {
    case plaintext
    case tls(TLSUpstream)
}

/// The connections of one worker to the endpoints of one agent. Which endpoint a request goes to is
/// decided before, for the whole process (`EndpointSet`); a request for which nobody decided goes
/// to the first.
package final class UpstreamTarget {
    enum Checkout {
        case ready(ClientStream)
        /// `Exchange.upstreamReady` or `upstreamFailed` follows.
        case pending
        case refused(Reason)
    }

    package let name: String
    unowned(unsafe) let worker: Worker
    /// Sent as `Host` instead of the client's, when set.
    package let hostOverride: String?
    package let wire: UpstreamProtocol
    let transport: UpstreamTransport
    /// Stands before the path of every request; "" for none.
    let pathPrefix: String
    /// Changed by a new policy: what is under way keeps the deadline that it has.
    package var timeouts: Timeouts
    package private(set) var endpoints: ContiguousArray<Endpoint> = []
    private let connectionsMax: Int
    private var waiting: ContiguousArray<Exchange> = []

    package init(
        name: String, worker: Worker, addresses: [SocketAddress],
        wire: UpstreamProtocol = .http1, hostOverride: String? = nil, pathPrefix: String = "",
        transport: UpstreamTransport = .plaintext, timeouts: Timeouts? = nil,
        connectionsPerEndpoint: Int = Limits.connectionsPerEndpoint
    ) {
        self.name = name
        self.worker = worker
        self.hostOverride = hostOverride
        if case .tls(let upstream) = transport {
            self.wire = upstream.protocols.contains(.http2) ? .http2 : .http1
        } else {
            self.wire = wire
        }
        self.transport = transport
        self.pathPrefix = pathPrefix
        self.timeouts = timeouts ?? worker.timeouts
        connectionsMax = connectionsPerEndpoint
        update(addresses: addresses)
    }

    /// New endpoints from discovery. Known ones keep their connections and their history; requests
    /// in flight to others end in peace.
    package func update(addresses: [SocketAddress]) {
        let old = endpoints
        endpoints = ContiguousArray(
            addresses.map { address in
                old.first { $0.address == address } ?? Endpoint(address)
            })
        for endpoint in old where !endpoints.contains(where: { $0 === endpoint }) {
            endpoint.isRetired = true
            closeIdle(endpoint)
        }
    }

    package func closeIdleConnections() { endpoints.forEach(closeIdle) }

    private func closeIdle(_ endpoint: Endpoint) {
        while let connection = endpoint.idle.popLast() { connection.closeQuietly() }
        // They take themselves out of the list.
        for connection in endpoint.shared { connection.retire() }
    }

    var isSecure: Bool {
        switch transport {
        case .plaintext: false
        case .tls: true
        }
    }

    // MARK: A connection for an exchange

    func checkout(for exchange: Exchange) -> Checkout {
        guard let endpoint = endpoint(for: exchange.upstreamAddress) else {
            return .refused(.noEndpoint)
        }
        while let connection = endpoint.idle.popLast() {
            if connection.isUsable() { return .ready(connection) }
            connection.closeQuietly()
        }
        for connection in endpoint.shared {
            if let stream = connection.takeStream() { return .ready(stream) }
        }
        if let opening = endpoint.openings.first(where: \.hasRoom) {
            opening.join(exchange)
            return .pending
        }
        if endpoint.openConnections < connectionsMax {
            return connect(endpoint, for: exchange)
        }
        guard waiting.count < Limits.waitingPerCluster else { return .refused(.overloaded) }
        waiting.append(exchange)
        return .pending
    }

    /// What the next connection will speak, as far as one can know before its handshake.
    func wire(to endpoint: Endpoint) -> UpstreamProtocol { endpoint.chosen ?? wire }

    /// An address that this worker has not been told of yet is one that the process knows already:
    /// it is taken in, and the next `update` says whether it stays.
    private func endpoint(for address: SocketAddress?) -> Endpoint? {
        guard let address else { return endpoints.first }
        if let known = endpoints.first(where: { $0.address == address }) { return known }
        let new = Endpoint(address)
        endpoints.append(new)
        return new
    }

    private func connect(_ endpoint: Endpoint, for exchange: Exchange) -> Checkout {
        do {
            let tls = try session(to: endpoint)
            let descriptor = try Socket.connect(to: endpoint.address)
            let opening = UpstreamOpening(target: self, endpoint: endpoint)
            try opening.start(descriptor.take(), tls: tls)
            endpoint.openConnections += 1
            if wire(to: endpoint) == .http2 { endpoint.openings.append(opening) }
            opening.join(exchange)
            return .pending
        } catch {
            return .refused(error.code == EMFILE ? .overloaded : .upstreamError)
        }
    }

    private func session(to endpoint: Endpoint) throws(SystemError) -> TLSSession? {
        guard case .tls(let upstream) = transport else { return nil }
        do throws(TLSFailure) {
            return try upstream.session(to: endpoint.address, ticket: endpoint.ticket)
        } catch {
            upstream.report(error, at: endpoint.address)
            throw SystemError("TLS", code: ENOMEM)
        }
    }

    /// For operators: the client is told less.
    func handshakeFailed(_ failure: TLSFailure, at endpoint: Endpoint) {
        if case .tls(let upstream) = transport { upstream.report(failure, at: endpoint.address) }
    }

    /// The exchange needs no connection any more.
    func forget(_ exchange: Exchange) { waiting.removeAll { $0 === exchange } }

    // MARK: Connections come back

    func release(_ connection: HTTP1ClientConnection) {
        let endpoint = connection.endpoint
        if let next = takeWaiting(for: endpoint) { return next.upstreamReady(connection) }
        guard !endpoint.isRetired, !worker.isDraining,
            endpoint.idle.count < Limits.idleConnectionsPerEndpoint
        else { return connection.closeQuietly() }
        endpoint.idle.append(connection)
        connection.becameIdle()
    }

    func connectionClosed(_ connection: HTTP1ClientConnection, wasIdle: Bool) {
        let endpoint = connection.endpoint
        if wasIdle, let index = endpoint.idle.firstIndex(where: { $0 === connection }) {
            endpoint.idle.remove(at: index)
        }
        connectionClosed(endpoint)
    }

    /// A place for a connection became free.
    func connectionClosed(_ endpoint: Endpoint) {
        endpoint.openConnections -= 1
        takeWaiting(for: endpoint)?.retryCheckout()
    }

    /// The first that waits for this endpoint and no other.
    private func takeWaiting(for endpoint: Endpoint) -> Exchange? {
        let index = waiting.firstIndex {
            ($0.upstreamAddress ?? endpoints.first?.address) == endpoint.address
        }
        return index.map { waiting.remove(at: $0) }
    }

    // MARK: Connections of many streams

    /// The connection is there, or will never be.
    func opened(_ opening: UpstreamOpening) {
        opening.endpoint.openings.removeAll { $0 === opening }
    }

    /// From now on new streams may go to it.
    func share(_ connection: HTTP2UpstreamConnection) {
        if connection.endpoint.isRetired { return connection.retire() }
        connection.endpoint.shared.append(connection)
    }

    /// No new streams go to it any more.
    func unshare(_ connection: HTTP2UpstreamConnection) {
        connection.endpoint.shared.removeAll { $0 === connection }
    }

    /// A stream has ended, or the peer takes more than before.
    func serveWaiting(_ connection: HTTP2UpstreamConnection) {
        while !waiting.isEmpty, connection.hasRoom,
            let next = takeWaiting(for: connection.endpoint)
        {
            guard next.phase == .connecting, let stream = connection.takeStream() else { continue }
            next.upstreamReady(stream)
        }
    }
}
