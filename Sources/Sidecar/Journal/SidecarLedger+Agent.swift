import Synchronization
import WeirCore
import WeirLedger
import WeirMeshProtocol

// The agent's side: delegations that come with requests.

extension SidecarLedger {
    package enum AcceptOutcome: Hashable, Sendable {
        /// Journaled: the first byte may go upstream. The number names it until it is settled.
        case accepted(Int64)
        /// Accepted before, or too old to tell: 403 `forbidden`.
        case repeated
        case journalFull
    }

    /// Accepts (issuer, lease, child) once. That its MAC is good is checked before. The names are
    /// what the record of an attempt says that a crash cut off.
    package func accept(
        _ key: ChildKey, issuer: Incarnation, amount: NanoUSD, names: RecordNames = RecordNames()
    ) -> AcceptOutcome {
        state.withLock { state in
            guard state.mayOpen(entryBytes: names.acceptedEntryBytes) else {
                return .journalFull
            }
            switch state.delegations.accept(key, issuer: issuer, amount: amount, names: names) {
            case .repeated: return .repeated
            case .full: return .journalFull
            case .accepted(let accepted):
                state.journal.append(.accepted(accepted))
                return .accepted(accepted.number)
            }
        }
    }

    package struct Settled: Hashable, Sendable {
        package let consumed: NanoUSD
        /// Whether it is in the log. If not, the disk is full, and after a crash the attempt would
        /// settle at its worst case: so it is not final yet, and a report says it later.
        package let isFinal: Bool
    }

    /// Ends an accepted delegation with its record, from then on its final is reported. Sequence,
    /// incarnation and names are filled in here. A request that was refused after it was accepted
    /// is settled too: at cost zero.
    package func settle(
        delegation number: Int64, record: AttemptRecord, names: RecordNames
    ) -> Settled {
        state.withLock { state in
            let isFinal = state.end(.delegation(number, record, names))
            return Settled(consumed: record.cost, isFinal: isFinal)
        }
    }
}
