import SidecarCore
import SidecarGateway
import SidecarUplink
import Synchronization
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// What an agent's sidecar and a gateway have in common: a ledger with its journal, and an uplink.
final class MeshMember: Sendable {
    /// Who this process is and what it runs; both are there before anything is served.
    struct View: Sendable {
        var join: JoinResponse
        var policy: AppliedPolicy
    }

    /// What the role adds to what a member of the mesh says and hears.
    struct Hooks: Sendable {
        var requestsInFlight: @Sendable () -> Int = { 0 }
        var agentProblem: @Sendable () -> String? = { nil }
        /// What it has seen lately, for its reports.
        var addVitals: @Sendable (inout SidecarHealth) -> Void = { _ in }
        var stateReceived: @Sendable (MeshState) -> Void = { _ in }
    }

    private struct State {
        var join: JoinResponse?
        var policy: AppliedPolicy?
        var changed: (@Sendable (View) -> Void)?
        var hooks = Hooks()
        var isDraining = false
        /// What was said of the own state last, and since when it has been so.
        var said: (state: SidecarHealth.State, since: UnixTime)?
    }

    let ledger: SidecarLedger
    private let link: SidecarLedgerLink
    private let configuration: UplinkConfiguration
    private let context: RoleContext
    private let uplinkMetrics: UplinkMetrics
    private let state = Mutex(State())
    private let started = Mutex<Uplink?>(nil)

    init(
        role: WeirMeshProtocol.Role, agent: String?, agentVersion: String? = nil,
        endpoint: String?, mesh: SidecarOptions.Mesh, _ context: RoleContext
    ) throws(StartError) {
        let folder = try makeFolder(mesh.dataFolder)
        ledger = try openLedger(SidecarLedger.Configuration(directory: folder + "/journal"))
        link = SidecarLedgerLink(ledger)
        configuration = UplinkConfiguration(
            role: role, agent: agent, agentVersion: agentVersion, endpoint: endpoint,
            instance: context.options.instance, joinToken: mesh.joinToken,
            replicas: mesh.controlPlane.map {
                Replica(authority: $0.authority, address: $0.address)
            }, dataFolder: folder)
        self.context = context
        uplinkMetrics = UplinkMetrics(context.metrics.registry)
        if mesh.isExposed { context.log.warning(MeshPlaintext.warning) }
        context.metrics.show(ledger)
        context.metrics.showPolicy { [weak self] in self?.policyVersion }
        context.metrics.showMesh { [weak self] in
            let status = self?.status ?? UplinkStatus()
            return MeshView(
                isConnected: status.isConnected, isPolicyRefused: !status.policyProblems.isEmpty)
        }
    }

    private var policyVersion: PolicyVersion? { state.withLock { $0.policy?.version } }

    var uplink: Uplink? { started.withLock { $0 } }
    var status: UplinkStatus { uplink?.status ?? UplinkStatus() }

    /// `changed` is called on the control loop, with the first view and each later one.
    func start(_ hooks: Hooks, changed: @escaping @Sendable (View) -> Void) {
        state.withLock {
            $0.hooks = hooks
            $0.changed = changed
        }
        let uplink = Uplink(
            loop: context.control, configuration: configuration, hooks: uplinkHooks(hooks))
        started.withLock { $0 = uplink }
        ledger.onDemand { uplink.demandsArrived() }
        let found = ledger.found
        if let flaw = found.flaw {
            context.log.warning(
                "the log of before is not whole: what its leases held stays set aside",
                ("incarnation", found.predecessor?.description ?? ""), ("flaw", flaw))
        }
        context.control.spawn {
            await uplink.start { join in
                found.isWhole && found.predecessor == join.incarnation
            }
        }
    }

    private func uplinkHooks(_ hooks: Hooks) -> UplinkHooks {
        UplinkHooks(
            readPolicy: { [agent = configuration.agent] (documents) throws(Problems) in
                try Self.readPolicy(documents, servedBy: agent)
            },
            policyApplied: { policy in
                self.state.withLock { $0.policy = policy }
                self.say()
            },
            predecessor: { self.predecessor() },
            joined: { join, isResumed in try self.joined(join, isResumed) },
            health: { self.health() }, stateReceived: hooks.stateReceived,
            metrics: uplinkMetrics, log: context.log)
    }

    /// A policy that lost this sidecar's agent cannot be run here: refused in words, where taking
    /// it would leave the old one in force behind an ACK.
    private static func readPolicy(
        _ documents: [JSONValue], servedBy agent: String?
    ) throws(Problems) -> Policy {
        let policy = try PolicyReader.read(documents)
        if let agent, policy.agents[agent] == nil {
            throw Problems([
                Problem(path: "/documents", message: "has no agent \(agent), which runs here")
            ])
        }
        return policy
    }

    private func say() {
        let (view, changed) = state.withLock { state -> (View?, (@Sendable (View) -> Void)?) in
            guard let join = state.join, let policy = state.policy else { return (nil, nil) }
            return (View(join: join, policy: policy), state.changed)
        }
        if let view { changed?(view) }
    }

    // MARK: Lives

    /// LEDGER rule 8: an HMAC under the secret of that life's join proves that this is its journal.
    private func predecessor() -> JoinRequest.Predecessor? {
        let own = state.withLock { $0.join }.flatMap { join in
            Base64URL.decode(join.journalSecret).map { (join.incarnation, $0) }
        }
        let earlier = ledger.found.predecessor.map { ($0, ledger.found.secret) }
        guard let (incarnation, secret) = own ?? earlier, !secret.isEmpty else { return nil }
        let proof = Crypto.hmacSHA256(key: secret, Array("predecessor \(incarnation)".utf8))
        return JoinRequest.Predecessor(
            incarnation: incarnation, proof: Base64URL.encode(proof))
    }

    private func joined(_ join: JoinResponse, _ isResumed: Bool) throws -> any LedgerLink {
        if isResumed {
            guard ledger.resume() else {
                throw Problem(path: "", message: "the journal is not whole")
            }
        } else {
            guard let secret = Base64URL.decode(join.journalSecret) else {
                throw Problem(path: "/journalSecret", message: "is not base64url")
            }
            let claimed = predecessor()?.incarnation
            try ledger.begin(
                join.incarnation, secret: secret,
                isAdopted: join.adopted != nil && join.adopted == claimed)
        }
        state.withLock { $0.join = join }
        say()
        return link
    }

    // MARK: What it says of itself

    private func health() -> SidecarHealth {
        let gauges = ledger.gauges()
        let (isDraining, hooks) = state.withLock { ($0.isDraining, $0.hooks) }
        let reasons = [
            gauges.journalFailure.map { "journal: \($0)" },
            gauges.acceptsDelegations ? nil : Self.shut(gauges),
            hooks.agentProblem().map { "agent: \($0)" },
        ].compactMap { $0 }
        var health = SidecarHealth(
            state: isDraining ? .draining : reasons.isEmpty ? .serving : .degraded,
            reasons: reasons, requestsInFlight: hooks.requestsInFlight(),
            journalBytes: gauges.journalBytes)
        health.since = state.withLock { state in
            if let said = state.said, said.state == health.state { return said.since }
            let now = WallClock.now
            state.said = (health.state, now)
            return now
        }
        hooks.addVitals(&health)
        return health
    }

    /// For a gateway's `/health`.
    var processView: ProcessView {
        let status = self.status
        var view = ProcessView()
        view.isDraining = state.withLock { $0.isDraining }
        view.journalHasFailed = ledger.gauges().journalFailure != nil
        view.policyProblems = status.policyProblems.count
        if status.policyVersion != nil {
            let now = MonotonicClock.nowNanoseconds
            let age = now - min(now, status.appliedNanoseconds)
            view.policyAgeMilliseconds = Int64(clamping: age / 1_000_000)
        }
        return view
    }

    private static func shut(_ gauges: SidecarLedger.Gauges) -> String {
        "ledger: \(gauges.unreportedFinals) settlements wait for the control plane"
    }

    func describe(_ state: inout AdminPages.State) {
        let status = self.status
        let policy = self.state.withLock { $0.policy }
        state.policyVersion = policy?.version
        state.documents = policy?.projection.documents ?? []
        if status.incarnation == nil { state.notReady.append("not joined") }
        if policy == nil { state.notReady.append("no policy") }
        if !status.isConnected { state.degraded.append("control plane is away") }
        if !status.policyProblems.isEmpty {
            state.degraded.append("the latest policy was refused: the last good one is in force")
        }
        let gauges = ledger.gauges()
        if let failure = gauges.journalFailure { state.degraded.append("journal: \(failure)") }
        if !gauges.acceptsDelegations { state.notReady.append(Self.shut(gauges)) }
    }

    // MARK: The end

    func drainBegan() {
        state.withLock { $0.isDraining = true }
        uplink?.reportSoon()
    }

    /// The last report and the last records, bounded; then `completed`, on the control loop.
    func drainEnded(completed: @escaping () -> Void) {
        let bound = LoopBound(completed, loop: context.control)
        guard let uplink else { return completed() }
        context.control.spawn {
            await uplink.drain(atMostNanoseconds: UplinkLimits.drainNanoseconds)
            bound.value()
        }
    }
}
