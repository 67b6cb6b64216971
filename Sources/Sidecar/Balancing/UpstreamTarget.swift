import Glibc
import WeirCore

/// One address of an upstream, with its idle connections.
package final class Endpoint {
    package let address: SocketAddress
    /// Last in, first out: the warmest connection is used again, and superfluous ones grow old.
    var idle: ContiguousArray<HTTP1ClientConnection> = []
    var openConnections = 0
    var isRetired = false
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
        case ready(HTTP1ClientConnection)
        /// `Exchange.upstreamReady` or `upstreamFailed` follows.
        case pending
        case refused(Reason)
    }

    package let name: String
    unowned(unsafe) let worker: Worker
    /// Sent as `Host` instead of the client's, when set.
    package let hostOverride: String?
    let transport: UpstreamTransport
    /// Stands before the path of every request; "" for none.
    let pathPrefix: String
    /// Changed by a new policy: what is under way keeps the deadline that it has.
    package var timeouts: Timeouts
    package private(set) var endpoints: ContiguousArray<Endpoint> = []
    private let connectionsMax: Int
    private var waiting: ContiguousArray<Exchange> = []

    package init(
        name: String, worker: Worker, addresses: [SocketAddress], hostOverride: String? = nil,
        pathPrefix: String = "", transport: UpstreamTransport = .plaintext,
        timeouts: Timeouts? = nil,
        connectionsPerEndpoint: Int = Limits.connectionsPerEndpoint
    ) {
        self.name = name
        self.worker = worker
        self.hostOverride = hostOverride
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
        if endpoint.openConnections < connectionsMax {
            return connect(endpoint, for: exchange)
        }
        guard waiting.count < Limits.waitingPerCluster else { return .refused(.overloaded) }
        waiting.append(exchange)
        return .pending
    }

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
            let connection = HTTP1ClientConnection(target: self, endpoint: endpoint)
            try connection.start(descriptor.take(), tls: tls, for: exchange)
            endpoint.openConnections += 1
            exchange.opening = connection
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
        endpoint.openConnections -= 1
        if wasIdle, let index = endpoint.idle.firstIndex(where: { $0 === connection }) {
            endpoint.idle.remove(at: index)
        }
        takeWaiting(for: endpoint)?.retryCheckout()
    }

    /// The first that waits for this endpoint and no other.
    private func takeWaiting(for endpoint: Endpoint) -> Exchange? {
        let index = waiting.firstIndex {
            ($0.upstreamAddress ?? endpoints.first?.address) == endpoint.address
        }
        return index.map { waiting.remove(at: $0) }
    }
}
