import Glibc
import Synchronization
import WeirCrypto

/// One connection with a thread of its own: it sends all queued commands as one pipeline, hands the
/// answers out, and comes back with jittered back-off when Redis goes away. What it decides about
/// commands is in `RedisPipeline`; here are the socket and the clock.
final class RedisConnection: Sendable {
    private struct Inbox {
        var commands: [RedisCommand] = []
        /// Submitted and not completed, wherever they are.
        var waiting = 0
        var waitingBytes = 0
        var isClosed = false
        var problem: String? = "not connected yet"
    }

    private let url: RedisURL
    private let inbox = Mutex(Inbox())
    private let wakeUp = WakeUp()

    init(url: RedisURL) { self.url = url }

    func start() {
        Thread.start("weir-redis") { RedisConnectionLoop(connection: self, url: self.url).run() }
    }

    /// Queues a command; `completion` is called exactly once, on the connection's thread, or at
    /// once when the command is refused.
    func submit(
        _ arguments: [String], isIdempotent: Bool, timeoutNanoseconds: UInt64,
        completion: @escaping @Sendable (Result<RedisReply, RedisError>) -> Void
    ) {
        let bytes = RedisWire.command(arguments)
        let size = bytes.count
        let command = RedisCommand(
            bytes: bytes, isIdempotent: isIdempotent,
            deadlineNanoseconds: MonotonicClock.nowNanoseconds + timeoutNanoseconds,
            completion: { result in
                self.inbox.withLock {
                    $0.waiting -= 1
                    $0.waitingBytes -= size
                }
                completion(result)
            })
        let refusal: RedisError? = inbox.withLock { inbox in
            guard !inbox.isClosed else { return .closed }
            guard inbox.waiting < StoreLimits.redisCommandsMax,
                inbox.waitingBytes + size <= StoreLimits.redisQueuedBytesMax
            else { return .queueFull }
            inbox.waiting += 1
            inbox.waitingBytes += size
            inbox.commands.append(command)
            return nil
        }
        if let refusal { completion(.failure(refusal)) } else { wakeUp.signal() }
    }

    func close() {
        inbox.withLock { $0.isClosed = true }
        wakeUp.signal()
    }

    /// Why there is no connection now; `nil` while there is one.
    var problem: String? { inbox.withLock { $0.problem } }
    fileprivate func note(problem: String?) { inbox.withLock { $0.problem = problem } }

    fileprivate var isClosed: Bool { inbox.withLock { $0.isClosed } }
    fileprivate var wakeUpDescriptor: Int32 { wakeUp.descriptor }

    fileprivate func takeSubmitted() -> [RedisCommand] {
        wakeUp.drain()
        return inbox.withLock { inbox in
            defer { inbox.commands = [] }
            return inbox.commands
        }
    }
}

/// What the connection's thread does and owns.
private final class RedisConnectionLoop {
    private let connection: RedisConnection
    private let url: RedisURL
    private var pipeline = RedisPipeline()
    private var backoff = Backoff()

    init(connection: RedisConnection, url: RedisURL) {
        self.connection = connection
        self.url = url
    }

    func run() {
        while !connection.isClosed {
            switch RedisSession.open(url) {
            case .success(let session):
                backoff = Backoff()
                connection.note(problem: nil)
                serve(session)
                connection.note(problem: "the connection was lost")
                tell(pipeline.connectionLost())
            case .failure(let failure): connection.note(problem: failure.detail)
            }
            waitDisconnected()
        }
        pipeline.enqueue(connection.takeSubmitted())
        tell(pipeline.close())
    }

    /// Until the connection is lost or closed.
    private func serve(_ session: RedisSession) {
        while !connection.isClosed {
            pipeline.enqueue(connection.takeSubmitted())
            let now = MonotonicClock.nowNanoseconds
            tell(pipeline.expire(nowNanoseconds: now))
            session.queue(pipeline.send(nowNanoseconds: now))
            guard session.flush(), !pipeline.isStalled(nowNanoseconds: now) else { return }
            wait(for: session, nowNanoseconds: now)
            do {
                while let reply = try session.nextReply() {
                    if let completion = try pipeline.replied(reply) { completion.tell() }
                }
            } catch {
                return
            }
        }
    }

    private func wait(for session: RedisSession, nowNanoseconds now: UInt64) {
        var until = pipeline.nextDeadlineNanoseconds
        if pipeline.inFlightCount > 0 { until = min(until, now + 1_000_000_000) }
        let events = POLLIN | (session.hasOutput ? POLLOUT : 0)
        var entries = [
            pollfd(fd: session.descriptor, events: Int16(events), revents: 0),
            pollfd(fd: connection.wakeUpDescriptor, events: Int16(POLLIN), revents: 0),
        ]
        poll(&entries, 2, pollMilliseconds(until: until, nowNanoseconds: now))
    }

    /// Waits out the back-off; deadlines count meanwhile.
    private func waitDisconnected() {
        let until = MonotonicClock.nowNanoseconds + backoff.nextNanoseconds()
        while !connection.isClosed {
            pipeline.enqueue(connection.takeSubmitted())
            let now = MonotonicClock.nowNanoseconds
            tell(pipeline.expire(nowNanoseconds: now))
            guard now < until else { return }
            var entry = pollfd(fd: connection.wakeUpDescriptor, events: Int16(POLLIN), revents: 0)
            let next = min(until, pipeline.nextDeadlineNanoseconds)
            poll(&entry, 1, pollMilliseconds(until: next, nowNanoseconds: now))
        }
    }

    private func tell(_ completions: [RedisCompletion]) {
        for completion in completions { completion.tell() }
    }
}

func pollMilliseconds(until: UInt64, nowNanoseconds now: UInt64) -> Int32 {
    guard until != .max else { return -1 }
    guard until > now else { return 0 }
    return Int32(clamping: (until - now) / 1_000_000 + 1)
}

/// Doubling waits with full jitter, so that many clients of one Redis do not come back as one.
struct Backoff {
    private var ceilingNanoseconds = StoreLimits.redisBackoffFirstNanoseconds

    mutating func nextNanoseconds() -> UInt64 {
        defer {
            ceilingNanoseconds = min(
                ceilingNanoseconds * 2, StoreLimits.redisBackoffMaxNanoseconds)
        }
        return UInt64.random(in: ceilingNanoseconds / 2...ceilingNanoseconds)
    }
}
