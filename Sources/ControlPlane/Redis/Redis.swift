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

struct ScriptCall: Sendable {
    var script: RedisScript
    var keys: [String]
    var arguments: [String]
}

/// Which connection of which node answered: what is said about writes holds for that one alone.
struct RedisOrigin: Hashable, Sendable {
    /// `nil` where there is one server at a time.
    var node: RedisURL.Address?
    var generation: UInt64
}

/// Redis, as the control plane uses it: to each server one connection whose commands share
/// pipelines.
package final class Redis: Sendable {
    private enum Servers {
        case one(RedisConnection, sentinel: SentinelServer?)
        case cluster(RedisCluster)
    }

    private let servers: Servers
    private let hintsLocator: any RedisLocator
    /// The server's names (SHA-1) of scripts that it has been given.
    private let loaded = Mutex<[String: String]>([:])

    /// Connects in the background: commands wait for the connection until their deadline. Throws
    /// `RedisError` for a wrong URL, and `Problems` for files of TLS that cannot be used.
    package init(url text: String, tls files: RedisTLSFiles = RedisTLSFiles()) throws {
        let url = try RedisURL(parsing: text)
        let tls = url.isEncrypted ? try RedisTLS(files) : nil
        func endpoint(_ address: RedisURL.Address) -> RedisEndpoint {
            RedisEndpoint(address: address, login: url.login, database: url.database, tls: tls)
        }
        switch url.topology {
        case .single(let address):
            let server = FixedServer(endpoint: endpoint(address))
            hintsLocator = server
            servers = .one(RedisConnection(server, rule: .repeatIdempotent), sentinel: nil)
        case .sentinel(let addresses, let name, let login):
            let sentinels = addresses.map {
                RedisEndpoint(
                    address: $0, login: login, tls: tls,
                    connectNanoseconds: StoreLimits.redisSentinelNanoseconds)
            }
            let server = SentinelServer(
                sentinels: sentinels, name: name, primary: endpoint(addresses[0]))
            hintsLocator = server
            servers = .one(RedisConnection(server, rule: .repeatIdempotent), sentinel: server)
        case .cluster(let seeds):
            let cluster = RedisCluster(seeds: seeds, endpoint: endpoint(seeds[0]))
            // Nodes pass messages on to each other.
            hintsLocator = AnyServer { cluster.knownNodes }
            servers = .cluster(cluster)
        }
        if case .one(let connection, _) = servers { connection.start() }
    }

    deinit {
        switch servers {
        case .one(let connection, _): connection.close()
        case .cluster(let cluster): cluster.close()
        }
    }

    /// Why there is no connection now, for people; `nil` while there is one.
    package var connectionProblem: String? {
        switch servers {
        case .one(let connection, _): connection.problem
        case .cluster(let cluster): cluster.problem
        }
    }

    /// Replicas that ought to follow, as Sentinels know; 0 without Sentinels.
    var knownReplicas: Int {
        if case .one(_, let sentinel?) = servers { sentinel.knownReplicas } else { 0 }
    }

    /// Something is wrong with the primary that a failover would explain: Sentinels are asked anew.
    func distrustPrimary() {
        if case .one(let connection, .some) = servers { connection.distrust() }
    }

    /// `isIdempotent`: may be sent again by itself when the connection is lost before the answer.
    @discardableResult
    package func command(
        _ arguments: [String], isIdempotent: Bool = false,
        timeoutNanoseconds: UInt64 = StoreLimits.redisCommandNanoseconds
    ) async throws(RedisError) -> RedisReply {
        let request = RedisRequest(
            arguments: arguments, isIdempotent: isIdempotent,
            deadlineNanoseconds: MonotonicClock.nowNanoseconds + timeoutNanoseconds)
        return try await send([request])[0].result.get().reply
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
    private func pipeline(
        _ commands: [[String]], isIdempotent: Bool
    ) async -> [Result<RedisReply, RedisError>] {
        let deadline = MonotonicClock.nowNanoseconds + StoreLimits.redisCommandNanoseconds
        return await send(
            commands.map {
                RedisRequest(
                    arguments: $0, isIdempotent: isIdempotent, deadlineNanoseconds: deadline)
            }
        ).map { $0.result.map(\.reply) }
    }

    typealias Outcome = (
        node: RedisURL.Address?, result: Result<RedisAnswer, RedisError>
    )

    /// One pipeline to each server; then what a cluster sends elsewhere goes there.
    private func send(_ requests: [RedisRequest]) async -> [Outcome] {
        guard !requests.isEmpty else { return [] }
        var outcomes = await sendOnce(requests)
        switch servers {
        case .cluster(let cluster):
            for (index, request) in requests.enumerated() {
                guard let node = outcomes[index].node else { continue }
                let last = await cluster.follow(request, outcomes[index].result, from: node)
                outcomes[index] = (last.node, last.result)
            }
        case .one:
            // A server that a failover left behind may look like one that does not answer.
            for case .failure(.timeout(maybeExecuted: true)) in outcomes.map(\.result) {
                distrustPrimary()
                break
            }
        }
        return outcomes
    }

    private func sendOnce(_ requests: [RedisRequest]) async -> [Outcome] {
        let outcomes = Outcomes(count: requests.count)
        return await withCheckedContinuation { continuation in
            for (index, request) in requests.enumerated() {
                switch servers {
                case .one(let connection, _):
                    connection.submit(request) {
                        if let all = outcomes.store((nil, $0), at: index) {
                            continuation.resume(returning: all)
                        }
                    }
                case .cluster(let cluster):
                    cluster.submit(request) {
                        if let all = outcomes.store(($0, $1), at: index) {
                            continuation.resume(returning: all)
                        }
                    }
                }
            }
        }
    }

    // MARK: Every primary

    /// The same questions to each primary, for what concerns a server and not a key.
    func askPrimaries(
        _ commands: [[String]]
    ) async throws(RedisError) -> [(origin: RedisOrigin, replies: [RedisReply])] {
        let deadline = MonotonicClock.nowNanoseconds + StoreLimits.redisCommandNanoseconds
        let requests = commands.map {
            RedisRequest(arguments: $0, isIdempotent: true, deadlineNanoseconds: deadline)
        }
        switch servers {
        case .one:
            return [try Self.answers(await sendOnce(requests))]
        case .cluster(let cluster):
            while true {
                do throws(RedisError) {
                    return try await askPrimaries(of: cluster, requests, deadline)
                } catch .connectionLost(let maybe) {
                    // A primary has gone; its successor is on the next map.
                    guard await cluster.lookAgain(deadlineNanoseconds: deadline) else {
                        throw .connectionLost(maybeExecuted: maybe)
                    }
                }
            }
        }
    }

    private func askPrimaries(
        of cluster: RedisCluster, _ requests: [RedisRequest], _ deadline: UInt64
    ) async throws(RedisError) -> [(origin: RedisOrigin, replies: [RedisReply])] {
        let primaries = await cluster.primaries(deadlineNanoseconds: deadline)
        guard !primaries.isEmpty else { throw .connectionLost(maybeExecuted: false) }
        var all: [(origin: RedisOrigin, replies: [RedisReply])] = []
        for primary in primaries {
            all.append(try Self.answers(await ask(primary, requests, cluster)))
        }
        return all
    }

    private func ask(
        _ node: RedisURL.Address, _ requests: [RedisRequest], _ cluster: RedisCluster
    ) async -> [Outcome] {
        let outcomes = Outcomes(count: requests.count)
        return await withCheckedContinuation { continuation in
            for (index, request) in requests.enumerated() {
                cluster.submit(request, to: node) {
                    if let all = outcomes.store((node, $0), at: index) {
                        continuation.resume(returning: all)
                    }
                }
            }
        }
    }

    private static func answers(
        _ outcomes: [Outcome]
    ) throws(RedisError) -> (origin: RedisOrigin, replies: [RedisReply]) {
        var replies: [RedisReply] = []
        var generations: Set<UInt64> = []
        for outcome in outcomes {
            let answer = try outcome.result.get()
            replies.append(answer.reply)
            generations.insert(answer.generation)
        }
        // Answers of two servers say nothing about either.
        guard let generation = generations.first, generations.count == 1 else {
            throw .connectionLost(maybeExecuted: false)
        }
        return (RedisOrigin(node: outcomes[0].node, generation: generation), replies)
    }

    /// The names of all keys that match, of every primary, at most so many. What is written
    /// meanwhile may be missing; nothing else is, or `connectionLost` is thrown.
    func keys(matching pattern: String, max: Int) async throws(RedisError) -> Set<String> {
        var keys: Set<String> = []
        switch servers {
        case .one:
            try await scan(pattern, max, into: &keys) { await self.sendOnce([$0]) }
        case .cluster(let cluster):
            let deadline = MonotonicClock.nowNanoseconds + StoreLimits.redisCommandNanoseconds
            let primaries = await cluster.primaries(deadlineNanoseconds: deadline)
            guard !primaries.isEmpty else { throw .connectionLost(maybeExecuted: false) }
            for primary in primaries {
                try await scan(pattern, max, into: &keys) {
                    await self.ask(primary, [$0], cluster)
                }
            }
        }
        return keys
    }

    private func scan(
        _ pattern: String, _ max: Int, into keys: inout Set<String>,
        _ ask: (RedisRequest) async -> [Outcome]
    ) async throws(RedisError) {
        var cursor = "0"
        var origin: RedisOrigin?
        repeat {
            let request = RedisRequest(
                arguments: [
                    "SCAN", cursor, "MATCH", pattern, "COUNT", String(StoreLimits.redisScanCount),
                ],
                isIdempotent: true,
                deadlineNanoseconds: MonotonicClock.nowNanoseconds
                    + StoreLimits.redisCommandNanoseconds)
            let answer = try Self.answers(await ask(request))
            // Another server does not know the cursor of the one before.
            guard origin == nil || origin == answer.origin else {
                throw .connectionLost(maybeExecuted: false)
            }
            origin = answer.origin
            guard let parts = answer.replies[0].array, parts.count == 2, let next = parts[0].text,
                let found = parts[1].texts
            else { throw .unexpectedReply("SCAN") }
            keys.formUnion(found)
            guard keys.count <= max else {
                throw .unexpectedReply("more than \(max) keys match \(pattern)")
            }
            cursor = next
        } while cursor != "0"
    }

    /// How many replicas have everything that this very connection has written; `nil` when the
    /// connection is gone, and with it what can be said.
    func wait(
        for replicas: Int, milliseconds: Int64, _ origin: RedisOrigin
    ) async throws(RedisError) -> Int? {
        let request = RedisRequest(
            arguments: ["WAIT", String(replicas), String(milliseconds)], isIdempotent: false,
            deadlineNanoseconds: MonotonicClock.nowNanoseconds
                + StoreLimits.redisCommandNanoseconds,
            generation: origin.generation)
        let outcome: Outcome
        switch (servers, origin.node) {
        case (.cluster(let cluster), let node?): outcome = await ask(node, [request], cluster)[0]
        case (.one, nil): outcome = await sendOnce([request])[0]
        default: return nil
        }
        switch outcome.result {
        case .success(let answer): return answer.reply.integer.map { Int($0) }
        case .failure(.connectionLost), .failure(.closed): return nil
        case .failure(let error): throw error
        }
    }

    // MARK: Scripts

    /// Runs a script once for each call, in one pipeline; answers in their order.
    func runAll(
        _ script: RedisScript, _ calls: [(keys: [String], arguments: [String])]
    ) async throws(RedisError) -> [RedisReply] {
        try await runAllNoting(script, calls).replies
    }

    /// As `runAll`; `origins` has every connection that a call was answered by.
    ///
    /// `first` is an idempotent command that is carried out before all of them: in the same
    /// pipeline where there is one server.
    func runAllNoting(
        _ script: RedisScript, _ calls: [(keys: [String], arguments: [String])],
        first: [String]? = nil
    ) async throws(RedisError) -> (replies: [RedisReply], origins: Set<RedisOrigin>) {
        try await runAllNoting(
            calls.map { ScriptCall(script: script, keys: $0.keys, arguments: $0.arguments) },
            first: first)
    }

    /// The same with a script of its own for each call. Those of one slot are carried out in their
    /// order.
    func runAllNoting(
        _ calls: [ScriptCall], first: [String]? = nil
    ) async throws(RedisError) -> (replies: [RedisReply], origins: Set<RedisOrigin>) {
        var replies: [RedisReply] = []
        var origins: Set<RedisOrigin> = []
        var leading: [RedisRequest] = []
        if let first {
            if case .cluster = servers {
                _ = try await command(first, isIdempotent: true)
            } else {
                leading = [
                    RedisRequest(
                        arguments: first, isIdempotent: true,
                        deadlineNanoseconds: MonotonicClock.nowNanoseconds
                            + StoreLimits.redisCommandNanoseconds)
                ]
            }
        }
        for start in stride(from: 0, to: calls.count, by: StoreLimits.redisPipelineMax) {
            let batch = calls[start..<min(calls.count, start + StoreLimits.redisPipelineMax)]
            var requests = leading
            for call in batch {
                requests.append(request(["EVALSHA", try await hash(of: call.script)], call))
            }
            var outcomes = await send(requests)
            if !leading.isEmpty {
                _ = try outcomes.removeFirst().result.get()
                leading = []
            }
            for (index, call) in batch.enumerated() {
                if case .failure(.server(let text)) = outcomes[index].result,
                    text.hasPrefix("NOSCRIPT")
                {
                    // The server refused it before it did anything, so asking again is safe for
                    // every script. A restart forgets scripts, and each node learns its own.
                    outcomes[index] = await send([request(["EVAL", call.script.source], call)])[0]
                }
                let answer = try outcomes[index].result.get()
                replies.append(answer.reply)
                origins.insert(
                    RedisOrigin(node: outcomes[index].node, generation: answer.generation))
            }
        }
        return (replies, origins)
    }

    private func request(_ command: [String], _ call: ScriptCall) -> RedisRequest {
        RedisRequest(
            arguments: command + [String(call.keys.count)] + call.keys + call.arguments,
            isIdempotent: call.script.isIdempotent,
            deadlineNanoseconds: MonotonicClock.nowNanoseconds
                + StoreLimits.redisCommandNanoseconds)
    }

    /// Runs a script by its hash, and by its text where the server does not know it.
    package func run(
        _ script: RedisScript, keys: [String], arguments: [String]
    ) async throws(RedisError) -> RedisReply {
        try await runAll(script, [(keys, arguments)])[0]
    }

    private func hash(of script: RedisScript) async throws(RedisError) -> String {
        if let known = loaded.withLock({ $0[script.name] }) { return known }
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
        RedisSubscription.stream(hintsLocator, channels: channels)
    }
}

/// Collects the answers of one pipeline; the last one to come completes it.
private final class Outcomes: Sendable {
    private struct State {
        var outcomes: [Redis.Outcome]
        var missing: Int
    }

    private let state: Mutex<State>

    init(count: Int) {
        state = Mutex(
            State(
                outcomes: Array(repeating: (nil, .failure(.closed)), count: count), missing: count))
    }

    func store(_ outcome: Redis.Outcome, at index: Int) -> [Redis.Outcome]? {
        state.withLock { state in
            state.outcomes[index] = outcome
            state.missing -= 1
            return state.missing == 0 ? state.outcomes : nil
        }
    }
}
