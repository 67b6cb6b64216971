import Glibc

/// Why there is no connection, for people.
struct RedisSessionFailure: Error {
    let detail: String
}

/// One server, and what it takes to be let in.
struct RedisEndpoint: Sendable {
    var address: RedisURL.Address
    var login = RedisURL.Login()
    var database = 0
    var tls: RedisTLS?
    /// Refuses a replica: a Sentinel may name one that is none any more.
    var mustBePrimary = false
    var connectNanoseconds = StoreLimits.redisConnectNanoseconds
}

/// One connected and logged-in socket with its parser and what is not written yet. Owned by one
/// thread.
final class RedisSession {
    private let socket: RedisSocket
    private let tls: RedisTLSStream?
    private let reader = RedisReader()
    private var output: ArraySlice<UInt8> = []
    private var buffer = [UInt8](repeating: 0, count: StoreLimits.redisReadBytes)
    private var isClosed = false

    private init(socket: consuming RedisSocket, tls: RedisTLSStream?) {
        self.socket = socket
        self.tls = tls
    }

    var descriptor: Int32 { socket.descriptor }
    var hasOutput: Bool { !output.isEmpty }

    /// Connects, logs in and makes sure that Redis serves (it answers LOADING while it reads its
    /// files). Fails with words for people when any of that does not succeed within the limit.
    static func open(_ endpoint: RedisEndpoint) -> Result<RedisSession, RedisSessionFailure> {
        let deadline = MonotonicClock.nowNanoseconds + endpoint.connectNanoseconds
        guard let socket = RedisSocket.connect(to: endpoint.address, untilNanoseconds: deadline)
        else {
            return .failure(RedisSessionFailure(detail: "nobody answers at \(endpoint.address)"))
        }
        var stream: RedisTLSStream?
        if let context = endpoint.tls, let host = endpoint.address.host {
            stream = RedisTLSStream(context, host: host, descriptor: socket.descriptor)
            guard let stream else {
                return .failure(RedisSessionFailure(detail: "OpenSSL has no memory"))
            }
            if let detail = handshake(stream, socket, untilNanoseconds: deadline) {
                return .failure(RedisSessionFailure(detail: "\(endpoint.address): \(detail)"))
            }
        }
        let session = RedisSession(socket: socket, tls: stream)
        if let failure = session.greet(endpoint, deadlineNanoseconds: deadline) {
            return .failure(failure)
        }
        return .success(session)
    }

    /// Words when it fails.
    private static func handshake(
        _ stream: RedisTLSStream, _ socket: borrowing RedisSocket,
        untilNanoseconds deadline: UInt64
    ) -> String? {
        while true {
            switch stream.handshake() {
            case .done: return nil
            case .failed(let detail): return detail
            case .needs(let events):
                guard socket.wait(for: events, untilNanoseconds: deadline) else {
                    return "the TLS handshake takes too long"
                }
            }
        }
    }

    private func greet(
        _ endpoint: RedisEndpoint, deadlineNanoseconds: UInt64
    ) -> RedisSessionFailure? {
        var greeting: [[String]] = []
        if let password = endpoint.login.password {
            greeting.append(["AUTH"] + (endpoint.login.user.map { [$0] } ?? []) + [password])
        }
        if endpoint.database > 0 { greeting.append(["SELECT", String(endpoint.database)]) }
        greeting.append(endpoint.mustBePrimary ? ["ROLE"] : ["PING"])
        for command in greeting {
            switch ask(command, deadlineNanoseconds: deadlineNanoseconds) {
            case .string: continue
            case .array(let parts) where parts.first?.text == "master": continue
            case .array:
                return RedisSessionFailure(detail: "\(endpoint.address) is no primary")
            case .error(let text):
                return RedisSessionFailure(detail: "\(command[0]) is refused: \(text)")
            case .null, .integer, nil:
                return RedisSessionFailure(detail: "\(command[0]) has no answer")
            }
        }
        return nil
    }

    /// Sends one command and waits for its answer; only before the pipeline begins.
    func ask(_ command: [String], deadlineNanoseconds: UInt64) -> RedisReply? {
        queue(RedisWire.command(command))
        while true {
            guard flush() else { return nil }
            do {
                if let reply = try nextReply() { return reply }
            } catch { return nil }
            let events = POLLIN | (hasOutput ? POLLOUT : 0)
            guard socket.wait(for: events, untilNanoseconds: deadlineNanoseconds) else {
                return nil
            }
        }
    }

    func queue(_ bytes: [UInt8]) {
        guard !bytes.isEmpty else { return }
        if output.isEmpty { output = bytes[...] } else { output += bytes }
    }

    /// Writes what the kernel takes; `false` when the connection is gone.
    func flush() -> Bool {
        while !output.isEmpty {
            guard let count = tls.map({ $0.write(output) }) ?? socket.write(output) else {
                return false
            }
            if count == 0 { return true }
            output = output.dropFirst(count)
        }
        return true
    }

    /// The next answer; `nil` when none has come whole yet.
    func nextReply() throws(RedisError) -> RedisReply? {
        while true {
            if let reply = try reader.next() { return reply }
            if isClosed { throw .connectionLost(maybeExecuted: true) }
            let result = buffer.withUnsafeMutableBytes { room in
                tls.map { $0.read(into: room) } ?? socket.read(into: room)
            }
            switch result {
            case .wouldBlock: return nil
            // Answers that came before the end still count.
            case .closed: isClosed = true
            case .bytes(let count):
                let fed = buffer.withUnsafeBytes {
                    reader.feed(UnsafeRawBufferPointer(rebasing: $0[..<count]))
                }
                guard fed else { throw .unexpectedReply("hiredis has no memory") }
            }
        }
    }
}
