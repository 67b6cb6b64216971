import WeirCore
import WeirMeshProtocol
import WeirPolicy

/// What admission keeps for one exchange; used again, so that a request costs no allocation here.
final class AttemptContext: InterceptorContext {
    /// The request's own from `begin` to the end of the exchange.
    private(set) var snapshot = AdmissionSnapshot.none
    var delegation: Delegation?
    var caller = AgentAdmission.Caller(ticket: 0)
    var permit: AgentAdmission.Permit?
    /// Endpoints that could not be connected to.
    var tried: [SocketAddress] = []
    /// The caller's deadline is shorter than the agent's.
    var hasCallersDeadline = false
    var isQueued = false
    var attempt: AttemptLedger.Attempt?
    var bound: AttemptBound?
    var meter = UsageMeter()
    var isStream = false
    /// Of the upstream's answer: 0 for none.
    var status = 0
    var retryAfterNanoseconds: UInt64?
    var startedAt = UnixTime(milliseconds: 0)

    func begin(_ snapshot: AdmissionSnapshot, at time: UnixTime) {
        self.snapshot = snapshot
        startedAt = time
        delegation = nil
        caller = AgentAdmission.Caller(ticket: 0)
        permit = nil
        tried = []
        hasCallersDeadline = false
        isQueued = false
        attempt = nil
        bound = nil
        meter = UsageMeter()
        isStream = false
        status = 0
        retryAfterNanoseconds = nil
    }

    var tier: AdmissionSnapshot.Tier { snapshot.tier(delegation?.tier ?? "") }
    var model: String { bound?.model ?? snapshot.agent.defaultModel }
}
