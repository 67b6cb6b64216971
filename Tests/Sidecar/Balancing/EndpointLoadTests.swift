import Testing

@testable import SidecarCore

private let second: UInt64 = 1_000_000_000
private let millisecond: UInt64 = 1_000_000

@Suite struct EndpointLoadTests {
    private static func load(_ latencies: [(at: UInt64, took: UInt64)]) -> EndpointLoad {
        var load = EndpointLoad()
        for (at, took) in latencies {
            load.requestStarted()
            load.requestEnded(latencyNanoseconds: took, now: at)
        }
        return load
    }

    @Test func aSlowAnswerCountsAtOnceAndIsForgottenSlowly() {
        let fast = Self.load([(0, 10 * millisecond)])
        #expect(fast.average(now: 0) == Double(10 * millisecond))
        let slow = Self.load([(0, 10 * millisecond), (second, 800 * millisecond)])
        #expect(slow.average(now: second) == Double(800 * millisecond))
        let healed = Self.load([
            (0, 800 * millisecond), (second, 10 * millisecond), (2 * second, 10 * millisecond),
        ])
        let average = healed.average(now: 2 * second)
        #expect(average > Double(500 * millisecond) && average < Double(700 * millisecond))
    }

    @Test func whatNobodyAsksFades() {
        let load = Self.load([(0, 800 * millisecond)])
        #expect(load.average(now: 5 * second) == Double(400 * millisecond))
        #expect(load.average(now: 10 * second) == Double(200 * millisecond))
        #expect(load.average(now: 7 * second) > Double(290 * millisecond))
        #expect(load.average(now: 3_600 * second) == 0)
    }

    @Test func outstandingRequestsCost() {
        var load = Self.load([(0, 10 * millisecond)])
        let idle = load.cost(now: 0)
        load.requestStarted()
        load.requestStarted()
        #expect(load.cost(now: 0) == 3 * idle)
        load.requestEnded(latencyNanoseconds: nil, now: 0)
        #expect(load.cost(now: 0) == 2 * idle, "and a request that says nothing changes no average")
    }

    @Test func anUnknownEndpointIsNotFlooded() {
        var load = EndpointLoad()
        let known = Self.load([(0, 10 * millisecond)])
        #expect(load.cost(now: 0) < known.cost(now: 0), "it is tried first")
        load.requestStarted()
        #expect(load.cost(now: 0) > known.cost(now: 0), "but not again before it has answered")
    }

    @Test func failedConnectsKeepAwayForLongerAndLonger() {
        var load = EndpointLoad()
        var now: UInt64 = 0
        for doubling in 0..<8 {
            load.connectFailed(now: now, random: .max)
            let longest = second << UInt64(min(doubling, 5))
            #expect(load.isAvoided(now: now + longest / 2 - 1))
            #expect(!load.isAvoided(now: now + longest + 1))
            now += longest + 1
        }
        load.connectSucceeded()
        load.connectFailed(now: now, random: 0)
        #expect(!load.isAvoided(now: now + second / 2), "half of the time is drawn")
    }
}
