import Synchronization
import WeirCore

/// A Lua script, known by its name. A script is idempotent when running it again after a lost
/// answer changes nothing more and answers the same; only such ones are sent again by themselves.
package struct RedisScript: Hashable, Sendable {
    package let name: String
    package let source: String
    package let isIdempotent: Bool

    package init(name: String, source: String, isIdempotent: Bool) {
        self.name = name
        self.source = source
        self.isIdempotent = isIdempotent
    }
}

/// Redis, as the control plane uses it: one connection whose commands share pipelines.
package final class Redis: Sendable {
    package let url: RedisURL
    private let connection: RedisConnection
    /// The server's names (SHA-1) of scripts that it has been given.
    private let loaded = Mutex<[String: String]>([:])

    /// Connects in the background: commands wait for the connection until their deadline.
    package init(url text: String) throws(RedisError) {
        url = try RedisURL(parsing: text)
        connection = RedisConnection(url: url)
        connection.start()
    }

    deinit { connection.close() }

    /// Why there is no connection now, for people; `nil` while there is one.
    package var connectionProblem: String? { connection.problem }

    /// `isIdempotent`: may be sent again by itself when the connection is lost before the answer.
    @discardableResult
    package func command(
        _ arguments: [String], isIdempotent: Bool = false,
        timeoutNanoseconds: UInt64 = StoreLimits.redisCommandNanoseconds
    ) async throws(RedisError) -> RedisReply {
        let result = await withCheckedContinuation { continuation in
            connection.submit(
                arguments, isIdempotent: isIdempotent, timeoutNanoseconds: timeoutNanoseconds
            ) { continuation.resume(returning: $0) }
        }
        return try result.get()
    }

    /// A command that only reads.
    package func read(_ arguments: String...) async throws(RedisError) -> RedisReply {
        try await command(arguments, isIdempotent: true)
    }

    /// Several commands that only read, in one pipeline; answers in their order.
    package func readAll(_ commands: [[String]]) async throws(RedisError) -> [RedisReply] {
        var answers: [RedisReply] = []
        for result in await pipeline(commands, isIdempotent: true) {
            answers.append(try result.get())
        }
        return answers
    }

    /// Several commands in one pipeline, each with an answer of its own.
    func pipeline(
        _ commands: [[String]], isIdempotent: Bool
    ) async -> [Result<RedisReply, RedisError>] {
        guard !commands.isEmpty else { return [] }
        let replies = PipelinedReplies(count: commands.count)
        return await withCheckedContinuation { continuation in
            for (index, arguments) in commands.enumerated() {
                connection.submit(
                    arguments, isIdempotent: isIdempotent,
                    timeoutNanoseconds: StoreLimits.redisCommandNanoseconds
                ) { result in
                    if let all = replies.store(result, at: index) {
                        continuation.resume(returning: all)
                    }
                }
            }
        }
    }

    /// Runs a script once for each call, in one pipeline; answers in their order.
    func runAll(
        _ script: RedisScript, _ calls: [(keys: [String], arguments: [String])]
    ) async throws(RedisError) -> [RedisReply] {
        var answers: [RedisReply] = []
        for start in stride(from: 0, to: calls.count, by: StoreLimits.redisPipelineMax) {
            let batch = calls[start..<min(calls.count, start + StoreLimits.redisPipelineMax)]
            let hash = try await hash(of: script)
            let results = await pipeline(
                batch.map { evaluation(hash, $0.keys, $0.arguments) },
                isIdempotent: script.isIdempotent)
            for (call, result) in zip(batch, results) {
                if case .failure(.server(let text)) = result, text.hasPrefix("NOSCRIPT") {
                    answers.append(
                        try await run(script, keys: call.keys, arguments: call.arguments))
                } else {
                    answers.append(try result.get())
                }
            }
        }
        return answers
    }

    /// Runs a script by its hash, and gives it to the server first where that does not know it: a
    /// restart forgets scripts.
    package func run(
        _ script: RedisScript, keys: [String], arguments: [String]
    ) async throws(RedisError) -> RedisReply {
        let hash = try await hash(of: script)
        do {
            return try await evaluate(script, hash, keys, arguments)
        } catch .server(let text) where text.hasPrefix("NOSCRIPT") {
            // Redis refused it before it did anything, so asking again is safe for every script.
            return try await evaluate(script, try await load(script), keys, arguments)
        }
    }

    private func hash(of script: RedisScript) async throws(RedisError) -> String {
        if let known = loaded.withLock({ $0[script.name] }) { return known }
        return try await load(script)
    }

    private func evaluate(
        _ script: RedisScript, _ hash: String, _ keys: [String], _ arguments: [String]
    ) async throws(RedisError) -> RedisReply {
        try await command(
            evaluation(hash, keys, arguments), isIdempotent: script.isIdempotent)
    }

    private func evaluation(_ hash: String, _ keys: [String], _ arguments: [String]) -> [String] {
        ["EVALSHA", hash, String(keys.count)] + keys + arguments
    }

    private func load(_ script: RedisScript) async throws(RedisError) -> String {
        let reply = try await command(["SCRIPT", "LOAD", script.source], isIdempotent: true)
        guard let hash = reply.text else {
            throw .unexpectedReply("SCRIPT LOAD answered without a hash")
        }
        loaded.withLock { $0[script.name] = hash }
        return hash
    }

    /// Redis's own clock, which decides periods and ages.
    package func time() async throws(RedisError) -> UnixTime {
        let reply = try await read("TIME")
        guard let parts = reply.array, parts.count == 2, let seconds = parts[0].integer,
            let microseconds = parts[1].integer
        else { throw .unexpectedReply("TIME") }
        return UnixTime(milliseconds: seconds * 1000 + microseconds / 1000)
    }

    /// Messages of channels, on a connection of their own.
    package func subscribe(_ channels: [String]) -> AsyncStream<RedisHint> {
        RedisSubscription.stream(url: url, channels: channels)
    }
}

/// Collects the answers of one pipeline; the last one to come completes it.
private final class PipelinedReplies: Sendable {
    private struct State {
        var results: [Result<RedisReply, RedisError>]
        var missing: Int
    }

    private let state: Mutex<State>

    init(count: Int) {
        state = Mutex(
            State(results: Array(repeating: .failure(.closed), count: count), missing: count))
    }

    func store(
        _ result: Result<RedisReply, RedisError>, at index: Int
    ) -> [Result<RedisReply, RedisError>]? {
        state.withLock { state in
            state.results[index] = result
            state.missing -= 1
            return state.missing == 0 ? state.results : nil
        }
    }
}
