import SidecarCore
import Synchronization
import WeirCore
import WeirMeshProtocol
import WeirPolicy

/// The data plane of one agent's sidecar: workers with an `AdmissionInterceptor` each, over one
/// runtime (limits, breaker) and one ledger. Made when the first policy is there; changed by later
/// ones through the workers' mailboxes. On the control loop.
final class AgentPlane {
    private let agentName: String
    private let upstream: HTTPOrigin
    private let context: RoleContext
    private let ledger: AttemptLedger
    private let outbound: SidecarOptions.Outbound?
    private let runs: OutboundRuns?
    private var server: SidecarServer?
    private var outboundServer: SidecarServer?
    private var callers: [(loop: EventLoop, interceptor: OutboundInterceptor)] = []
    private var runtime: AgentRuntime? { running.runtime }
    private let running = RunningBox()
    private var interceptors: [(loop: EventLoop, interceptor: AdmissionInterceptor)] = []
    private var checks: Task<Void, Never>?
    private(set) var version: PolicyVersion?
    private var inForce:
        (policy: Policy, version: PolicyVersion, funding: AdmissionSnapshot.Funding)?
    /// The agent became healthy or unhealthy; from a worker's loop.
    var healthChanged: @Sendable () -> Void = {}

    init(
        _ agentName: String, upstream: HTTPOrigin, outbound: SidecarOptions.Outbound? = nil,
        ledger: AttemptLedger, _ context: RoleContext
    ) {
        self.agentName = agentName
        self.upstream = upstream
        self.outbound = outbound
        runs = outbound.map { _ in OutboundRuns() }
        self.ledger = ledger
        self.context = context
    }

    var isServing: Bool { server != nil }

    /// From any thread.
    var requestsInFlight: @Sendable () -> Int {
        { [running] in running.runtime?.requestsInFlight ?? 0 }
    }

    /// What the agent's health checks hold against it; from any thread. It is said and shown;
    /// whether requests go through is the breaker's decision.
    var healthProblem: @Sendable () -> String? {
        { [running] in running.checker?.problem }
    }

    /// `nil` when the policy does not know this agent.
    func snapshot(
        _ policy: Policy, version: PolicyVersion, funding: AdmissionSnapshot.Funding
    ) -> AdmissionSnapshot? {
        guard let silent = policy.agents[agentName] else { return nil }
        let agent = context.options.filled(silent)
        inForce = (policy, version, funding)
        return AdmissionSnapshot(
            agent, policy: policy, version: version, funding: funding,
            credential: agent.credential.flatMap(context.options.credentials.authorization))
    }

    // MARK: Keys that change

    /// A key that was replaced in its file goes upstream with the next request.
    private func watchCredentials() {
        guard context.options.credentials.areWatched else { return }
        context.control.schedule(afterNanoseconds: Self.credentialsNanoseconds) { [weak self] in
            self?.reloadCredentials()
        }
    }

    private static let credentialsNanoseconds: UInt64 = 1_000_000_000

    private func reloadCredentials() {
        let reload = context.options.credentials.reload(TextFile.read)
        for name in reload.changed { context.log.info("a key was replaced", ("name", name)) }
        for problem in reload.unusable {
            context.log.warning(
                "a key cannot be read again; the one before stays", ("file", problem.option),
                ("error", problem.message))
        }
        if !reload.changed.isEmpty, let (policy, version, funding) = inForce,
            let snapshot = snapshot(policy, version: version, funding: funding)
        {
            for (loop, interceptor) in interceptors {
                loop.execute { interceptor.apply(snapshot) }
            }
        }
        watchCredentials()
    }

    func apply(_ snapshot: AdmissionSnapshot, agent: AgentPolicy, version: PolicyVersion) throws {
        self.version = version
        guard let runtime else { return try serve(snapshot, agent) }
        runtime.change(agent, nowNanoseconds: context.control.nowNanoseconds)
        running.checker?.change(agent)
        let waits = timeouts(agent, context.serverConfiguration().timeouts)
        for (loop, interceptor) in interceptors {
            loop.execute { interceptor.apply(snapshot, timeouts: waits) }
        }
        for (loop, interceptor) in callers { loop.execute { interceptor.apply(snapshot) } }
    }

    private func serve(_ snapshot: AdmissionSnapshot, _ agent: AgentPolicy) throws {
        let runtime = AgentRuntime(agent)
        var checker: HealthChecker?
        let server = try SidecarServer(context.serverConfiguration()) { worker in
            if checker == nil { checker = makeChecker(agent, worker) }
            let target = UpstreamTarget(
                name: agentName, worker: worker, addresses: [upstream.address],
                timeouts: timeouts(agent, worker.timeouts))
            let interceptor = AdmissionInterceptor(
                worker: worker, target: target, snapshot: snapshot, runtime: runtime,
                ledger: ledger, metrics: context.metrics, outbound: runs)
            interceptors.append((worker.loop, interceptor))
            return interceptor
        }
        context.metrics.show(runtime, agent: agentName, endpoint: upstream.authority)
        running.set(runtime, checker)
        watchCredentials()
        self.server = server
        try serveCalls(snapshot)
        if let checker { startChecks(checker) }
        context.log.info(
            "serving", ("agent", agentName), ("address", server.address.description),
            ("workers", String(server.workers.count)))
    }

    /// The agent's own calls: a few at a time, so one worker serves them.
    private func serveCalls(_ snapshot: AdmissionSnapshot) throws {
        guard let outbound, let runs else { return }
        var configuration = context.serverConfiguration()
        configuration.listen = outbound.listen
        configuration.workers = 1
        let server = try SidecarServer(configuration) { worker in
            let gateway = UpstreamTarget(
                name: "gateway", worker: worker, addresses: [outbound.gateway.address],
                hostOverride: outbound.gateway.authority)
            let interceptor = OutboundInterceptor(
                worker: worker, gateway: gateway, runs: runs, snapshot: snapshot)
            callers.append((worker.loop, interceptor))
            return interceptor
        }
        outboundServer = server
        context.log.info("outbound listener", ("address", server.address.description))
    }

    /// With a target of its own, so that checks do not count in the agent's latencies.
    private func makeChecker(_ agent: AgentPolicy, _ worker: Worker) -> HealthChecker {
        let target = UpstreamTarget(
            name: agentName, worker: worker, addresses: [upstream.address],
            timeouts: timeouts(agent, worker.timeouts))
        return HealthChecker(agent, worker: worker, target: target)
    }

    private func startChecks(_ checker: HealthChecker) {
        let (metrics, log, name, changed) = (
            context.metrics, context.log, agentName, healthChanged
        )
        metrics.registry.collect { _ in
            guard checker.isChecking else { return }
            metrics.registry.set(
                metrics.registry.series(metrics.healthy, [name]), checker.isHealthy ? 1 : 0)
        }
        checks = checker.start { isHealthy in
            if isHealthy {
                log.info("the agent is healthy again", ("agent", name))
            } else {
                log.warning(
                    "the agent fails its health checks", ("agent", name),
                    ("error", checker.lastError ?? ""))
            }
            changed()
        }
    }

    private func timeouts(_ agent: AgentPolicy, _ base: Timeouts) -> Timeouts {
        func nanoseconds(_ milliseconds: Int64) -> UInt64 {
            UInt64(clamping: milliseconds) &* 1_000_000
        }
        var timeouts = base
        timeouts.connectNanoseconds = nanoseconds(agent.timeouts.connectMilliseconds)
        timeouts.firstByteNanoseconds = nanoseconds(agent.timeouts.firstByteMilliseconds)
        timeouts.streamIdleNanoseconds = nanoseconds(agent.timeouts.idleMilliseconds)
        timeouts.totalNanoseconds = nanoseconds(agent.timeouts.totalMilliseconds)
        return timeouts
    }

    func drain(completed: @escaping () -> Void) {
        checks?.cancel()
        guard let server else { return completed() }
        let bound = LoopBound(completed, loop: context.control)
        let control = context.control
        server.drain { control.execute { bound.value() } }
    }

    func stop() {
        checks?.cancel()
        server?.stop()
        outboundServer?.stop()
    }
}

/// The stages and the health once there are some; read by the report.
private final class RunningBox: Sendable {
    private let stored = Mutex<(AgentRuntime?, HealthChecker?)>((nil, nil))
    var runtime: AgentRuntime? { stored.withLock { $0.0 } }
    var checker: HealthChecker? { stored.withLock { $0.1 } }
    func set(_ runtime: AgentRuntime, _ checker: HealthChecker?) {
        stored.withLock { $0 = (runtime, checker) }
    }
}
