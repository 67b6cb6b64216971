import SidecarCore
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// The ledger of this process, as far as the uplink carries its messages. All of them may be called
/// from any thread and never block for long.
package protocol LedgerLink: Sendable {
    /// What to ask the control plane for now; at most a message.
    func takeDemands() -> LedgerDemand
    /// What to ask for together with who the caller is, to whom these accounts may belong.
    func takeOpening(_ accounts: [AccountTerms]) -> LedgerDemand
    /// Somebody else needs the money of these leases; the next report says what came free.
    func recall(_ leases: [LeaseID])
    /// `nil` while the log cannot be written: then nothing may be said.
    func makeReport(health: SidecarHealth) -> LedgerReporting?
    /// The oldest records of one life that nobody has stored for good, at most a message.
    func recordsToShip() -> [RecordBlock]
    func recordsStored(of incarnation: Incarnation, through sequence: UInt64)
}

/// Leases to ask for and to give back.
package struct LedgerDemand: Sendable {
    package var request: LeasesRequest
    /// Called once if the request holds anything: with the answer, or with `nil` when none came.
    /// Asking again with the same numbers is safe.
    package var answered: @Sendable (LeasesResponse?) -> Void
    /// Ask again after this long even if nobody says that there is a demand.
    package var againNanoseconds: UInt64?

    package init(
        request: LeasesRequest, againNanoseconds: UInt64?,
        answered: @escaping @Sendable (LeasesResponse?) -> Void
    ) {
        self.request = request
        self.againNanoseconds = againNanoseconds
        self.answered = answered
    }

    var isEmpty: Bool { request.acquire.isEmpty && request.release.isEmpty }
}

package struct LedgerReporting: Sendable {
    package var report: Report
    package var answered: @Sendable (ReportResponse) -> Void

    package init(report: Report, answered: @escaping @Sendable (ReportResponse) -> Void) {
        self.report = report
        self.answered = answered
    }
}

/// Where the uplink meets the rest of the process.
package struct UplinkHooks: Sendable {
    /// The validator that both planes run.
    package var readPolicy: @Sendable ([JSONValue]) throws(Problems) -> Policy
    /// A new snapshot is in force: hand it to every worker.
    package var policyApplied: @Sendable (AppliedPolicy) -> Void
    /// Whose journal this process continues, with the proof of it.
    package var predecessor: @Sendable () -> JoinRequest.Predecessor?
    /// The control plane gave this process a life: the journal begins or goes on under its number.
    /// With `isResumed` it is the life of the last good snapshot.
    package var joined: @Sendable (JoinResponse, _ isResumed: Bool) throws -> any LedgerLink
    package var health: @Sendable () -> SidecarHealth
    /// Of a gateway: what the mesh looks like, about once a second.
    package var stateReceived: @Sendable (MeshState) -> Void
    package var metrics: UplinkMetrics
    package var log: Log

    package init(
        readPolicy: @escaping @Sendable ([JSONValue]) throws(Problems) -> Policy,
        policyApplied: @escaping @Sendable (AppliedPolicy) -> Void,
        predecessor: @escaping @Sendable () -> JoinRequest.Predecessor?,
        joined: @escaping @Sendable (JoinResponse, Bool) throws -> any LedgerLink,
        health: @escaping @Sendable () -> SidecarHealth,
        stateReceived: @escaping @Sendable (MeshState) -> Void,
        metrics: UplinkMetrics, log: Log
    ) {
        self.readPolicy = readPolicy
        self.policyApplied = policyApplied
        self.predecessor = predecessor
        self.joined = joined
        self.health = health
        self.stateReceived = stateReceived
        self.metrics = metrics
        self.log = log
    }
}

package struct UplinkConfiguration: Sendable {
    package var role: Role
    package var agent: String?
    package var agentVersion: String?
    /// Where gateways reach the inbound listener; `nil` for a gateway.
    package var endpoint: String?
    package var instance: String
    package var joinToken: String
    package var replicas: [Replica]
    package var dataFolder: String

    package init(
        role: Role, agent: String?, agentVersion: String? = nil, endpoint: String?,
        instance: String, joinToken: String, replicas: [Replica], dataFolder: String
    ) {
        self.agentVersion = agentVersion
        self.role = role
        self.agent = agent
        self.endpoint = endpoint
        self.instance = instance
        self.joinToken = joinToken
        self.replicas = replicas
        self.dataFolder = dataFolder
    }
}

/// What others may know of the link, from any thread.
package struct UplinkStatus: Hashable, Sendable {
    package var isConnected = false
    package var incarnation: Incarnation?
    package var policyVersion: PolicyVersion?
    package var projectionHash: String?
    /// On the monotonic clock: when the control plane was last heard of, and when the policy in
    /// force was applied. 0 for never.
    package var heardNanoseconds: UInt64 = 0
    package var appliedNanoseconds: UInt64 = 0
    /// The same: when a report or a request for leases was answered last.
    package var accountedNanoseconds: UInt64 = 0
    /// Of the last projection that was refused; empty after the next one that is applied.
    package var policyProblems: [Problem] = []
    package var lastError: String?

    package init() {}

    /// LEDGER rule 11: not a word about money for longer than a change of the replica takes. A
    /// control plane that answers and has lost its store is lost, too.
    package func isLost(nowNanoseconds now: UInt64) -> Bool {
        now >= accountedNanoseconds &+ UplinkLimits.lostNanoseconds
    }
}
