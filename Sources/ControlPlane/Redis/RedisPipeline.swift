/// One command on its way: its bytes, and whom to tell.
struct RedisCommand: Sendable {
    let bytes: [UInt8]
    /// May be sent again when the connection is lost before the answer.
    let isIdempotent: Bool
    let deadlineNanoseconds: UInt64
    /// Answers that come before the command's own and say nothing: that of ASKING.
    var leadingReplies = 0
    /// Only on this connection of the link's, and on none that takes its place.
    var generation: UInt64?
    /// Sent before on a connection that was lost: it may have been carried out.
    var wasSent = false
    let completion: @Sendable (Result<RedisAnswer, RedisError>) -> Void
}

/// An answer, and which connection it came by: a number that no other connection has.
struct RedisAnswer: Sendable {
    var reply: RedisReply
    var generation: UInt64
}

/// What becomes of commands when their connection is lost.
enum RedisLossRule: Sendable {
    /// What is harmless to repeat waits for the next connection.
    case repeatIdempotent
    /// All of them are handed back: whoever asked looks for another node.
    case handBack
}

/// What has to be told to whom; the caller of the state machine does it.
struct RedisCompletion {
    let command: RedisCommand
    let result: Result<RedisAnswer, RedisError>

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

    private let rule: RedisLossRule
    private let followsFailover: Bool
    /// Which of the link's connections this is.
    private(set) var generation: UInt64
    private var queued: [RedisCommand] = []
    private var inFlight: [InFlight] = []
    /// Replies taken from the front of `inFlight`, so that an answer costs no shifting.
    private var answered = 0
    /// No later than the earliest deadline; `.max` when nothing waits.
    private(set) var nextDeadlineNanoseconds = UInt64.max

    /// `followsFailover`: the next connection may be to another server.
    init(
        _ rule: RedisLossRule = .repeatIdempotent, followsFailover: Bool = false,
        firstGeneration: UInt64 = 1
    ) {
        self.rule = rule
        generation = firstGeneration
        self.followsFailover = followsFailover
    }

    var isIdle: Bool { queued.isEmpty && inFlightCount == 0 }
    var inFlightCount: Int { inFlight.count - answered }

    /// Answers those that were for an earlier connection only.
    mutating func enqueue(_ commands: [RedisCommand]) -> [RedisCompletion] {
        var refused: [RedisCompletion] = []
        for command in commands {
            guard command.generation.map({ $0 == generation }) ?? true else {
                refused.append(lost(command))
                continue
            }
            nextDeadlineNanoseconds = min(nextDeadlineNanoseconds, command.deadlineNanoseconds)
            queued.append(command)
        }
        return refused
    }

    private func lost(_ command: RedisCommand) -> RedisCompletion {
        RedisCompletion(
            command: command, result: .failure(.connectionLost(maybeExecuted: command.wasSent)))
    }

    /// Moves what may go now into flight, and returns its bytes: one pipeline.
    mutating func send(nowNanoseconds: UInt64) -> [UInt8] {
        let count = min(queued.count, StoreLimits.redisInFlightMax - inFlightCount)
        guard count > 0 else { return [] }
        var bytes: [UInt8] = []
        for command in queued.prefix(count) {
            bytes += command.bytes
            for _ in 0..<command.leadingReplies {
                inFlight.append(InFlight(command: nil, sentNanoseconds: nowNanoseconds))
            }
            inFlight.append(InFlight(command: command, sentNanoseconds: nowNanoseconds))
        }
        queued.removeFirst(count)
        return bytes
    }

    /// An answer that nobody asked for means that the order is lost: the connection must go.
    /// So must one to a primary that has become a replica (READONLY): it did nothing then, so the
    /// command waits for the next connection, whatever it is.
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
            if followsFailover, text.hasPrefix("READONLY") {
                queued.insert(command, at: 0)
                throw .connectionLost(maybeExecuted: false)
            }
            return RedisCompletion(command: command, result: .failure(.server(text)))
        }
        return RedisCompletion(
            command: command, result: .success(RedisAnswer(reply: reply, generation: generation)))
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

    /// What was in flight goes back in front of the queue, in its order, where the rule says so.
    mutating func connectionLost() -> [RedisCompletion] {
        var waiting: [RedisCommand] = []
        for entry in inFlight[answered...] {
            guard var command = entry.command else { continue }
            command.wasSent = true
            waiting.append(command)
        }
        waiting += queued
        inFlight = []
        answered = 0
        generation += 1
        queued = waiting.filter(staysQueued)
        return waiting.filter { !staysQueued($0) }.map(lost)
    }

    private func staysQueued(_ command: RedisCommand) -> Bool {
        rule == .repeatIdempotent && command.generation == nil
            && (command.isIdempotent || !command.wasSent)
    }

    mutating func close() -> [RedisCompletion] {
        let lost = connectionLost()
        defer { queued = [] }
        return lost + queued.map { RedisCompletion(command: $0, result: .failure(.closed)) }
    }
}
