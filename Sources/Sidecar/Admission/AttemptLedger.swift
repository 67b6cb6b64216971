import WeirCore
import WeirLedger
import WeirMeshProtocol

/// The process's ledger as admission uses it: an attempt is opened before its first byte goes
/// upstream and ends exactly once, with its record. A delegation pays, or standalone the process's
/// own allowance.
package final class AttemptLedger: Sendable {
    /// An open attempt.
    struct Attempt {
        enum Kind {
            case delegation(Int64)
            case own(Reservation)
        }
        let kind: Kind
        let paidBy: ChildKey
        let reserved: NanoUSD
    }

    enum Opening {
        case opened(Attempt)
        /// The delegation was accepted before, or is too old to tell.
        case repeated
        case exhausted(AccountKey, resetsAt: UnixTime?)
        /// Set aside by requests in flight; later there may be some.
        case contended(retryAfterNanoseconds: UInt64)
        /// The log takes nothing more.
        case journalFull
    }

    private let ledger: SidecarLedger
    private let payer: Payer?
    private let finalIsUnsaid: @Sendable () -> Void

    /// `allowance`: what stands in for budgets where there are no delegations. The ledger has been
    /// granted it (`SidecarLedger.grantLocally`). `finalIsUnsaid` is called from any thread when
    /// there is a final that no response carries: the parent waits for a report.
    package init(
        _ ledger: SidecarLedger, allowance: AccountTerms? = nil,
        finalIsUnsaid: @escaping @Sendable () -> Void = {}
    ) {
        self.ledger = ledger
        self.finalIsUnsaid = finalIsUnsaid
        payer = allowance.flatMap { ledger.payer(for: [$0]) }
    }

    /// Once for each delegation; journaled when it returns.
    func accept(_ delegation: Delegation) -> Opening {
        let outcome = ledger.accept(
            delegation.key, issuer: delegation.issuer, amount: delegation.amount,
            names: RecordNames(
                subject: delegation.subject, tier: delegation.tier, tenant: delegation.tenant,
                agent: delegation.agent, requestType: delegation.requestType,
                tags: delegation.tags.text))
        switch outcome {
        case .accepted(let number):
            return .opened(
                Attempt(
                    kind: .delegation(number), paidBy: delegation.key,
                    reserved: delegation.amount))
        case .repeated: return .repeated
        case .journalFull: return .journalFull
        }
    }

    /// From the own allowance; journaled when it returns.
    func open(worstCase: NanoUSD, least: NanoUSD) -> Opening {
        guard let payer else { return .journalFull }
        let (outcome, paidBy) = ledger.openAttempt(payer, worstCase: worstCase, least: least)
        switch outcome {
        case .reserved(let reservation):
            guard let paidBy else { return .journalFull }
            return .opened(
                Attempt(kind: .own(reservation), paidBy: paidBy, reserved: worstCase))
        case .exhausted(let account, let resetsAt):
            return .exhausted(account, resetsAt: resetsAt)
        case .contended(_, let wait): return .contended(retryAfterNanoseconds: wait)
        // Nobody grants a standalone process more than it has: what is missing is in flight.
        case .needsLease, .periodOver: return .contended(retryAfterNanoseconds: 1_000_000_000)
        case .journalFull: return .journalFull
        }
    }

    /// The end, with the cost in `record`. True when it is in the log: until then a crash would
    /// settle at the worst case, so it is not final yet. `isCarried`: a response takes the
    /// settlement to the parent.
    func settle(
        _ attempt: Attempt, _ record: AttemptRecord, _ names: RecordNames, isCarried: Bool
    ) -> Bool {
        switch attempt.kind {
        case .delegation(let number):
            let isFinal =
                ledger.settle(delegation: number, record: record, names: names).isFinal
            if isFinal, !isCarried { finalIsUnsaid() }
            return isFinal
        case .own(let reservation):
            ledger.settle(reservation, record: record, names: names)
            return true
        }
    }
}
