import WeirCore
import WeirLedger
import WeirMeshProtocol

/// What admission needs of the ledger: an attempt is opened before its first byte goes upstream and
/// ends exactly once, with its record. The process's one ledger stands behind it (LEDGER rule 15).
package class AttemptLedger: @unchecked Sendable {
    // SAFETY: subclasses are called from every loop and keep what they change behind a lock.

    /// An open attempt.
    package struct Attempt: Hashable, Sendable {
        package let number: Int64
        /// Who pays: the delegation, or the own lease.
        package let paidBy: ChildKey
        package let reserved: NanoUSD
        package init(number: Int64, paidBy: ChildKey, reserved: NanoUSD) {
            self.number = number
            self.paidBy = paidBy
            self.reserved = reserved
        }
    }

    package enum Opening: Hashable, Sendable {
        case opened(Attempt)
        /// The delegation was accepted before, or is too old to tell.
        case repeated
        case exhausted(AccountKey, resetsAt: UnixTime?)
        /// Set aside by requests in flight; later there may be some.
        case contended(retryAfterNanoseconds: UInt64)
        /// The log takes nothing more.
        case journalFull
    }

    /// What a record says by name.
    package struct Names: Hashable, Sendable {
        package var subject = ""
        package var tier = ""
        package var tenant = ""
        package var agent = ""
        package var model = ""
        package var requestType = ""
        package init() {}
    }

    package init() {}

    /// Once for each delegation; journaled when it returns.
    package func accept(_ delegation: Delegation) -> Opening {
        preconditionFailure("a subclass accepts")
    }

    /// From the process's own allowance, where no delegation comes along; journaled when it returns.
    package func open(worstCase: NanoUSD) -> Opening { preconditionFailure("a subclass opens") }

    /// The end, with the cost in `record`. Sequence and incarnation are the ledger's to fill in.
    package func settle(_ attempt: Attempt, _ record: AttemptRecord, _ names: Names) {
        preconditionFailure("a subclass settles")
    }
}
