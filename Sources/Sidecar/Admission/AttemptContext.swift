import WeirCore
import WeirCrypto
import WeirMeshProtocol
import WeirPolicy

/// What admission keeps for one exchange; used again, so that a request costs no allocation here.
final class AttemptContext: InterceptorContext {
    /// The request's own from `begin` to the end of the exchange.
    private(set) var snapshot = AdmissionSnapshot.none
    private(set) var tier: AdmissionSnapshot.Tier
    /// Looked at only where there is one: asking it for that costs more than a flag does.
    private(set) var isDelegated = false
    var delegation: Delegation? {
        didSet { isDelegated = delegation != nil }
    }
    var caller = AgentAdmission.Caller(ticket: 0)
    var permit: AgentAdmission.Permit?
    /// Endpoints that could not be connected to.
    var tried: [SocketAddress] = []
    /// The caller's deadline is shorter than the agent's.
    var hasCallersDeadline = false
    var isQueued = false
    var attempt: AttemptLedger.Attempt?
    var terms: AttemptTerms?
    var meter = UsageMeter()
    var filter = UsageEventFilter()
    /// So many events of a stream cost more than what is set aside.
    var eventsMax = UInt32.max
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

    /// Whose record names nobody: the caller of a sidecar without gateways.
    static let localSubject = "local"

    override init() {
        tier = snapshot.tier("")
        super.init()
    }

    func begin(_ snapshot: AdmissionSnapshot, at time: UnixTime) {
        self.snapshot = snapshot
        startedAt = time
    }

    /// The caller is known.
    func begin(_ tier: AdmissionSnapshot.Tier) {
        self.tier = tier
        caller.subject = isDelegated ? delegation?.subject ?? "" : Self.localSubject
        caller.priority = tier.priority
        caller.subjectMax = tier.subjectMax
        caller.subjectRate = tier.rate
        caller.isObserved = tier.isObserved
    }

    /// As it was made: ready for the next exchange. What most exchanges leave alone is not written.
    func clear() {
        if isDelegated { delegation = nil }
        permit = nil
        if !tried.isEmpty { tried = [] }
        hasCallersDeadline = false
        isQueued = false
        attempt = nil
        terms = nil
        meter.reset()
        requestHash.reset()
        responseHash.reset()
        isStream = false
        eventsMax = .max
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

    /// What would have refused the request, here or at its gateway, where the policy only observes.
    var observed: Reason? {
        if let here = permit?.observed { return here }
        guard isDelegated, let there = delegation?.observed, there != .admitted else {
            return nil
        }
        return there
    }
    var model: String { terms?.bound.model ?? snapshot.agent.defaultModel }
    var tierName: String { isDelegated ? delegation?.tier ?? "" : "" }
}
