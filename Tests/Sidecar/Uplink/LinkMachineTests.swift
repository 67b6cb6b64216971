import SidecarCore
import Testing

@testable import SidecarUplink

@Suite struct LinkMachineTests {
    private let second: UInt64 = 1_000_000_000

    private func opened(replicas: Int = 1, at now: UInt64 = 0) -> LinkMachine {
        var machine = LinkMachine(replicaCount: replicas)
        #expect(machine.start(now: now) == [.connect(replica: 0)])
        #expect(machine.connected(now: now) == [])
        #expect(machine.settingsReceived(now: now) == [.opened])
        return machine
    }

    @Test func opensAfterTheGreeting() {
        var machine = LinkMachine(replicaCount: 1)
        #expect(machine.dueNanoseconds == nil)
        _ = machine.start(now: 0)
        #expect(machine.start(now: 1) == [], "once")
        #expect(!machine.isOpen)
        _ = machine.connected(now: 5)
        #expect(!machine.isOpen, "a socket is not a control plane")
        #expect(machine.dueNanoseconds == 5 + UplinkLimits.greetingNanoseconds)
        #expect(machine.settingsReceived(now: 6) == [.opened])
        #expect(machine.settingsReceived(now: 7) == [], "later SETTINGS are not news")
        #expect(machine.isOpen)
    }

    @Test func silenceIsAskedAndThenGivenUp() {
        var machine = opened()
        let silent = UplinkLimits.silenceNanoseconds
        #expect(machine.timePassed(now: silent - 1, random: 0) == [])
        #expect(machine.timePassed(now: silent, random: 0) == [.ping])
        #expect(machine.timePassed(now: silent + 1, random: 0) == [], "one PING")
        machine.heard(now: silent + 2)
        #expect(machine.timePassed(now: 2 * silent + 2, random: 0) == [.ping])
        let end = 2 * silent + 2 + UplinkLimits.pongNanoseconds
        #expect(machine.timePassed(now: end, random: 0) == [.close, .lost])
        #expect(!machine.isOpen)
    }

    @Test func pausesGrowAreBoundedAndJittered() {
        for random in [UInt64(0), .max, 12_345] {
            var machine = LinkMachine(replicaCount: 1)
            var now: UInt64 = 0
            _ = machine.start(now: now)
            var whole = UplinkLimits.backoffNanoseconds
            for _ in 0..<70 {
                #expect(machine.failed(now: now, random: random) == [.close])
                let pause = (machine.dueNanoseconds ?? 0) - now
                #expect(whole / 2 <= pause && pause <= whole)
                whole = min(whole * 2, UplinkLimits.backoffNanosecondsMax)
                now += pause
                #expect(machine.timePassed(now: now - 1, random: random) == [])
                #expect(machine.timePassed(now: now, random: random) == [.connect(replica: 0)])
            }
        }
    }

    @Test func aGoodConnectionMakesThePauseShortAgain() {
        var machine = LinkMachine(replicaCount: 1)
        _ = machine.start(now: 0)
        var now: UInt64 = 0
        func reconnect(openFor time: UInt64) -> UInt64 {
            _ = machine.failed(now: now, random: .max)
            let pause = (machine.dueNanoseconds ?? 0) - now
            now += pause
            _ = machine.timePassed(now: now, random: 0)
            _ = machine.connected(now: now)
            _ = machine.settingsReceived(now: now)
            now += time
            return pause
        }
        var last: UInt64 = 0
        for _ in 0..<4 {
            let pause = reconnect(openFor: 1)
            #expect(pause > last, "one that greets and breaks does not count")
            last = pause
        }
        _ = reconnect(openFor: UplinkLimits.stableNanoseconds)
        #expect(reconnect(openFor: 0) <= UplinkLimits.backoffNanoseconds)
    }

    @Test func failuresMoveOnToTheNextReplica() {
        var machine = opened(replicas: 3)
        var seen: [Int] = []
        var now: UInt64 = 0
        #expect(machine.failed(now: now, random: 0) == [.close, .lost])
        for _ in 0..<4 {
            now = machine.dueNanoseconds ?? 0
            for case .connect(let replica) in machine.timePassed(now: now, random: 0) {
                seen.append(replica)
            }
            #expect(machine.failed(now: now, random: 0) == [.close])
        }
        #expect(seen == [1, 2, 0, 1])
        machine.replicasChanged(count: 1)
        now = machine.dueNanoseconds ?? 0
        #expect(machine.timePassed(now: now, random: 0) == [.connect(replica: 0)])
    }

    @Test func eachStageHasADeadline() {
        var machine = LinkMachine(replicaCount: 1)
        _ = machine.start(now: 0)
        #expect(machine.timePassed(now: UplinkLimits.connectNanoseconds, random: 0) == [.close])
        var greeting = LinkMachine(replicaCount: 1)
        _ = greeting.start(now: 0)
        _ = greeting.connected(now: second)
        let due = second + UplinkLimits.greetingNanoseconds
        #expect(greeting.timePassed(now: due, random: 0) == [.close])
    }

    @Test func stoppedStaysStopped() {
        var machine = opened()
        #expect(machine.stop() == [.close, .lost])
        #expect(machine.stop() == [])
        #expect(machine.failed(now: 1, random: 0) == [])
        #expect(machine.connected(now: 1) == [])
        #expect(machine.timePassed(now: .max, random: 0) == [])
        #expect(machine.dueNanoseconds == nil)
    }
}
