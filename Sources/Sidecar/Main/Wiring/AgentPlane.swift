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
    private let upstreams: [HTTPOrigin]
    private var endpoints: [SocketAddress]
    private var names: NameWatcher?
    private var gatewayNames: NameWatcher?
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
    private lazy var prices = PriceWatch(context.control) { [weak self] in self?.pricesChanged() }
    /// The agent became healthy or unhealthy; from a worker's loop.
    var healthChanged: @Sendable () -> Void = {}

    init(
        _ agentName: String, upstreams: [HTTPOrigin], outbound: SidecarOptions.Outbound? = nil,
        ledger: AttemptLedger, _ context: RoleContext
    ) {
        self.agentName = agentName
        self.upstreams = upstreams
        endpoints = upstreams.flatMap(\.addresses)
        self.outbound = outbound
        runs = outbound.map { _ in OutboundRuns() }
        self.ledger = ledger
        self.context = context
    }

    /// All instances of an agent are alike (`SidecarOptions`).

    var isServing: Bool { server != nil }

    /// From any thread.
    var requestsInFlight: @Sendable () -> Int {
        { [running] in running.runtime?.requestsInFlight ?? 0 }
    }

    /// What is known of the agent's endpoints; from any thread.
    var endpointsSeen: @Sendable (UInt64) -> AgentSight.Endpoints {
        { [running] now in
            guard let runtime = running.runtime else { return .init([], areChecked: false) }
            return .init(
                runtime.endpoints(nowNanoseconds: now), areChecked: runtime.isChecked)
        }
    }

    /// What health checks and breakers hold against the agent; from any thread.
    var healthProblem: @Sendable () -> String? {
        { [running] in
            let reasons = [running.checker?.problem].compactMap { $0 } + running.openCircuits
            return reasons.isEmpty ? nil : reasons.joined(separator: "; ")
        }
    }

    /// Addresses that the names mean now; on the control loop.
    private func update(endpoints: [SocketAddress]) {
        context.log.info(
            "the agent's addresses changed", ("agent", agentName),
            ("addresses", endpoints.map(\.description).joined(separator: " ")))
        self.endpoints = endpoints
        runtime?.update(endpoints: endpoints)
        for (loop, interceptor) in interceptors {
            loop.execute { interceptor.update(endpoints: endpoints) }
        }
    }

    /// `nil` when the policy does not know this agent.
    func snapshot(
        _ policy: Policy, version: PolicyVersion, funding: AdmissionSnapshot.Funding
    ) -> AdmissionSnapshot? {
        guard let silent = policy.agents[agentName] else { return nil }
        let agent = context.options.filled(silent)
        inForce = (policy, version, funding)
        return AdmissionSnapshot(
            agent, policy: prices.priced(policy), version: version, funding: funding,
            credential: agent.credential.flatMap {
                let keys = context.options.credentials
                return agent.wireProtocol == .anthropic ? keys.key($0) : keys.authorization($0)
            })
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
        if !reload.changed.isEmpty { renewSnapshot() }
        watchCredentials()
    }

    /// The same policy with other keys or other prices.
    private func renewSnapshot() {
        guard let (policy, version, funding) = inForce,
            let snapshot = self.snapshot(policy, version: version, funding: funding)
        else { return }
        for (loop, interceptor) in interceptors {
            loop.execute { interceptor.apply(snapshot) }
        }
        for (loop, interceptor) in callers { loop.execute { interceptor.apply(snapshot) } }
    }

    private func pricesChanged() {
        context.log.info("prices came into force", ("agent", agentName))
        renewSnapshot()
    }

    func apply(_ snapshot: AdmissionSnapshot, version: PolicyVersion) throws {
        self.version = version
        // Not the policy's own: settings of this process stand in where that is silent.
        let agent = snapshot.agent
        guard let runtime else { return try serve(snapshot) }
        runtime.change(agent, nowNanoseconds: context.control.nowNanoseconds)
        running.checker?.change(agent)
        let waits = timeouts(agent, context.serverConfiguration().timeouts)
        for (loop, interceptor) in interceptors {
            loop.execute { interceptor.apply(snapshot, timeouts: waits) }
        }
        for (loop, interceptor) in callers { loop.execute { interceptor.apply(snapshot) } }
    }

    private func serve(_ snapshot: AdmissionSnapshot) throws {
        let agent = snapshot.agent
        let runtime = AgentRuntime(agent, endpoints: endpoints)
        var checker: HealthChecker?
        let origin = upstreamOrigin
        let server = try SidecarServer(context.serverConfiguration()) { worker in
            if checker == nil { checker = makeChecker(agent, runtime, worker) }
            let target = origin.target(endpoints, worker, timeouts(agent, worker.timeouts))
            let interceptor = AdmissionInterceptor(
                worker: worker, target: target, snapshot: snapshot, runtime: runtime,
                ledger: ledger, metrics: context.metrics, outbound: runs)
            interceptors.append((worker.loop, interceptor))
            return interceptor
        }
        context.measureLag(of: server)
        context.metrics.show(runtime, agent: agentName) { MonotonicClock.nowNanoseconds }
        running.set(runtime, checker)
        watchCredentials()
        prices.start()
        self.server = server
        try serveCalls(snapshot)
        if let checker { startChecks(checker) }
        let (plane, control) = (LoopBound(self, loop: context.control), context.control)
        names = try NameWatcher(upstreams) { addresses in
            control.execute { plane.value.update(endpoints: addresses) }
        }
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
        // Loopback only, and the agent knows no certificate of ours.
        configuration.tls = nil
        let server = try SidecarServer(configuration) { worker in
            let gateway = UpstreamTarget(
                name: "gateway", worker: worker, addresses: outbound.gateway.addresses,
                hostOverride: outbound.gateway.authority)
            let interceptor = OutboundInterceptor(
                worker: worker, gateway: gateway, addresses: outbound.gateway.addresses,
                runs: runs, snapshot: snapshot, registry: context.metrics.registry)
            callers.append((worker.loop, interceptor))
            return interceptor
        }
        outboundServer = server
        let watching = callers
        gatewayNames = try NameWatcher([outbound.gateway]) { addresses in
            for (loop, interceptor) in watching {
                loop.execute { interceptor.update(addresses: addresses) }
            }
        }
        context.log.info("outbound listener", ("address", server.address.description))
    }

    private func makeChecker(
        _ agent: AgentPolicy, _ runtime: AgentRuntime, _ worker: Worker
    ) -> HealthChecker {
        let waits = timeouts(agent, worker.timeouts)
        let origin = upstreamOrigin
        return HealthChecker(agent, runtime: runtime, worker: worker) { address in
            origin.target([address], worker, waits)
        }
    }

    private var upstreamOrigin: UpstreamOrigin {
        let first = upstreams.first
        return UpstreamOrigin(
            agent: agentName, wire: first?.wire ?? .http1, path: first?.path ?? "",
            host: first.flatMap { $0.isSecure && $0.name != nil ? $0.authority : nil },
            transport: context.tls.transport(to: upstreams, of: agentName))
    }

    private func startChecks(_ checker: HealthChecker) {
        let (log, name, changed) = (context.log, agentName, healthChanged)
        checks = checker.start { address, isHealthy, problem in
            let endpoint = ("endpoint", address.description)
            if isHealthy {
                log.info("the agent is healthy again", ("agent", name), endpoint)
            } else {
                log.warning(
                    "the agent fails its health checks", ("agent", name), endpoint,
                    ("error", problem ?? ""))
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
        names?.stop()
        gatewayNames?.stop()
        server?.stop()
        outboundServer?.stop()
    }
}

/// The stages and the health once there are some; read by the report.
private final class RunningBox: Sendable {
    private let stored = Mutex<(AgentRuntime?, HealthChecker?)>((nil, nil))
    var runtime: AgentRuntime? { stored.withLock { $0.0 } }
    var checker: HealthChecker? { stored.withLock { $0.1 } }
    /// "the circuit of 127.0.0.1:9000 is open (connect)"
    var openCircuits: [String] {
        let endpoints = runtime?.endpoints(nowNanoseconds: MonotonicClock.nowNanoseconds) ?? []
        return endpoints.filter { $0.breaker != .closed }.map {
            "the circuit of \($0.key) is open (\($0.openedBy?.name ?? "unknown"))"
        }
    }
    func set(_ runtime: AgentRuntime, _ checker: HealthChecker?) {
        stored.withLock { $0 = (runtime, checker) }
    }
}

/// How the agent's instances are spoken to, which are alike in this.
private struct UpstreamOrigin {
    let agent: String
    let wire: UpstreamProtocol
    let path: String
    /// A service on the Internet wants to be called by its own name, an agent beside us by the one
    /// that the client knows.
    let host: String?
    let transport: UpstreamTransport

    func target(
        _ addresses: [SocketAddress], _ worker: Worker, _ timeouts: Timeouts
    ) -> UpstreamTarget {
        UpstreamTarget(
            name: agent, worker: worker, addresses: addresses, wire: wire, hostOverride: host,
            pathPrefix: path, transport: transport, timeouts: timeouts)
    }
}
