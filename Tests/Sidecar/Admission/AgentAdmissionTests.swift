import Testing
import WeirCore
import WeirPolicy

@testable import SidecarCore

private func agent(_ change: (inout AgentPolicy) -> Void = { _ in }) -> AgentPolicy {
    var agent = AgentPolicy(
        name: "a", wireProtocol: .json, path: "/", models: [.init(id: "m", aliases: [])])
    var concurrency = AgentPolicy.Concurrency(requestsMax: 1)
    concurrency.queueMax = 1
    agent.concurrency = concurrency
    agent.breaker.consecutiveFailures = 1
    change(&agent)
    return agent
}

/// By reference, because the test macros cannot call what changes a value.
private final class Chain {
    private var admission: AgentAdmission

    init(_ agent: AgentPolicy) {
        admission = AgentAdmission(agent, endpoints: [.loopback(port: 1)])
    }

    var inFlight: Int { admission.inFlight }

    func arrive(_ ticket: UInt64, at now: UInt64 = 0) -> AgentAdmission.Decision {
        admission.arrive(.init(ticket: ticket), nowNanoseconds: now, random: 0)
    }

    func admitted(_ ticket: UInt64, at now: UInt64 = 0) -> AgentAdmission.Permit? {
        guard case .admitted(let permit) = arrive(ticket, at: now) else { return nil }
        return permit
    }

    func refused(_ caller: AgentAdmission.Caller, at now: UInt64 = 0) -> StageRefusal? {
        let decision = admission.arrive(caller, nowNanoseconds: now, random: 0)
        guard case .refused(let refusal) = decision else { return nil }
        return refusal
    }

    func end(
        _ permit: AgentAdmission.Permit, _ outcome: CircuitBreaker.Outcome, at now: UInt64 = 0
    ) -> UInt64? {
        admission.finish(
            .init(ticket: 0), permit, outcome, latencyNanoseconds: nil, nowNanoseconds: now,
            random: .max)
    }

    func leaveQueue(_ ticket: UInt64) -> AgentAdmission.Decision {
        admission.leaveQueue(.init(ticket: ticket), nowNanoseconds: 0, random: 0)
    }

    func givePlaceBack(_ ticket: UInt64) -> UInt64? {
        admission.givePlaceBack(.init(ticket: ticket))
    }

    func change(_ agent: AgentPolicy) -> Bool { admission.change(agent) }
}

private let failure = CircuitBreaker.Outcome.failure(.connect, retryAfterNanoseconds: nil)

@Suite struct AgentAdmissionTests {
    @Test func stagesAnswerInTheirOrder() throws {
        let chain = Chain(
            agent { $0.rateLimit = .init(requestsPerSecond: 1, burst: 3) })
        let permit = try #require(chain.admitted(1))
        #expect(
            chain.arrive(2) == .queued(deadlineNanoseconds: 1_000_000_000, shed: nil))
        #expect(chain.refused(.init(ticket: 3))?.reason == .overloaded)
        let limited = chain.refused(.init(ticket: 4))
        #expect(limited?.reason == .rateLimited)
        #expect(limited?.retryAfterSeconds == 1)
        #expect(limited?.rateLimit?.policy == "\"agent\";q=3;w=3")
        #expect(limited?.rateLimit?.state == "\"agent\";r=0;t=1")
        #expect(chain.end(permit, failure) == 2)
        let next = chain.leaveQueue(2)
        guard case .refused(let refusal) = next else { return #expect(Bool(false), "\(next)") }
        #expect(refusal.reason == .circuitOpen)
        #expect(refusal.detail == "The circuit of a is open (connect).")
        #expect(refusal.holdsPlace, "the place must go back")
        #expect(chain.givePlaceBack(2) == nil)
        #expect(chain.inFlight == 0)
    }

    /// LEDGER rule 15: a refusal by the budget gives the place and the probe back.
    @Test func aLaterRefusalGivesBackWhatWasTaken() throws {
        let chain = Chain(agent())
        let first = try #require(chain.admitted(1))
        #expect(chain.end(first, failure) == nil)
        let later: UInt64 = 100_000_000_000
        let probe = try #require(chain.admitted(2, at: later))
        #expect(probe.endpoint?.isProbe == true)
        #expect(chain.end(probe, .unknown, at: later) == nil)
        #expect(chain.inFlight == 0)
        #expect(chain.admitted(3, at: later)?.endpoint?.isProbe == true)
    }

    @Test func observingRefusesNothing() throws {
        let chain = Chain(
            agent {
                $0.observe = true
                // Nobody waits in the queue either: watching slows nobody down.
                $0.concurrency?.queueMax = 5
                $0.rateLimit = .init(requestsPerSecond: 1, burst: 1)
            })
        let first = try #require(chain.admitted(1))
        #expect(first.observed == nil)
        let second = try #require(chain.admitted(2))
        #expect(second.observed == .rateLimited)
        #expect(!second.hasPlace)
        _ = chain.end(first, failure)
        _ = chain.end(second, failure)
        #expect(chain.inFlight == 0)
        let third = try #require(chain.admitted(3, at: 2_000_000_000))
        #expect(third.observed == .circuitOpen)
    }

    @Test func tiersLimitTheirSubjects() {
        let chain = Chain(agent { $0.concurrency?.requestsMax = 10 })
        var caller = AgentAdmission.Caller(ticket: 1, subject: "alice")
        caller.subjectRate = GCRA(requestsPerSecond: 1, burst: 2)
        caller.subjectMax = 1
        #expect(chain.refused(caller) == nil)
        #expect(chain.refused(caller)?.reason == .concurrency)
        #expect(chain.refused(caller)?.reason == .rateLimited)
        caller.subject = "bob"
        #expect(chain.refused(caller) == nil)
    }

    @Test func aNewPolicyKeepsWhatIsKnown() throws {
        let chain = Chain(
            agent { $0.rateLimit = .init(requestsPerSecond: 1, burst: 1) })
        let permit = try #require(chain.admitted(1))
        #expect(
            chain.change(
                agent {
                    $0.rateLimit = .init(requestsPerSecond: 1, burst: 1)
                    $0.concurrency?.requestsMax = 2
                }))
        #expect(chain.inFlight == 1)
        #expect(chain.refused(.init(ticket: 2))?.reason == .rateLimited, "the bucket goes on")
        #expect(chain.change(agent { $0.concurrency?.requestsMax = 2 }))
        #expect(chain.admitted(3) != nil)
        #expect(!chain.change(agent { $0.concurrency = nil }), "places in use are not forgotten")
        _ = chain.end(permit, .success)
        #expect(chain.inFlight == 1)
    }
}
