import Testing

@testable import ControlPlaneStore

@Suite(.timeLimit(.minutes(1))) struct RedisPipelineTests {
    private func command(_ name: String, idempotent: Bool, deadline: UInt64) -> RedisCommand {
        RedisCommand(
            bytes: Array(name.utf8), isIdempotent: idempotent, deadlineNanoseconds: deadline,
            completion: { _ in })
    }

    private func names(_ completions: [RedisCompletion]) -> [String] {
        completions.map { String(decoding: $0.command.bytes, as: UTF8.self) }
    }

    private func error(_ completion: RedisCompletion?) -> RedisError? {
        if case .failure(let error)? = completion?.result { error } else { nil }
    }

    @Test func answersGoToTheirQuestionsInOrder() throws {
        var pipeline = RedisPipeline()
        _ = pipeline.enqueue([
            command("a", idempotent: false, deadline: 10),
            command("b", idempotent: false, deadline: 20),
        ])
        #expect(pipeline.send(nowNanoseconds: 0) == Array("ab".utf8))
        #expect(names(pipeline.expire(nowNanoseconds: 10)) == ["a"])
        // The late answer to "a" is swallowed, and "b" still gets its own.
        #expect(try pipeline.replied(.integer(1)) == nil)
        let second = try #require(try pipeline.replied(.integer(2)))
        #expect(names([second]) == ["b"])
        #expect(try second.result.get().reply == .integer(2))
        #expect(throws: RedisError.self) { try pipeline.replied(.integer(3)) }
    }

    @Test func onlyIdempotentCommandsAreSentAgain() {
        var pipeline = RedisPipeline()
        _ = pipeline.enqueue([
            command("a", idempotent: true, deadline: 100),
            command("b", idempotent: false, deadline: 100),
        ])
        _ = pipeline.send(nowNanoseconds: 0)
        _ = pipeline.enqueue([command("c", idempotent: false, deadline: 100)])
        let lost = pipeline.connectionLost()
        #expect(names(lost) == ["b"])
        #expect(error(lost.first) == .connectionLost(maybeExecuted: true))
        #expect(pipeline.send(nowNanoseconds: 1) == Array("ac".utf8))
        _ = pipeline.connectionLost()
        let expired = pipeline.expire(nowNanoseconds: 100)
        #expect(names(expired) == ["a"])
        #expect(error(expired.first) == .timeout(maybeExecuted: true))
    }

    @Test func whatWasNeverSentDidNothing() {
        var pipeline = RedisPipeline()
        _ = pipeline.enqueue([command("a", idempotent: false, deadline: 5)])
        #expect(pipeline.nextDeadlineNanoseconds == 5)
        let expired = pipeline.expire(nowNanoseconds: 5)
        #expect(error(expired.first) == .timeout(maybeExecuted: false))
        #expect(pipeline.isIdle && pipeline.nextDeadlineNanoseconds == .max)
    }

    @Test func silenceIsAStall() {
        var pipeline = RedisPipeline()
        _ = pipeline.enqueue([command("a", idempotent: true, deadline: .max)])
        _ = pipeline.send(nowNanoseconds: 0)
        #expect(!pipeline.isStalled(nowNanoseconds: StoreLimits.redisStallNanoseconds))
        #expect(pipeline.isStalled(nowNanoseconds: StoreLimits.redisStallNanoseconds + 1))
    }

    @Test func aDemotedPrimaryCostsTheConnectionAndNotTheCommand() throws {
        var pipeline = RedisPipeline(followsFailover: true)
        _ = pipeline.enqueue([command("a", idempotent: false, deadline: 100)])
        _ = pipeline.send(nowNanoseconds: 0)
        #expect(throws: RedisError.self) {
            try pipeline.replied(.error("READONLY You can't write against a read only replica."))
        }
        // It was refused, so that even this one goes to the next primary.
        #expect(pipeline.connectionLost().isEmpty)
        #expect(pipeline.send(nowNanoseconds: 1) == Array("a".utf8))

        var fixed = RedisPipeline()
        _ = fixed.enqueue([command("a", idempotent: true, deadline: 100)])
        _ = fixed.send(nowNanoseconds: 0)
        let answer = try fixed.replied(.error("READONLY"))
        #expect(error(answer) == .server("READONLY"))
    }

    @Test func whatIsSaidOfOneConnectionIsAskedOfNoOther() throws {
        var pipeline = RedisPipeline()
        _ = pipeline.enqueue([command("a", idempotent: true, deadline: 100)])
        _ = pipeline.send(nowNanoseconds: 0)
        let answer = try pipeline.replied(.integer(1))
        let generation = try #require(try answer?.result.get().generation)
        var wait = command("w", idempotent: true, deadline: 100)
        wait.generation = generation
        #expect(pipeline.enqueue([wait]).isEmpty)
        #expect(names(pipeline.connectionLost()) == ["w"])
        let late = pipeline.enqueue([wait])
        #expect(error(late.first) == .connectionLost(maybeExecuted: false))
        #expect(pipeline.isIdle)
    }

    @Test func aNodeOfAClusterHandsEverythingBack() throws {
        var pipeline = RedisPipeline(.handBack)
        _ = pipeline.enqueue([command("a", idempotent: true, deadline: 100)])
        _ = pipeline.send(nowNanoseconds: 0)
        _ = pipeline.enqueue([command("b", idempotent: false, deadline: 100)])
        let lost = pipeline.connectionLost()
        #expect(names(lost) == ["a", "b"])
        #expect(error(lost.first) == .connectionLost(maybeExecuted: true))
        #expect(error(lost.last) == .connectionLost(maybeExecuted: false))
        #expect(pipeline.isIdle)
    }

    @Test func theAnswerToAskingIsNobodys() throws {
        var pipeline = RedisPipeline()
        var asking = command("a", idempotent: true, deadline: 100)
        asking.leadingReplies = 1
        _ = pipeline.enqueue([asking, command("b", idempotent: true, deadline: 100)])
        _ = pipeline.send(nowNanoseconds: 0)
        #expect(try pipeline.replied(.string(Array("OK".utf8))) == nil)
        #expect(try pipeline.replied(.integer(1))?.result.get().reply == .integer(1))
        let last = try #require(try pipeline.replied(.integer(2)))
        #expect(names([last]) == ["b"])
    }
}
