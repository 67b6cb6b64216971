import Testing

@testable import SampleAgents

struct OptionsTests {
    @Test(arguments: [
        ("slow:250", Fault.slow(milliseconds: 250)), ("fail", .fail(status: 500)),
        ("fail:503", .fail(status: 503)), ("429", .rateLimited(retryAfterSeconds: 1)),
        ("429:30", .rateLimited(retryAfterSeconds: 30)), ("die", .die(afterBytes: nil)),
        ("die:0", .die(afterBytes: 0)), ("stall", .stall), ("stall-head", .stallAfterHead),
        ("wrong-usage", .wrongUsage), ("no-usage", .noUsage), ("garbage", .garbage),
        ("garbage-head", .garbageHead), ("unhealthy", .unhealthy),
    ])
    func `faults are read`(text: String, fault: Fault) {
        #expect(Fault(text) == fault)
    }

    @Test(arguments: [
        "", ":", "slow", "slow:", "slow:x", "slow:-1", "fail:200", "fail:600", "stall:3", "other",
        "none",
    ])
    func `anything else is no fault`(text: String) {
        #expect(Fault(text) == nil)
    }

    @Test func `a listener is an agent and an address`() {
        let listener = AgentListener(argument: "llama2-7b=127.0.0.1:4003")
        #expect(listener?.kind == .llama)
        #expect(listener?.host == "127.0.0.1")
        #expect(listener?.port == 4003)
        for wrong in ["llama2-7b", "x=127.0.0.1:1", "risk=:1", "risk=127.0.0.1", "risk=a:70000"] {
            #expect(AgentListener(argument: wrong) == nil)
        }
    }

    @Test(arguments: [
        ("seed", Latency.seed), ("none", .milliseconds(0)), ("25", .milliseconds(25)),
    ])
    func `latencies are read`(text: String, latency: Latency) {
        #expect(Latency(argument: text) == latency)
    }

    @Test func `the platform's latencies are as it states them`() {
        let stated = AgentKind.allCases.map { Latency.seed.milliseconds(of: $0) }
        #expect(stated == [12, 850, 210, 28, 50])
    }

    @Test func `a fault for so many requests ends by itself`() {
        let state = AgentState(fault: nil)
        state.setFault(.stall, times: 2)
        #expect(
            [state.takeFault(), state.takeFault(), state.takeFault()] == [.stall, .stall, nil])
        state.setFault(.garbage, times: nil)
        #expect([state.takeFault(), state.takeFault()] == [.garbage, .garbage])
    }
}
