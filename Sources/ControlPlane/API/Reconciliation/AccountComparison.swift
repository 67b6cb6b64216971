import ControlPlaneStore
import WeirCore
import WeirLedger

/// One account beside the records that it paid for. Pure.
///
/// Everything is told by two messages, the settlement to the account and the record to the archive,
/// so while money is spent one may be ahead of the other. They agree when both are equal; where an
/// operator wrote off what a lost holder held, the account has up to that much more, because nobody
/// knows how much of it was spent.
struct AccountComparison: Hashable, Sendable {
    enum State: String, Sendable {
        case agrees, differs
        /// The records do not say which of them this account paid for.
        case notCompared = "not_compared"
    }

    /// A part of a difference, and how it comes about.
    struct Cause: Hashable, Sendable {
        enum Kind: String, Sendable {
            /// Recorded, and the holder of the lease has not settled it: its child is still open.
            case openChildren = "open_children"
            /// Settled, and the record is in a sidecar's log or lost.
            case notRecorded = "not_recorded"
            case writtenOff = "written_off"
            case restored
            /// The account's two counts of the same money are not the same.
            case contradiction
            case unexplained
        }

        var kind: Kind
        var amount: NanoUSD
        var children: [PayerSum] = []
    }

    var books: AccountBooks
    var recorded: NanoUSD
    var records: Int64
    /// Why it cannot be compared.
    var obstacle: String?
    var causes: [Cause] = []

    var difference: NanoUSD { books.consumed - recorded }

    var state: State {
        if (.zero...max(.zero, books.writtenOff)).contains(difference) { return .agrees }
        return obstacle == nil ? .differs : .notCompared
    }

    /// A lease that the account remembers, beside the records that it paid for.
    struct Lease: Hashable, Sendable {
        var consumed: NanoUSD
        var children: [PayerSum]

        /// What was recorded and not settled; negative for what was settled and not recorded.
        var ahead: NanoUSD { children.reduce(.zero) { $0 + $1.cost } - consumed }
    }

    /// Takes a difference apart. What no lease in sight explains, and was not written off, has
    /// happened to leases that the account has forgotten, which were settled whole: then records
    /// are missing or were changed, or the account was.
    mutating func explain(leases: [Lease], consumedByHolders: NanoUSD) {
        guard state == .differs else { return }
        var rest = difference
        let open = leases.filter { $0.ahead > .zero }
        let openAmount = open.reduce(NanoUSD.zero) { $0 + $1.ahead }
        if openAmount > .zero {
            causes.append(
                Cause(
                    kind: .openChildren, amount: openAmount,
                    children: Array(
                        open.flatMap(\.children).prefix(StoreLimits.reconcileChildrenMax))))
            rest += openAmount
        }
        // A lease that was written off has consumed what nobody recorded.
        let lacking = leases.reduce(NanoUSD.zero) { $0 + max(.zero, .zero - $1.ahead) }
        let writtenOff = min(max(.zero, books.writtenOff), max(.zero, rest))
        if writtenOff > .zero {
            causes.append(Cause(kind: .writtenOff, amount: writtenOff))
            rest -= writtenOff
        }
        let notRecorded = min(max(.zero, lacking - writtenOff), max(.zero, rest))
        if notRecorded > .zero {
            causes.append(Cause(kind: .notRecorded, amount: notRecorded))
            rest -= notRecorded
        }
        let contradiction = books.consumed - books.restored - consumedByHolders
        if contradiction != .zero {
            causes.append(Cause(kind: .contradiction, amount: contradiction))
            rest -= contradiction
        }
        if books.restored > .zero {
            causes.append(Cause(kind: .restored, amount: books.restored))
        }
        if rest != .zero { causes.append(Cause(kind: .unexplained, amount: rest)) }
    }
}

extension AccountComparison {
    var json: JSONValue {
        var object: JSONObject = [
            "account": .string(books.account.description), "state": .string(state.rawValue),
            "consumed_usd": .string(books.consumed.usd), "recorded_usd": .string(recorded.usd),
            "difference_usd": .string(difference.usd), "held_usd": .string(books.held.usd),
            "records": .number(JSONNumber(records)),
        ]
        for (name, amount) in [
            ("written_off_usd", books.writtenOff), ("restored_usd", books.restored),
        ] where amount > .zero {
            object[name] = .string(amount.usd)
        }
        if state == .notCompared { object["obstacle"] = obstacle.map { .string($0) } }
        if !causes.isEmpty { object["causes"] = .array(causes.map(\.json)) }
        return .object(object)
    }
}

extension AccountComparison.Cause {
    fileprivate var json: JSONValue {
        var object: JSONObject = [
            "cause": .string(kind.rawValue), "amount_usd": .string(amount.usd),
            "how": .string(how),
        ]
        if !children.isEmpty {
            object["children"] = .array(
                children.map {
                    [
                        "lease": .string($0.payer.lease.description),
                        "child": .number(JSONNumber($0.payer.child)),
                        "recorded_usd": .string($0.cost.usd),
                    ]
                })
        }
        return .object(object)
    }

    private var how: String {
        switch kind {
        case .openChildren:
            "Recorded by agents' sidecars; the gateway that holds the lease has not settled it."
        case .notRecorded:
            "Settled; the record is in the log of a sidecar that has not shipped it, or lost."
        case .writtenOff: "An operator counted what a lost holder held as spent."
        case .restored:
            "Redis had lost the account; it was raised to what the archive knew at that time."
        case .contradiction:
            "What the account has consumed is not what its holders have consumed together."
        case .unexplained:
            "No open lease explains it: records are missing or were changed, or the account was."
        }
    }
}
