import Testing

@testable import ControlPlaneStore

@Suite(.timeLimit(.minutes(1))) struct RedisURLTests {
    @Test func readsEveryForm() throws {
        let tcp = try RedisURL(parsing: "redis://ann:p%40ss@localhost:7000/3")
        #expect(tcp.address == .tcp(host: "localhost", port: 7000))
        #expect(tcp.user == "ann" && tcp.password == "p@ss" && tcp.database == 3)
        let plain = try RedisURL(parsing: "redis://:secret@[::1]")
        #expect(plain.address == .tcp(host: "::1", port: 6379))
        #expect(plain.user == nil && plain.password == "secret" && plain.database == 0)
        let unix = try RedisURL(parsing: "unix:///run/redis.sock?db=2")
        #expect(unix.address == .unix(path: "/run/redis.sock") && unix.database == 2)
    }

    @Test(arguments: [
        "", "http://x", "redis://", "redis://h:0", "redis://h:99999", "redis://h/x",
        "unix://relative", "redis://user@h", "redis://:%zz@h",
    ])
    func refuses(_ text: String) {
        #expect(throws: RedisError.self) { try RedisURL(parsing: text) }
    }
}

@Suite(.timeLimit(.minutes(1))) struct RedisPipelineTests {
    private func command(_ name: String, idempotent: Bool, deadline: UInt64) -> RedisCommand {
        RedisCommand(
            bytes: Array(name.utf8), isIdempotent: idempotent, deadlineNanoseconds: deadline,
            completion: { _ in })
    }

    private func names(_ completions: [RedisCompletion]) -> [String] {
        completions.map { String(decoding: $0.command.bytes, as: UTF8.self) }
    }

    @Test func answersGoToTheirQuestionsInOrder() throws {
        var pipeline = RedisPipeline()
        pipeline.enqueue([
            command("a", idempotent: false, deadline: 10),
            command("b", idempotent: false, deadline: 20),
        ])
        #expect(pipeline.send(nowNanoseconds: 0) == Array("ab".utf8))
        #expect(names(pipeline.expire(nowNanoseconds: 10)) == ["a"])
        // The late answer to "a" is swallowed, and "b" still gets its own.
        #expect(try pipeline.replied(.integer(1)) == nil)
        let second = try #require(try pipeline.replied(.integer(2)))
        #expect(names([second]) == ["b"])
        #expect(try second.result.get() == .integer(2))
        #expect(throws: RedisError.self) { try pipeline.replied(.integer(3)) }
    }

    @Test func onlyIdempotentCommandsAreSentAgain() {
        var pipeline = RedisPipeline()
        pipeline.enqueue([
            command("a", idempotent: true, deadline: 100),
            command("b", idempotent: false, deadline: 100),
        ])
        _ = pipeline.send(nowNanoseconds: 0)
        pipeline.enqueue([command("c", idempotent: false, deadline: 100)])
        let lost = pipeline.connectionLost()
        #expect(names(lost) == ["b"])
        #expect(lost.first?.result == .failure(.connectionLost(maybeExecuted: true)))
        #expect(pipeline.send(nowNanoseconds: 1) == Array("ac".utf8))
        _ = pipeline.connectionLost()
        let expired = pipeline.expire(nowNanoseconds: 100)
        #expect(names(expired) == ["a"])
        #expect(expired.first?.result == .failure(.timeout(maybeExecuted: true)))
    }

    @Test func whatWasNeverSentDidNothing() {
        var pipeline = RedisPipeline()
        pipeline.enqueue([command("a", idempotent: false, deadline: 5)])
        #expect(pipeline.nextDeadlineNanoseconds == 5)
        let expired = pipeline.expire(nowNanoseconds: 5)
        #expect(expired.first?.result == .failure(.timeout(maybeExecuted: false)))
        #expect(pipeline.isIdle && pipeline.nextDeadlineNanoseconds == .max)
    }

    @Test func silenceIsAStall() {
        var pipeline = RedisPipeline()
        pipeline.enqueue([command("a", idempotent: true, deadline: .max)])
        _ = pipeline.send(nowNanoseconds: 0)
        #expect(!pipeline.isStalled(nowNanoseconds: StoreLimits.redisStallNanoseconds))
        #expect(pipeline.isStalled(nowNanoseconds: StoreLimits.redisStallNanoseconds + 1))
    }
}

@Suite(.timeLimit(.minutes(1))) struct RedisTests {
    @Test func passwordsOpenAndNothingElseDoes() async throws {
        let server = try PrivateRedis(password: "pass")
        #expect(try await Redis(url: server.url).read("PING").text == "PONG")
        let wrong = try Redis(url: "unix://:wrong@\(server.folder)/redis.sock")
        await #expect(throws: RedisError.timeout(maybeExecuted: false)) {
            try await wrong.command(["PING"], timeoutNanoseconds: 200_000_000)
        }
        #expect(wrong.connectionProblem?.contains("WRONGPASS") ?? false)
    }

    @Test func loopbackPortsWorkAsSocketsDo() async throws {
        let port = try PrivateRedis.freePort()
        let server = try PrivateRedis(password: "p@ss", port: port)
        let redis = try Redis(url: "redis://:p%40ss@localhost:\(port)/2")
        #expect(try await redis.read("PING").text == "PONG")
        #expect(redis.connectionProblem == nil)
        server.kill()
        await #expect(throws: RedisError.self) {
            try await redis.command(["PING"], timeoutNanoseconds: 100_000_000)
        }
    }

    @Test func repliesOfEveryShape() async throws {
        let server = try PrivateRedis()
        let redis = try Redis(url: server.url + "?db=1")
        #expect(try await redis.command(["SET", "k", "v\r\n\u{0}w"]).text == "OK")
        #expect(try await redis.read("GET", "k").text == "v\r\n\u{0}w")
        #expect(try await redis.read("GET", "absent").isNull)
        #expect(
            try await redis.command(["INCRBY", "n", "9007199254740993"]).integer
                == 9_007_199_254_740_993)
        try await redis.command(["HSET", "h", "a", "1", "b", ""])
        #expect(try await redis.read("HGETALL", "h").fields == ["a": "1", "b": ""])
        await #expect(throws: RedisError.self) { try await redis.command(["HGET", "k", "x"]) }
        let large = String(repeating: "x", count: 3 << 20)
        try await redis.command(["SET", "large", large])
        #expect(try await redis.read("GET", "large").text == large)
    }

    @Test func manyTasksShareTheConnectionAndGetTheirOwnAnswers() async throws {
        let server = try PrivateRedis()
        let redis = try Redis(url: server.url)
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for index in 0..<1_000 {
                group.addTask { try await redis.read("ECHO", "\(index)").text == "\(index)" }
            }
            for try await isRight in group { #expect(isRight) }
        }
    }

    @Test func scriptsAreKnownAgainAfterARestart() async throws {
        let server = try PrivateRedis()
        let redis = try Redis(url: server.url)
        let script = RedisScript(
            name: "test", source: "return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}",
            isIdempotent: false)
        #expect(
            try await redis.run(script, keys: ["k"], arguments: ["a"]).texts == ["k", "a", "1"])
        try await redis.command(["SCRIPT", "FLUSH"])
        #expect(
            try await redis.run(script, keys: ["k"], arguments: ["a"]).texts == ["k", "a", "2"])
        server.kill()
        try server.start()
        let after = try await redis.runAll(script, [(["k"], ["a"]), (["k"], ["b"])])
        #expect(after.map(\.texts) == [["k", "a", "3"], ["k", "b", "4"]])
    }

    @Test func aStoppedServerCostsTheDeadlineAndNoMore() async throws {
        let server = try PrivateRedis()
        let redis = try Redis(url: server.url)
        try await redis.command(["PING"])
        server.pause()
        await #expect(throws: RedisError.timeout(maybeExecuted: true)) {
            try await redis.command(["INCR", "n"], timeoutNanoseconds: 100_000_000)
        }
        server.resume()
        #expect(try await redis.read("GET", "n").text == "1")
    }

    @Test func subscriptionsComeBackAfterARestart() async throws {
        let server = try PrivateRedis()
        let redis = try Redis(url: server.url)
        var hints = redis.subscribe(["news"]).makeAsyncIterator()
        #expect(await hints.next() == .subscribed)
        try await redis.command(["PUBLISH", "news", "one"])
        #expect(await hints.next() == .message(channel: "news", payload: "one"))
        server.kill()
        try server.start()
        #expect(await hints.next() == .subscribed)
        try await redis.command(["PUBLISH", "news", "two"])
        #expect(await hints.next() == .message(channel: "news", payload: "two"))
    }

    @Test func persistenceIsLookedAt() async throws {
        let server = try PrivateRedis()
        let redis = try Redis(url: server.url)
        #expect(try await RedisPersistence.problems(of: redis).isEmpty)
        try await redis.command(["CONFIG", "SET", "appendfsync", "everysec"])
        try await redis.command(["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        #expect(try await RedisPersistence.problems(of: redis).count == 2)
    }
}
