import SidecarCore
import SidecarGateway
import SidecarUplink
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// The gateway: users' requests, run over the agents. It listens at once, and says 503 until it has
/// a policy.
final class GatewayRole: Role {
    private let mode: SidecarOptions.Gateway
    private let context: RoleContext
    private let member: MeshMember
    private let state = GatewayState()
    private let picker = EndpointPicker()
    /// For the agents whose addresses the environment fixes.
    private let directory: ServiceDirectory
    private var asking: Task<Void, Never>?
    private var names: [NameWatcher] = []
    private var view: MeshMember.View?
    private let sight = MeshSight()
    private let metrics: OrchestratorMetrics
    private var server: SidecarServer?

    init(_ mode: SidecarOptions.Gateway, _ context: RoleContext) throws {
        self.mode = mode
        self.context = context
        member = try MeshMember(
            role: .gateway, agent: nil, endpoint: nil, mesh: mode.mesh, context)
        directory = ServiceDirectory(
            mode.services.mapValues { $0.flatMap(\.addresses) }, loop: context.control)
        metrics = OrchestratorMetrics(context.metrics) { [sight] in sight.score }
    }

    func start() throws {
        let service = GatewayService(
            configuration: mode.configuration, dependencies: dependencies())
        service.show(on: context.metrics.registry)
        let state = self.state
        let server = try SidecarServer(context.serverConfiguration()) { worker in
            GatewayInterceptor.make(service: service, state: state, worker: worker)
        }
        self.server = server
        picker.show(in: context.metrics.registry) { MonotonicClock.nowNanoseconds }
        context.measureLag(of: server)
        context.log.info("serving as gateway", ("address", server.address.description))
        let bound = LoopBound(self, loop: context.control)
        let look = makeLook()
        context.everySecond(look)
        let (metrics, sight) = (self.metrics, self.sight)
        let hooks = MeshMember.Hooks(
            requestsInFlight: { service.analysesInHand },
            addVitals: { $0.gateway = metrics.vitals },
            stateReceived: { mesh in
                sight.received(mesh, nowNanoseconds: MonotonicClock.nowNanoseconds)
                look()
            })
        member.start(hooks) { view in
            bound.value.view = view
            bound.value.applyView()
            look()
        }
        try followServices(bound)
    }

    /// What is known of the last minute and of the agents' state, brought up to date.
    private func makeLook() -> @Sendable () -> Void {
        let (metrics, sight, state) = (self.metrics, self.sight, self.state)
        return {
            let now = MonotonicClock.nowNanoseconds
            metrics.look(nowNanoseconds: now)
            guard let snapshot = state.snapshot else { return }
            sight.look(snapshot, nowNanoseconds: now, at: WallClock.now)
        }
    }

    /// Names are resolved again, and addresses asked who answers there.
    private func followServices(_ bound: LoopBound<GatewayRole>) throws {
        let (directory, control) = (self.directory, context.control)
        for (agent, origins) in mode.services {
            let watcher = try NameWatcher(origins) { addresses in
                directory.update(agent, addresses: addresses)
                control.execute { bound.value.applyView() }
            }
            if let watcher { names.append(watcher) }
        }
        asking = directory.start { bound.value.applyView() }
    }

    /// On the control loop.
    private func applyView() {
        guard let view else { return }
        var projection = view.policy.projection
        projection.endpoints = directory.place(projection.endpoints)
        var policy = view.policy.policy
        let options = context.options
        policy.agents = policy.agents.mapValues { options.filled($0) }
        state.apply(projection, policy: policy, incarnation: view.join.incarnation)
    }

    private func dependencies() -> GatewayDependencies {
        let (state, member) = (self.state, self.member)
        let watch = BudgetWatch(context.metrics.registry, context.log)
        return GatewayDependencies(
            snapshot: { state.snapshot },
            bind: { request in
                let opening = LedgerAccounts.likely(
                    of: request, snapshot: state.snapshot, at: WallClock.now)
                return await Self.bind(request, opening, member.uplink)
            },
            ledger: { binding, snapshot, clock in
                LedgerAccounts(
                    ledger: member.ledger, binding: binding, snapshot: snapshot, clock: clock,
                    watch: watch, isControlPlaneReachable: { member.status.isConnected },
                    isControlPlaneLost: {
                        member.status.isLost(nowNanoseconds: MonotonicClock.nowNanoseconds)
                    })
            },
            ask: { operation, request in
                await member.uplink?.ask(operation, request) ?? .unavailable
            },
            idempotency: { await member.uplink?.idempotency($0) ?? .unavailable },
            controlPlane: {
                let status = member.status
                let now = MonotonicClock.nowNanoseconds
                let silent = now - min(now, status.heardNanoseconds)
                return ControlPlaneView(
                    isReachable: status.isConnected,
                    silentMilliseconds: Int64(clamping: silent / 1_000_000),
                    isLost: status.isLost(nowNanoseconds: now))
            },
            process: { member.processView }, sight: sight, metrics: metrics, picker: picker,
            cache: ResponseCache(context.metrics.registry))
    }

    private static func bind(
        _ request: SubjectRequest, _ opening: [AccountTerms], _ uplink: Uplink?
    ) async -> CallerBinding {
        switch await uplink?.subject(request, opening: opening) {
        case .bound(let binding)?: .bound(binding)
        case .refused(let refusal)?:
            .refused(Reason(name: refusal.reason) ?? .forbidden, refusal.detail)
        case .unavailable?, nil: .unavailable
        }
    }

    func drain(completed: @escaping () -> Void) {
        member.drainBegan()
        let bound = LoopBound((member, completed), loop: context.control)
        let control = context.control
        guard let server else { return member.drainEnded(completed: completed) }
        server.drain {
            control.execute {
                let (member, completed) = bound.value
                member.drainEnded(completed: completed)
            }
        }
    }

    func finish() {
        asking?.cancel()
        for watcher in names { watcher.stop() }
        server?.stop()
    }

    func describe(_ state: inout AdminPages.State) { member.describe(&state) }
}
