import WeirCore
import WeirLedger
import WeirMeshProtocol

/// Attempts of an agent in the process's ledger: paid by the delegation that came along, or, where a
/// sidecar stands alone, by its own allowance.
package final class JournalAttemptLedger: AttemptLedger, @unchecked Sendable {
    // SAFETY: the ledger has its own lock; the payer never changes.
    private let ledger: SidecarLedger
    private let payer: Payer?

    /// Without a payer every attempt needs a delegation.
    package init(_ ledger: SidecarLedger, payer: Payer? = nil) {
        self.ledger = ledger
        self.payer = payer
        super.init()
    }

    override package func accept(_ delegation: Delegation) -> Opening {
        switch ledger.accept(
            delegation.key, issuer: delegation.issuer, amount: delegation.amount)
        {
        case .accepted(let number):
            .opened(
                Attempt(number: number, paidBy: delegation.key, reserved: delegation.amount))
        case .repeated: .repeated
        case .journalFull: .journalFull
        }
    }

    override package func open(worstCase: NanoUSD) -> Opening {
        guard let payer else { return .contended(retryAfterNanoseconds: 1_000_000_000) }
        switch ledger.reserve(payer, worstCase: worstCase, least: worstCase) {
        case .reserved(let reservation):
            guard let paidBy = ledger.open(reservation) else {
                ledger.cancel(reservation)
                return .journalFull
            }
            return .opened(
                Attempt(number: reservation.number, paidBy: paidBy, reserved: worstCase))
        case .exhausted(let account, let resetsAt):
            return .exhausted(account, resetsAt: resetsAt)
        case .contended(_, let retryAfter):
            return .contended(retryAfterNanoseconds: retryAfter)
        // The allowance is one lease that is there from the start: there is no other to wait for.
        case .needsLease:
            return payer.accounts.first.map { .exhausted($0.key, resetsAt: nil) } ?? .journalFull
        case .journalFull: return .journalFull
        }
    }

    override package func settle(_ attempt: Attempt, _ record: AttemptRecord, _ names: Names) {
        let names = RecordNames(
            subject: names.subject, tier: names.tier, tenant: names.tenant, agent: names.agent,
            model: names.model, requestType: names.requestType)
        if payer != nil {
            ledger.settle(Reservation(number: attempt.number), record: record, names: names)
        } else {
            _ = ledger.settle(delegation: attempt.number, record: record, names: names)
        }
    }
}
