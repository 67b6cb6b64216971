import SidecarCore
import WeirCrypto

/// Why a request to the control plane has no answer.
package enum MeshError: Error, Equatable, Sendable {
    /// There is no connection now.
    case unavailable
    /// The connection broke while the request was under way; it may or may not have been done.
    case lost
    case timedOut
    /// The control plane reset the stream; the HTTP/2 error code.
    case reset(UInt32)
    case tooLarge
    /// The control plane does not know this session any more; a new one is on its way.
    case sessionRefused
    /// The answer is not what the protocol says.
    case notUnderstood(String)
}

package struct MeshAnswer: Sendable {
    package var status: Int
    package var body: [UInt8]
}

/// One of the places where a control plane may be reached.
package struct Replica: Hashable, Sendable {
    /// "host:port", as the `:authority` of requests.
    package var authority: String
    package var address: SocketAddress

    package init(authority: String, address: SocketAddress) {
        self.authority = authority
        self.address = address
    }
}

/// The connection to the control plane: HTTP/2 with prior knowledge (RFC 9113 §3.3) over one
/// socket of the control loop, kept up by `LinkMachine`. Requests are `async` calls; while there
/// is no connection they fail at once, because whoever asks has a better answer than to wait.
///
/// Belongs to its loop: made, used and called back on that thread only.
package final class MeshClient {
    private let loop: EventLoop
    private var machine: LinkMachine
    private var replicas: [Replica]
    private var current: Replica
    private var connection: HTTP2ClientConnection?
    private var timer: Timer?
    private var exchanges: [Int32: MeshExchange] = [:]
    /// The state of the link changed: true for open.
    var linkChanged: ((Bool) -> Void)?

    package init(loop: EventLoop, replicas: [Replica]) {
        precondition(!replicas.isEmpty, "a link needs somewhere to go")
        self.loop = loop
        self.replicas = replicas
        current = replicas[0]
        machine = LinkMachine(replicaCount: replicas.count)
    }

    package var isOpen: Bool { machine.isOpen }
    var authority: String { current.authority }

    func start() { perform(machine.start(now: loop.nowNanoseconds)) }
    func stop() { perform(machine.stop()) }

    func replicasChanged(_ new: [Replica]) {
        guard !new.isEmpty else { return }
        replicas = Array(new.prefix(UplinkLimits.replicasMax))
        machine.replicasChanged(count: replicas.count)
    }

    // MARK: Requests

    func request(
        _ head: HTTP2RequestHead, body: [UInt8],
        timeoutNanoseconds: UInt64 = UplinkLimits.requestNanoseconds
    ) async throws(MeshError) -> MeshAnswer {
        try await run(head, body: body, exchange: MeshExchange(timeoutNanoseconds))
    }

    /// A request whose answer has no end: `received` gets each piece and says whether to go on.
    /// Returns when the stream has ended; silence for `idleNanoseconds` ends it too.
    func stream(
        _ head: HTTP2RequestHead, idleNanoseconds: UInt64,
        received: @escaping ([UInt8]) -> Bool
    ) async throws(MeshError) -> MeshAnswer {
        let exchange = MeshExchange(idleNanoseconds)
        exchange.received = received
        return try await run(head, body: [], exchange: exchange)
    }

    private func run(
        _ head: HTTP2RequestHead, body: [UInt8], exchange: MeshExchange
    ) async throws(MeshError) -> MeshAnswer {
        loop.preconditionInLoop()
        guard machine.isOpen, let connection,
            exchanges.count < UplinkLimits.requestsInFlightMax
        else { throw .unavailable }
        let stream: Int32
        do {
            stream = try connection.submit(head, body: body)
        } catch {
            throw .unavailable
        }
        exchanges[stream] = exchange
        restartTimer(exchange, stream)
        let result = await withCheckedContinuation { exchange.begin($0) }
        return try result.get()
    }

    private func restartTimer(_ exchange: MeshExchange, _ stream: Int32) {
        exchange.timer?.cancel()
        exchange.timer = loop.schedule(afterNanoseconds: exchange.timeoutNanoseconds) {
            [weak self] in self?.giveUp(stream, .timedOut)
        }
    }

    private func giveUp(_ stream: Int32, _ error: MeshError) {
        guard let exchange = exchanges.removeValue(forKey: stream) else { return }
        connection?.cancel(stream: stream)
        exchange.end(.failure(error))
    }

    // MARK: The machine's actions

    private func perform(_ actions: [LinkMachine.Action]) {
        for action in actions {
            switch action {
            case .connect(let replica): connect(replicas[replica])
            case .close: close()
            case .ping: connection?.ping(loop.nowNanoseconds)
            case .opened: linkChanged?(true)
            case .lost: linkChanged?(false)
            }
        }
        timer?.cancel()
        timer = machine.dueNanoseconds.map { due in
            let now = loop.nowNanoseconds
            return loop.schedule(afterNanoseconds: due > now ? due - now : 0) { [weak self] in
                self?.timePassed()
            }
        }
    }

    private func timePassed() {
        perform(machine.timePassed(now: loop.nowNanoseconds, random: randomWord()))
    }

    private func connectionFailed() {
        perform(machine.failed(now: loop.nowNanoseconds, random: randomWord()))
    }

    private func connect(_ replica: Replica) {
        current = replica
        do {
            connection = try HTTP2ClientConnection(loop: loop, to: replica.address) {
                [weak self] in self?.heard($0)
            }
        } catch {
            connectionFailed()
        }
    }

    private func close() {
        connection?.close()
        connection = nil
        let broken = exchanges.values
        exchanges = [:]
        for exchange in broken { exchange.end(.failure(.lost)) }
    }

    private func randomWord() -> UInt64 {
        Crypto.randomBytes(8).reduce(0) { $0 << 8 | UInt64($1) }
    }

    // MARK: From the connection

    private func heard(_ signal: HTTP2ClientConnection.Signal) {
        switch signal {
        case .connected: perform(machine.connected(now: loop.nowNanoseconds))
        // Found out when the timer comes up: a byte costs one store.
        case .alive: machine.heard(now: loop.nowNanoseconds)
        case .event(let event): handle(event)
        case .failed: connectionFailed()
        }
    }

    private func handle(_ event: HTTP2Event) {
        switch event {
        case .settings: perform(machine.settingsReceived(now: loop.nowNanoseconds))
        case .pong, .trailers: break  // A sign of life; and the mesh protocol has no trailers.
        case .head(let stream, let status, _): exchanges[stream]?.status = status
        case .data(let stream, let bytes): dataReceived(stream, bytes)
        case .closed(let stream, let code): streamClosed(stream, code)
        case .goAway: connectionFailed()
        }
    }

    private func dataReceived(_ stream: Int32, _ bytes: [UInt8]) {
        connection?.consume(stream: stream, bytes.count)
        guard let exchange = exchanges[stream] else { return }
        if let received = exchange.received, exchange.status == 200 {
            restartTimer(exchange, stream)
            if !received(bytes) { giveUp(stream, .notUnderstood("a line of the stream")) }
            return
        }
        guard exchange.body.count + bytes.count <= UplinkLimits.answerBytesMax else {
            return giveUp(stream, .tooLarge)
        }
        exchange.body.append(contentsOf: bytes)
    }

    private func streamClosed(_ stream: Int32, _ code: UInt32) {
        guard let exchange = exchanges.removeValue(forKey: stream) else { return }
        if code == 0, let status = exchange.status {
            exchange.end(.success(MeshAnswer(status: status, body: exchange.body)))
        } else {
            exchange.end(.failure(.reset(code)))
        }
    }
}

/// One request under way. Ended once; an end before the caller waits is kept for it.
private final class MeshExchange {
    typealias Continuation = CheckedContinuation<Result<MeshAnswer, MeshError>, Never>

    let timeoutNanoseconds: UInt64
    var status: Int?
    var body: [UInt8] = []
    var timer: Timer?
    /// Of a stream without end: takes each piece and says whether to go on.
    var received: (([UInt8]) -> Bool)?
    private var continuation: Continuation?
    private var result: Result<MeshAnswer, MeshError>?

    init(_ timeoutNanoseconds: UInt64) { self.timeoutNanoseconds = timeoutNanoseconds }

    func begin(_ continuation: Continuation) {
        if let result { return continuation.resume(returning: result) }
        self.continuation = continuation
    }

    func end(_ result: Result<MeshAnswer, MeshError>) {
        timer?.cancel()
        timer = nil
        received = nil
        guard self.result == nil else { return }
        self.result = result
        continuation?.resume(returning: result)
        continuation = nil
    }
}
