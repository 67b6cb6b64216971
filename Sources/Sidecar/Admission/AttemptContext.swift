import WeirCore
import WeirCrypto
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
    var requestHash = BodyHash()
    var responseHash = BodyHash()
    var isStream = false
    /// Of the upstream's answer: 0 for none.
    var status = 0
    var retryAfterNanoseconds: UInt64?
    var startedAt = UnixTime(milliseconds: 0)
    /// Of the agent's own calls.
    var outboundRun: UInt64?
    var outboundCost = NanoUSD.zero

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
        requestHash.reset()
        responseHash.reset()
        isStream = false
        status = 0
        retryAfterNanoseconds = nil
        outboundRun = nil
        outboundCost = .zero
    }

    /// Hashes bytes of a body on their way, where the agent's policy wants it.
    func requestPassed(_ bytes: UnsafeRawBufferPointer) {
        if snapshot.agent.bodyDigests { requestHash.update(bytes) }
    }

    func responsePassed(_ bytes: UnsafeRawBufferPointer) {
        meter.feed(bytes)
        if snapshot.agent.bodyDigests { responseHash.update(bytes) }
    }

    /// What passed, as far as it did.
    func finishDigests() -> AttemptRecord.Digests? {
        guard snapshot.agent.bodyDigests else { return nil }
        return AttemptRecord.Digests(
            input: requestHash.finish(), output: responseHash.finish())
    }

    var tier: AdmissionSnapshot.Tier { snapshot.tier(delegation?.tier ?? "") }
    /// What would have refused the request, here or at its gateway, where the policy only observes.
    var observed: Reason? {
        permit?.observed ?? delegation.flatMap { $0.observed == .admitted ? nil : $0.observed }
    }
    var model: String { bound?.model ?? snapshot.agent.defaultModel }
}
