import Testing

@testable import ControlPlaneStore

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
