import Glibc
import Synchronization
import WeirCore

@testable import SidecarCore

/// Admits everything to one target and records how exchanges end; tests replace single decisions.
class TestInterceptor: Interceptor {
    let target: UpstreamTarget
    let outcomes: OutcomeLog
    init(target: UpstreamTarget, outcomes: OutcomeLog) {
        self.target = target
        self.outcomes = outcomes
    }

    override func requestBegan(_ exchange: Exchange) -> Verdict { .admit(target) }

    override func exchangeEnded(_ exchange: Exchange, _ outcome: ExchangeOutcome) {
        outcomes.append(outcome)
    }
}

final class OutcomeLog: Sendable {
    private let list = Mutex<[ExchangeOutcome]>([])
    func append(_ outcome: ExchangeOutcome) { list.withLock { $0.append(outcome) } }
    var all: [ExchangeOutcome] { list.withLock { $0 } }
    func waitForOne() -> ExchangeOutcome? {
        _ = eventually { !self.all.isEmpty }
        return all.first
    }
}

/// A running sidecar in front of a test's upstream.
final class ProxyFixture {
    let server: SidecarServer
    let outcomes = OutcomeLog()
    /// Touched on the worker's loop.
    let target: UpstreamTarget
    private var isStopped = false

    init(
        _ upstreams: [SocketAddress], timeouts: Timeouts = Timeouts(),
        connectionsPerEndpoint: Int = Limits.connectionsPerEndpoint,
        wire: UpstreamProtocol = .http1,
        transport: UpstreamTransport = .plaintext, tls: TLSListener? = nil,
        make: (UpstreamTarget, OutcomeLog) -> Interceptor = {
            TestInterceptor(target: $0, outcomes: $1)
        }
    ) throws {
        let configuration = ServerConfiguration(
            listen: .loopback(port: 0), workers: 1, timeouts: timeouts, tls: tls)
        let log = outcomes
        var made: UpstreamTarget?
        server = try SidecarServer(configuration) { worker in
            let target = UpstreamTarget(
                name: "agent", worker: worker, addresses: upstreams, wire: wire,
                transport: transport, connectionsPerEndpoint: connectionsPerEndpoint)
            made = target
            return make(target, log)
        }
        guard let made else { preconditionFailure("a server without a worker") }
        target = made
    }

    convenience init(_ upstream: TestUpstream, timeouts: Timeouts = Timeouts()) throws {
        try self.init([upstream.address], timeouts: timeouts)
    }

    func client() -> TestSocket { TestSocket(to: server.address) }

    /// Runs on the worker's loop and waits.
    func onLoop<Result>(_ body: @escaping (Worker) -> Result) -> Result {
        let worker = server.workers[0]
        let done = Signal()
        var result: Result?
        let call = UncheckedCall { result = body(worker) }
        worker.loop.execute {
            call.run()
            done.set()
        }
        precondition(done.wait(), "the loop did not answer")
        guard let result else { preconditionFailure("the loop did not answer") }
        return result
    }

    func stop() {
        guard !isStopped else { return }
        isStopped = true
        server.stop()
    }

    deinit { stop() }
}

func get(_ path: String, _ fields: String = "") -> String {
    "GET \(path) HTTP/1.1\r\nHost: agent\r\n\(fields)\r\n"
}

func post(_ path: String, _ body: String, _ fields: String = "") -> String {
    "POST \(path) HTTP/1.1\r\nHost: agent\r\nContent-Length: \(body.utf8.count)\r\n"
        + "\(fields)\r\n\(body)"
}
