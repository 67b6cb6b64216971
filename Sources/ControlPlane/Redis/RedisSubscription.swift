import Glibc
import Synchronization

/// What a subscription says. Messages get lost whenever the connection does, so they are hints:
/// whoever acts on them looks at the store, and polls besides.
package enum RedisHint: Hashable, Sendable {
    /// Subscribed, again perhaps: anything may have happened meanwhile.
    case subscribed
    case message(channel: String, payload: String)
}

/// One subscription with a thread and a connection of its own.
final class RedisSubscription: Sendable {
    private let locator: any RedisLocator
    private let channels: [String]
    private let continuation: AsyncStream<RedisHint>.Continuation
    private let wakeUp = WakeUp()
    private let isStopped = Atomic(false)

    /// Ends when the stream's reader goes.
    static func stream(
        _ locator: any RedisLocator, channels: [String]
    ) -> AsyncStream<RedisHint> {
        let (stream, continuation) = AsyncStream.makeStream(
            of: RedisHint.self, bufferingPolicy: .bufferingNewest(StoreLimits.redisHintsMax))
        let subscription = RedisSubscription(
            locator, channels: channels, continuation: continuation)
        continuation.onTermination = { _ in subscription.stop() }
        Thread.start("weir-redis-sub") { subscription.run() }
        return stream
    }

    private init(
        _ locator: any RedisLocator, channels: [String],
        continuation: AsyncStream<RedisHint>.Continuation
    ) {
        self.locator = locator
        self.channels = channels
        self.continuation = continuation
    }

    private func stop() {
        isStopped.store(true, ordering: .releasing)
        wakeUp.signal()
    }

    private var stopped: Bool { isStopped.load(ordering: .acquiring) }

    private func run() {
        var backoff = Backoff()
        while !stopped {
            if case .success(let session) = locator.open() {
                backoff = Backoff()
                session.queue(RedisWire.command(["SUBSCRIBE"] + channels))
                listen(session)
            }
            var entry = pollfd(fd: wakeUp.descriptor, events: Int16(POLLIN), revents: 0)
            if !stopped { poll(&entry, 1, Int32(clamping: backoff.nextNanoseconds() / 1_000_000)) }
        }
    }

    /// Until the connection is lost, silent for too long, or not wanted any more.
    private func listen(_ session: RedisSession) {
        var heardNanoseconds = MonotonicClock.nowNanoseconds
        var hasPinged = false
        while !stopped, session.flush() {
            do {
                while let reply = try session.nextReply() {
                    heardNanoseconds = MonotonicClock.nowNanoseconds
                    hasPinged = false
                    deliver(reply)
                }
            } catch { return }
            let idle = MonotonicClock.nowNanoseconds - heardNanoseconds
            if idle > StoreLimits.redisSubscriptionIdleNanoseconds {
                guard !hasPinged else { return }
                session.queue(RedisWire.command(["PING"]))
                hasPinged = true
                heardNanoseconds = MonotonicClock.nowNanoseconds
                continue
            }
            wait(session)
        }
    }

    private func wait(_ session: RedisSession) {
        let events = POLLIN | (session.hasOutput ? POLLOUT : 0)
        var entries = [
            pollfd(fd: session.descriptor, events: Int16(events), revents: 0),
            pollfd(fd: wakeUp.descriptor, events: Int16(POLLIN), revents: 0),
        ]
        poll(
            &entries, 2,
            Int32(clamping: StoreLimits.redisSubscriptionIdleNanoseconds / 1_000_000 + 1))
    }

    private func deliver(_ reply: RedisReply) {
        guard let parts = reply.array, parts.count == 3, let kind = parts[0].text,
            let channel = parts[1].text
        else { return }
        if kind == "subscribe", parts[2].integer == Int64(channels.count) {
            continuation.yield(.subscribed)
        } else if kind == "message", let payload = parts[2].text {
            continuation.yield(.message(channel: channel, payload: payload))
        }
    }
}
