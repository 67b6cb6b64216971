import SidecarCore
import SidecarGateway
import SidecarUplink
import WeirCore
import WeirMeshProtocol
import WeirPolicy

/// The gateway: users' requests, run over the agents. It listens at once, and says 503 until it has
/// a policy.
final class GatewayRole: Role {
    private let mode: SidecarOptions.Gateway
    private let context: RoleContext
    private let member: MeshMember
    private let state = GatewayState()
    private var server: SidecarServer?

    init(_ mode: SidecarOptions.Gateway, _ context: RoleContext) throws {
        self.mode = mode
        self.context = context
        member = try MeshMember(
            role: .gateway, agent: nil, endpoint: nil, mesh: mode.mesh, context)
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
        context.log.info("serving as gateway", ("address", server.address.description))
        let services = mode.services.mapValues(\.address.description)
        member.start(requestsInFlight: { service.analysesInHand }) { view in
            let projection = Self.projection(view.policy.projection, at: services)
            state.apply(
                projection, policy: view.policy.policy, incarnation: view.join.incarnation)
        }
    }

    private func dependencies() -> GatewayDependencies {
        let (state, member) = (self.state, self.member)
        return GatewayDependencies(
            snapshot: { state.snapshot },
            bind: { await Self.bind($0, member.uplink) },
            ledger: { binding, snapshot, clock in
                LedgerAccounts(
                    ledger: member.ledger, binding: binding, snapshot: snapshot, clock: clock,
                    isControlPlaneReachable: { member.status.isConnected })
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
                    silentMilliseconds: Int64(clamping: silent / 1_000_000))
            },
            metrics: OrchestratorMetrics(context.metrics.registry) { state.healthScore })
    }

    private static func bind(
        _ request: SubjectRequest, _ uplink: Uplink?
    ) async -> CallerBinding {
        switch await uplink?.subject(request) {
        case .bound(let binding)?: .bound(binding)
        case .refused(let refusal)?:
            .refused(Reason(name: refusal.reason) ?? .forbidden, refusal.detail)
        case .unavailable?, nil: .unavailable
        }
    }

    /// Addresses that the environment fixes stand in for those that sidecars announced: behind a
    /// Service or a port mapping only those can be reached.
    private static func projection(
        _ projection: Projection, at services: [String: String]
    ) -> Projection {
        var projection = projection
        for index in projection.endpoints.indices {
            if let address = services[projection.endpoints[index].agent] {
                projection.endpoints[index].address = address
            }
        }
        return projection
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

    func finish() { server?.stop() }

    func describe(_ state: inout AdminPages.State) { member.describe(&state) }
}
