/// One command on its way: its bytes, and whom to tell.
struct RedisCommand: Sendable {
    let bytes: [UInt8]
    /// May be sent again when the connection is lost before the answer.
    let isIdempotent: Bool
    let deadlineNanoseconds: UInt64
    /// Sent before on a connection that was lost: it may have been carried out.
    var wasSent = false
    let completion: @Sendable (Result<RedisReply, RedisError>) -> Void
}

/// What has to be told to whom; the caller of the state machine does it.
struct RedisCompletion {
    let command: RedisCommand
    let result: Result<RedisReply, RedisError>

    func tell() { command.completion(result) }
}

/// Which commands wait, which are sent, and what each event means for them. Pure: time and replies
/// come in, completions go out.
///
///     queued --sent--> in flight --reply--> done
///        |                |---- deadline --> done, its reply is swallowed later
///        |                |---- connection lost --> queued again (idempotent) or done
///        '-- deadline --> done
struct RedisPipeline {
    private struct InFlight {
        /// `nil` once its deadline passed: Redis still answers, in order.
        var command: RedisCommand?
        var sentNanoseconds: UInt64
    }

    private var queued: [RedisCommand] = []
    private var inFlight: [InFlight] = []
    /// Replies taken from the front of `inFlight`, so that an answer costs no shifting.
    private var answered = 0
    /// No later than the earliest deadline; `.max` when nothing waits.
    private(set) var nextDeadlineNanoseconds = UInt64.max

    var isIdle: Bool { queued.isEmpty && inFlightCount == 0 }
    var inFlightCount: Int { inFlight.count - answered }

    mutating func enqueue(_ commands: [RedisCommand]) {
        for command in commands {
            nextDeadlineNanoseconds = min(nextDeadlineNanoseconds, command.deadlineNanoseconds)
        }
        queued += commands
    }

    /// Moves what may go now into flight, and returns its bytes: one pipeline.
    mutating func send(nowNanoseconds: UInt64) -> [UInt8] {
        let count = min(queued.count, StoreLimits.redisInFlightMax - inFlightCount)
        guard count > 0 else { return [] }
        var bytes: [UInt8] = []
        for command in queued.prefix(count) {
            bytes += command.bytes
            inFlight.append(InFlight(command: command, sentNanoseconds: nowNanoseconds))
        }
        queued.removeFirst(count)
        return bytes
    }

    /// An answer that nobody asked for means that the order is lost: the connection must go.
    mutating func replied(_ reply: RedisReply) throws(RedisError) -> RedisCompletion? {
        guard answered < inFlight.count else {
            throw .unexpectedReply("an answer without a question")
        }
        let command = inFlight[answered].command
        inFlight[answered].command = nil
        answered += 1
        if answered == inFlight.count || answered >= StoreLimits.redisInFlightMax {
            inFlight.removeFirst(answered)
            answered = 0
        }
        guard let command else { return nil }
        if case .error(let text) = reply {
            return RedisCompletion(command: command, result: .failure(.server(text)))
        }
        return RedisCompletion(command: command, result: .success(reply))
    }

    /// Ends what has waited too long.
    mutating func expire(nowNanoseconds: UInt64) -> [RedisCompletion] {
        guard nowNanoseconds >= nextDeadlineNanoseconds else { return [] }
        var completions: [RedisCompletion] = []
        var next = UInt64.max
        for index in answered..<inFlight.count {
            guard let command = inFlight[index].command else { continue }
            if command.deadlineNanoseconds <= nowNanoseconds {
                inFlight[index].command = nil
                completions.append(
                    RedisCompletion(
                        command: command, result: .failure(.timeout(maybeExecuted: true))))
            } else {
                next = min(next, command.deadlineNanoseconds)
            }
        }
        queued.removeAll { command in
            guard command.deadlineNanoseconds <= nowNanoseconds else {
                next = min(next, command.deadlineNanoseconds)
                return false
            }
            completions.append(
                RedisCompletion(
                    command: command,
                    result: .failure(.timeout(maybeExecuted: command.wasSent))))
            return true
        }
        nextDeadlineNanoseconds = next
        return completions
    }

    /// Whether Redis has been silent about its oldest command for too long.
    func isStalled(nowNanoseconds: UInt64) -> Bool {
        guard answered < inFlight.count else { return false }
        let sent = inFlight[answered].sentNanoseconds
        return nowNanoseconds >= sent
            && nowNanoseconds - sent > StoreLimits.redisStallNanoseconds
    }

    /// What was in flight goes back in front of the queue if that is harmless, in its order.
    mutating func connectionLost() -> [RedisCompletion] {
        var again: [RedisCommand] = []
        var completions: [RedisCompletion] = []
        for entry in inFlight[answered...] {
            guard var command = entry.command else { continue }
            if command.isIdempotent {
                command.wasSent = true
                again.append(command)
            } else {
                completions.append(
                    RedisCompletion(
                        command: command,
                        result: .failure(.connectionLost(maybeExecuted: true))))
            }
        }
        inFlight = []
        answered = 0
        queued = again + queued
        return completions
    }

    mutating func close() -> [RedisCompletion] {
        let lost = connectionLost()
        defer { queued = [] }
        return lost + queued.map { RedisCompletion(command: $0, result: .failure(.closed)) }
    }
}
