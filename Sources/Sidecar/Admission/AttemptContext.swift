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
    var isQueued = false
    var attempt: AttemptLedger.Attempt?
    var bound: AttemptBound?
    var meter = UsageMeter()
    var isStream = false
    /// Of the upstream's answer: 0 for none.
    var status = 0
    var retryAfterNanoseconds: UInt64?
    var startedAt = UnixTime(milliseconds: 0)
    /// Of the agent's own calls.
    var outboundRun: UInt64?

    func begin(_ snapshot: AdmissionSnapshot, at time: UnixTime) {
        self.snapshot = snapshot
        startedAt = time
        delegation = nil
        caller = AgentAdmission.Caller(ticket: 0)
        permit = nil
        isQueued = false
        attempt = nil
        bound = nil
        meter = UsageMeter()
        isStream = false
        status = 0
        retryAfterNanoseconds = nil
        outboundRun = nil
    }

    var tier: AdmissionSnapshot.Tier { snapshot.tier(delegation?.tier ?? "") }
    /// What would have refused the request, here or at its gateway, where the policy only observes.
    var observed: Reason? {
        permit?.observed ?? delegation.flatMap { $0.observed == .admitted ? nil : $0.observed }
    }
    var model: String { bound?.model ?? snapshot.agent.defaultModel }
}
