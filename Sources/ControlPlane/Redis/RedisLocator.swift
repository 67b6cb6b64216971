import Synchronization

/// Finds the server of a connection, each time that one is needed.
protocol RedisLocator: Sendable {
    /// The next connection may be to another server than this one.
    var followsFailover: Bool { get }
    /// Blocks, for a bounded time.
    func open() -> Result<RedisSession, RedisSessionFailure>
}

/// Always the same server.
struct FixedServer: RedisLocator {
    let endpoint: RedisEndpoint
    let followsFailover = false

    func open() -> Result<RedisSession, RedisSessionFailure> { RedisSession.open(endpoint) }
}

/// The first of several that answers, for what any node of a cluster can tell.
struct AnyServer: RedisLocator {
    let endpoints: @Sendable () -> [RedisEndpoint]
    let followsFailover = true

    func open() -> Result<RedisSession, RedisSessionFailure> {
        var failure = RedisSessionFailure(detail: "no node is known")
        for endpoint in endpoints() {
            switch RedisSession.open(endpoint) {
            case .success(let session): return .success(session)
            case .failure(let latest): failure = latest
            }
        }
        return .failure(failure)
    }
}

/// The primary that Sentinels watch under a name. All of them are asked, and the one with the
/// highest configuration epoch is believed: one that was cut off still names the primary of before.
final class SentinelServer: RedisLocator {
    struct Primary: Hashable, Sendable {
        var address: RedisURL.Address
        var configurationEpoch: Int64
        /// Replicas that Sentinel has ever seen there, those that are down among them.
        var replicas: Int
    }

    private let sentinels: [RedisEndpoint]
    private let name: String
    private let primary: RedisEndpoint
    private let replicas = Mutex(0)
    let followsFailover = true

    /// `primary`: how to get into the primary; its address is what Sentinels say.
    init(sentinels: [RedisEndpoint], name: String, primary: RedisEndpoint) {
        self.sentinels = sentinels
        self.name = name
        self.primary = primary
    }

    /// Of the primary that was connected to last.
    var knownReplicas: Int { replicas.withLock { $0 } }

    func open() -> Result<RedisSession, RedisSessionFailure> {
        var found: [Primary] = []
        var failure = RedisSessionFailure(detail: "no Sentinel is known")
        for sentinel in sentinels {
            switch ask(sentinel) {
            case .success(let primary): found.append(primary)
            case .failure(let latest): failure = latest
            }
        }
        guard let newest = Self.newest(of: found) else { return .failure(failure) }
        var endpoint = primary
        endpoint.address = newest.address
        endpoint.mustBePrimary = true
        let session = RedisSession.open(endpoint)
        if case .success = session { replicas.withLock { $0 = newest.replicas } }
        return session
    }

    /// Of several with one epoch the first, so that the URL's order counts.
    static func newest(of found: [Primary]) -> Primary? {
        var newest = found.first
        for primary in found
        where primary.configurationEpoch > newest?.configurationEpoch ?? .min {
            newest = primary
        }
        return newest
    }

    private func ask(_ sentinel: RedisEndpoint) -> Result<Primary, RedisSessionFailure> {
        switch RedisSession.open(sentinel) {
        case .failure(let failure): return .failure(failure)
        case .success(let session):
            let deadline = MonotonicClock.nowNanoseconds + StoreLimits.redisSentinelNanoseconds
            let reply = session.ask(
                ["SENTINEL", "MASTER", name], deadlineNanoseconds: deadline)
            if let primary = reply.flatMap(Self.primary) { return .success(primary) }
            return .failure(
                RedisSessionFailure(detail: "Sentinel \(sentinel.address): \(words(for: reply))"))
        }
    }

    private func words(for reply: RedisReply?) -> String {
        switch reply {
        case .error(let text): text
        case nil: "no answer"
        default: "an answer that names no primary"
        }
    }

    static func primary(_ reply: RedisReply) -> Primary? {
        let fields = reply.fields
        guard let host = fields["ip"], !host.isEmpty,
            let port = fields["port"].flatMap({ UInt16($0) }), port > 0
        else { return nil }
        return Primary(
            address: .tcp(host: host, port: port),
            configurationEpoch: fields["config-epoch"].flatMap { Int64($0) } ?? 0,
            replicas: max(0, fields["num-slaves"].flatMap { Int($0) } ?? 0))
    }
}
