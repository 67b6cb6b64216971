import Glibc
import Synchronization
import WeirCrypto

/// A command as a caller has it.
struct RedisRequest: Sendable {
    var arguments: [String]
    /// May be sent again by itself when the connection is lost before the answer.
    var isIdempotent: Bool
    var deadlineNanoseconds: UInt64
    /// Only on this connection of the link's.
    var generation: UInt64?
    /// A cluster's node said where the slot is going: the other one serves it when told ASKING.
    var isAsking = false

    var bytes: [UInt8] {
        (isAsking ? RedisWire.command(["ASKING"]) : []) + RedisWire.command(arguments)
    }
}

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
        /// Whoever uses the connection believes that another server has taken over.
        var isDistrusted = false
        var problem: String? = "not connected yet"
    }

    private let locator: any RedisLocator
    private let rule: RedisLossRule
    private let inbox = Mutex(Inbox())
    private let wakeUp = WakeUp()

    init(_ locator: any RedisLocator, rule: RedisLossRule) {
        self.locator = locator
        self.rule = rule
    }

    func start() {
        Thread.start("weir-redis") {
            RedisConnectionLoop(connection: self, locator: self.locator, rule: self.rule).run()
        }
    }

    /// Queues a command; `completion` is called exactly once, on the connection's thread, or at
    /// once when the command is refused.
    func submit(
        _ request: RedisRequest,
        completion: @escaping @Sendable (Result<RedisAnswer, RedisError>) -> Void
    ) {
        let bytes = request.bytes
        let size = bytes.count
        let command = RedisCommand(
            bytes: bytes, isIdempotent: request.isIdempotent,
            deadlineNanoseconds: request.deadlineNanoseconds,
            leadingReplies: request.isAsking ? 1 : 0, generation: request.generation,
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

    /// Gives the connection up and looks for the server anew.
    func distrust() {
        inbox.withLock { $0.isDistrusted = true }
        wakeUp.signal()
    }

    fileprivate func takeDistrust() -> Bool {
        inbox.withLock { inbox in
            defer { inbox.isDistrusted = false }
            return inbox.isDistrusted
        }
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
    private let locator: any RedisLocator
    private var pipeline: RedisPipeline
    private let rule: RedisLossRule
    private var backoff = Backoff()
    private var connectedNanoseconds: UInt64 = 0
    /// So that no two connections of this process have one generation.
    private static let links = Atomic<UInt64>(0)

    init(connection: RedisConnection, locator: any RedisLocator, rule: RedisLossRule) {
        self.connection = connection
        self.locator = locator
        self.rule = rule
        pipeline = RedisPipeline(
            rule, followsFailover: locator.followsFailover,
            firstGeneration: Self.links.add(1, ordering: .relaxed).newValue << 32)
    }

    func run() {
        while !connection.isClosed {
            switch locator.open() {
            case .success(let session):
                backoff = Backoff()
                connectedNanoseconds = MonotonicClock.nowNanoseconds
                connection.note(problem: nil)
                serve(session)
                connection.note(problem: "the connection was lost")
                tell(pipeline.connectionLost())
            case .failure(let failure): connection.note(problem: failure.detail)
            }
            waitDisconnected()
        }
        tell(pipeline.enqueue(connection.takeSubmitted()))
        tell(pipeline.close())
    }

    /// Until the connection is lost or closed.
    private func serve(_ session: RedisSession) {
        while !connection.isClosed {
            tell(pipeline.enqueue(connection.takeSubmitted()))
            let now = MonotonicClock.nowNanoseconds
            tell(pipeline.expire(nowNanoseconds: now))
            session.queue(pipeline.send(nowNanoseconds: now))
            guard session.flush(), !pipeline.isStalled(nowNanoseconds: now),
                !isDistrusted(nowNanoseconds: now)
            else { return }
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

    /// A young connection is to whom Sentinels name now; asking them all the time helps nobody.
    private func isDistrusted(nowNanoseconds now: UInt64) -> Bool {
        connection.takeDistrust()
            && now - connectedNanoseconds > StoreLimits.redisDistrustNanoseconds
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
            tell(pipeline.enqueue(connection.takeSubmitted()))
            if rule == .handBack { tell(pipeline.connectionLost()) }
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
