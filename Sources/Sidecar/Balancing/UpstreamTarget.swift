import Glibc
import WeirCore

/// One address of an upstream, with its idle connections.
package final class Endpoint {
    package let address: SocketAddress
    package internal(set) var load = EndpointLoad()
    /// Last in, first out: the warmest connection is used again, and superfluous ones grow old.
    var idle: ContiguousArray<HTTP1ClientConnection> = []
    var openConnections = 0
    var isRetired = false

    init(_ address: SocketAddress) { self.address = address }
}

/// A cluster of endpoints that serve the same agent, as one worker sees it: who gets the next
/// request, on which connection. Each worker has its own.
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
    /// Changed by a new policy: what is under way keeps the deadline that it has.
    package var timeouts: Timeouts
    package private(set) var endpoints: ContiguousArray<Endpoint> = []
    private let connectionsMax: Int
    private var waiting: ContiguousArray<Exchange> = []

    package init(
        name: String, worker: Worker, addresses: [SocketAddress], hostOverride: String? = nil,
        timeouts: Timeouts? = nil, connectionsPerEndpoint: Int = Limits.connectionsPerEndpoint
    ) {
        self.name = name
        self.worker = worker
        self.hostOverride = hostOverride
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
        guard let endpoint = choose() else { return .refused(.noEndpoint) }
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

    /// Two choices; an ejected endpoint is taken only when there is no other, so that the last one
    /// is never lost.
    private func choose() -> Endpoint? {
        let count = endpoints.count
        if count <= 1 { return endpoints.first }
        let now = worker.loop.nowNanoseconds
        let first = endpoints[worker.random(below: count)]
        let second = endpoints[worker.random(below: count)]
        switch (first.load.isEjected(now: now), second.load.isEjected(now: now)) {
        case (false, false): return second.load.cost < first.load.cost ? second : first
        case (false, true): return first
        case (true, false): return second
        case (true, true): return endpoints.first { !$0.load.isEjected(now: now) } ?? first
        }
    }

    private func connect(_ endpoint: Endpoint, for exchange: Exchange) -> Checkout {
        do {
            let descriptor = try Socket.connect(to: endpoint.address)
            let connection = HTTP1ClientConnection(target: self, endpoint: endpoint)
            try connection.start(descriptor.take(), for: exchange)
            endpoint.openConnections += 1
            exchange.opening = connection
            return .pending
        } catch {
            endpoint.load.connectFailed(now: worker.loop.nowNanoseconds)
            return .refused(error.code == EMFILE ? .overloaded : .upstreamError)
        }
    }

    /// The exchange needs no connection any more.
    func forget(_ exchange: Exchange) { waiting.removeAll { $0 === exchange } }

    // MARK: Connections come back

    func release(_ connection: HTTP1ClientConnection) {
        let endpoint = connection.endpoint
        if let next = waiting.first {
            waiting.removeFirst()
            return next.upstreamReady(connection)
        }
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
        if !waiting.isEmpty {
            let next = waiting.removeFirst()
            next.retryCheckout()
        }
    }
}
