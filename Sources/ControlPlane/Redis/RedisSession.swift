import Glibc

/// Why there is no connection, for people.
struct RedisSessionFailure: Error {
    let detail: String
}

/// One connected and logged-in socket with its parser and what is not written yet. Owned by one
/// thread.
final class RedisSession {
    private let socket: RedisSocket
    private let reader = RedisReader()
    private var output: ArraySlice<UInt8> = []
    private var buffer = [UInt8](repeating: 0, count: StoreLimits.redisReadBytes)
    private var isClosed = false

    private init(socket: consuming RedisSocket) { self.socket = socket }

    var descriptor: Int32 { socket.descriptor }
    var hasOutput: Bool { !output.isEmpty }

    /// Connects, logs in and makes sure that Redis serves (it answers LOADING while it reads its
    /// files). Fails with words for people when any of that does not succeed within the limit.
    static func open(_ url: RedisURL) -> Result<RedisSession, RedisSessionFailure> {
        guard let socket = RedisSocket.connect(to: url.address) else {
            return .failure(RedisSessionFailure(detail: "nobody answers at \(url.address)"))
        }
        let session = RedisSession(socket: socket)
        let deadline = MonotonicClock.nowNanoseconds + StoreLimits.redisConnectNanoseconds
        var greeting: [[String]] = []
        if let password = url.password {
            greeting.append(["AUTH"] + (url.user.map { [$0] } ?? []) + [password])
        }
        if url.database > 0 { greeting.append(["SELECT", String(url.database)]) }
        greeting.append(["PING"])
        for command in greeting {
            switch session.ask(command, deadlineNanoseconds: deadline) {
            case .string: continue
            case .error(let text):
                return .failure(RedisSessionFailure(detail: "\(command[0]) is refused: \(text)"))
            case .null, .integer, .array, nil:
                return .failure(RedisSessionFailure(detail: "\(command[0]) has no answer"))
            }
        }
        return .success(session)
    }

    /// Sends one command and waits for its answer; only before the pipeline begins.
    private func ask(_ command: [String], deadlineNanoseconds: UInt64) -> RedisReply? {
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
            guard let count = socket.write(output) else { return false }
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
            let result = buffer.withUnsafeMutableBytes { socket.read(into: $0) }
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
