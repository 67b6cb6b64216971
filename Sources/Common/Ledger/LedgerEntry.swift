import WeirCore

/// What a holder or an agent's sidecar writes down before it acts: the words of the write-ahead
/// log. The journal keeps them as bytes, a simulation as a list. Replaying the committed ones, in
/// order, gives the state again; a snapshot is a list of the same words.
///
/// Leases are named by the slot of the holder's table that they lie in, because four lease ids do
/// not fit into an entry of 64 bytes; `lease` says what lies in a slot from there on.
package enum LedgerEntry: Hashable, Sendable {
    /// A life began, or goes on. Leases of incarnations before `wholeSince` may only be consumed
    /// from here, never released: the log that told of them was not whole (rule 8).
    case life(Incarnation, wholeSince: Incarnation)
    /// Numbers of leases below this one may have been asked for.
    case leaseNumbers(below: Int64)
    /// Numbers of reservations and of accepted delegations below these are used up.
    case numbers(reservations: Int64, delegations: Int64)
    /// A lease was granted, or is known with these counters.
    case lease(LeaseImage)
    /// It is closed and the store knows: its slot is free.
    case leaseForgotten(slot: UInt32)
    /// The counter, not the difference.
    case released(slot: UInt32, total: Int64)
    /// What this incarnation consumed of an account, over leases that are forgotten too.
    case account(AccountKey, ownConsumed: Int64)
    /// An own attempt, a child or a use was opened; committed before the first byte goes upstream.
    case opened(OpenedReservation)
    /// A child is final.
    case childFinal(number: Int64, consumed: Int64)
    /// An own attempt ended; the record of it is this entry.
    case settled(number: Int64, cost: Int64)
    /// A use is over; there is no record of it.
    case useEnded(number: Int64, consumed: Int64)
    /// Consumed at once and without a record: counted requests.
    case spent(OpenedReservation)
    /// Somebody else's delegation was accepted.
    case accepted(AcceptedDelegation)
    /// Its attempt ended; the record of it is this entry.
    case delegationSettled(number: Int64, cost: Int64)
    /// Somebody else's delegation never came and never will be accepted: its final is zero.
    case refused(ChildKey)
    /// Which delegations of an issuer were accepted, or refused for good.
    case window(IssuerWindow)
    /// Windows of issuers up to this one may be forgotten: without a window they are refused.
    case forgottenIssuers(through: Incarnation)
    /// A final that no answered report carried yet.
    case final(ChildFinal)
}

package struct LeaseImage: Hashable, Sendable {
    package var slot: UInt32
    package var id: LeaseID
    package var account: AccountKey
    package var granted: Int64
    package var consumed: Int64
    package var released: Int64
    /// A local allowance that no store knows of.
    package var isLocal: Bool

    package init(
        slot: UInt32, id: LeaseID, account: AccountKey, granted: Int64, consumed: Int64,
        released: Int64, isLocal: Bool
    ) {
        self.slot = slot
        self.id = id
        self.account = account
        self.granted = granted
        self.consumed = consumed
        self.released = released
        self.isLocal = isLocal
    }
}

package struct OpenedReservation: Hashable, Sendable {
    package enum Kind: UInt8, Sendable {
        case attempt = 1
        case child = 2
        /// Something counted that is no money, for as long as a call takes: its tokens.
        case use = 3
    }

    package var number: Int64
    package var kind: Kind
    package var amount: Int64
    /// What it costs at least, now that bytes go upstream.
    package var least: Int64
    package var legCount: Int
    /// Slots of the leases that back it, one for each account.
    package var legs: SIMD8<UInt32>
    /// Of a child: the life that its delegation is addressed to. Otherwise 0.
    package var audience: Incarnation

    package init(
        number: Int64, kind: Kind, amount: Int64, least: Int64, legCount: Int, legs: SIMD8<UInt32>,
        audience: Incarnation = Incarnation(0)
    ) {
        self.number = number
        self.kind = kind
        self.amount = amount
        self.least = least
        self.legCount = legCount
        self.legs = legs
        self.audience = audience
    }
}

package struct AcceptedDelegation: Hashable, Sendable {
    package var number: Int64
    package var issuer: Incarnation
    package var key: ChildKey
    package var amount: Int64
    /// Whose money it is must be known even if a crash ends it; the model is not known yet.
    package var names: RecordNames

    package init(
        number: Int64, issuer: Incarnation, key: ChildKey, amount: Int64,
        names: RecordNames = RecordNames()
    ) {
        self.number = number
        self.issuer = issuer
        self.key = key
        self.amount = amount
        self.names = names
    }
}

/// Who and what an attempt was about. A record has numbers for them, which the log explains.
package struct RecordNames: Hashable, Sendable {
    package var subject: String
    package var tier: String
    package var tenant: String
    package var agent: String
    package var model: String
    package var requestType: String
    /// As `Tags.text`.
    package var tags: String

    package init(
        subject: String = "", tier: String = "", tenant: String = "", agent: String = "",
        model: String = "", requestType: String = "", tags: String = ""
    ) {
        self.subject = subject
        self.tier = tier
        self.tenant = tenant
        self.agent = agent
        self.model = model
        self.requestType = requestType
        self.tags = tags
    }
}
