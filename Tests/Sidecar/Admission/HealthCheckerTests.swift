import Synchronization
import Testing
import WeirPolicy

@testable import SidecarCore

@Suite struct HealthCheckerTests {
    @Test func onlyChecksInARowChangeTheState() {
        var settings = AgentPolicy.HealthCheck(path: "/health")
        settings.unhealthyAfter = 3
        settings.healthyAfter = 2
        var state = HealthState()
        let checks = [false, false, true, false, false, false, false, true, false, true, true]
        let changes = checks.map { isFine in
            state.checked(isFine: isFine, settings) ? state.isHealthy : nil
        }
        #expect(
            changes == [nil, nil, nil, nil, nil, false, nil, nil, nil, nil, true] as [Bool?])
    }

    @Test func everyEndpointIsAskedByThePath() throws {
        let answers = AnswerSwitch()
        let upstream = try TestUpstream { request in
            guard request.path == "/health" else { return nil }
            return answers.isFine
                ? okay("fine") : "HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n"
        }
        let other = try TestUpstream { _ in okay("fine") }
        let failing = upstream.address
        var agent = AdmissionFixture.openAI()
        var settings = AgentPolicy.HealthCheck(path: "/health")
        settings.intervalMilliseconds = 20
        settings.unhealthyAfter = 2
        agent.healthCheck = settings
        let checked = agent
        let runtime = AgentRuntime(agent, endpoints: [upstream.address, other.address])
        let fixture = try ProxyFixture(upstream)
        let (checker, task) = fixture.onLoop { worker in
            let checker = HealthChecker(checked, runtime: runtime, worker: worker) {
                UpstreamTarget(name: "agent", worker: worker, addresses: [$0])
            }
            return (
                checker,
                checker.start { address, isHealthy, _ in
                    if address == failing { answers.changes(isHealthy) }
                }
            )
        }
        func serving() -> [Bool] { runtime.endpoints(nowNanoseconds: 0).map(\.isServing) }
        #expect(eventually { upstream.requestCount >= 2 && other.requestCount >= 2 })
        #expect(checker.problem == nil && serving() == [true, true])
        answers.set(false)
        #expect(eventually { serving() == [false, true] })
        #expect(checker.problem == "\(upstream.address): status 503")
        answers.set(true)
        #expect(eventually { serving() == [true, true] && answers.seen == [false, true] })
        answers.set(false)
        #expect(eventually { serving() == [false, true] })
        agent.healthCheck = nil
        checker.change(agent)
        #expect(serving() == [true, true] && checker.problem == nil, "nobody asks any more")
        task.cancel()
        fixture.stop()
    }
}

/// What the test's agent answers, and what the checker said of it.
private final class AnswerSwitch: Sendable {
    private let state = Mutex((isFine: true, seen: [Bool]()))
    var isFine: Bool { state.withLock { $0.isFine } }
    var seen: [Bool] { state.withLock { $0.seen } }
    func set(_ isFine: Bool) { state.withLock { $0.isFine = isFine } }
    func changes(_ isHealthy: Bool) { state.withLock { $0.seen.append(isHealthy) } }
}
