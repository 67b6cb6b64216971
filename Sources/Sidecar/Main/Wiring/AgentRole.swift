import SidecarCore
import SidecarUplink
import WeirCore
import WeirMeshProtocol
import WeirPolicy

/// The sidecar of one agent in a mesh: every request brings a delegation of a gateway. Serves as
/// soon as it knows who it is and what the policy says.
final class AgentRole: Role {
    private let mode: SidecarOptions.Agent
    private let context: RoleContext
    private let member: MeshMember
    private let plane: AgentPlane

    init(_ mode: SidecarOptions.Agent, _ context: RoleContext) throws {
        self.mode = mode
        self.context = context
        member = try MeshMember(
            role: .agent, agent: mode.agent, agentVersion: mode.version,
            endpoint: mode.advertise, mesh: mode.mesh, context)
        let ledger = AttemptLedger(member.ledger) { [member] in member.uplink?.reportSoon() }
        plane = AgentPlane(
            mode.agent, upstreams: mode.upstreams, outbound: mode.outbound, ledger: ledger,
            context)
        plane.healthChanged = { [member] in member.uplink?.reportSoon() }
    }

    func start() throws {
        let bound = LoopBound(self, loop: context.control)
        let sight = AgentSight(context.metrics, endpoints: plane.endpointsSeen)
        context.everySecond {
            sight.look(nowNanoseconds: MonotonicClock.nowNanoseconds, at: WallClock.now)
        }
        let hooks = MeshMember.Hooks(
            requestsInFlight: plane.requestsInFlight, agentProblem: plane.healthProblem,
            addVitals: { $0.agent = sight.vitals })
        member.start(hooks) { bound.value.changed($0) }
    }

    private func changed(_ view: MeshMember.View) {
        let policy = view.policy.policy
        let keys = view.join.hopKey.map { [$0] } ?? []
        guard
            let snapshot = plane.snapshot(
                policy, version: view.policy.version,
                funding: .delegations(keys: keys, incarnation: view.join.incarnation))
        else {
            return context.log.error("the policy has no such agent", ("agent", mode.agent))
        }
        do {
            try plane.apply(snapshot, version: view.policy.version)
        } catch {
            context.fail(StartError(code: .system, description: "\(error)"))
        }
    }

    func drain(completed: @escaping () -> Void) {
        member.drainBegan()
        plane.drain { [member] in member.drainEnded(completed: completed) }
    }

    func finish() { plane.stop() }

    func describe(_ state: inout AdminPages.State) {
        member.describe(&state)
        if !plane.isServing { state.notReady.append("not serving yet") }
    }
}
