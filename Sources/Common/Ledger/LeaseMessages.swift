import WeirCore

// What a holder and the store say to each other about leases: the bodies of `/mesh/v1/leases`, and
// the ledger's part of `/mesh/v1/report`. They stand here and not with the other messages, because
// the state machines of both sides take and give them.

package struct LeaseAcquire: Hashable, Sendable, Codable {
    package var lease: LeaseID
    package var account: AccountKey
    /// The least that is of use, and what is wished for.
    package var need: NanoUSD
    package var want: NanoUSD
    /// All leases of this incarnation on this account below this number are closed.
    package var closedBelow: Int64
    /// The policy version by which the limit is known.
    package var policyNumber: Int64
    /// For users whose tier only observes: the limit does not hold for this grant. Absent: it does.
    package var observes: Bool?

    package init(
        lease: LeaseID, account: AccountKey, need: NanoUSD, want: NanoUSD, closedBelow: Int64,
        policyNumber: Int64, observes: Bool = false
    ) {
        self.lease = lease
        self.account = account
        self.need = need
        self.want = want
        self.closedBelow = closedBelow
        self.policyNumber = policyNumber
        self.observes = observes ? true : nil
    }
}

/// The two counters of a lease, which only grow.
package struct LeaseCounters: Hashable, Sendable, Codable {
    package var lease: LeaseID
    package var account: AccountKey
    package var consumed: NanoUSD
    package var released: NanoUSD
    /// What the lease is of: a store that lost the grant in a failover puts it back. Absent: the
    /// store has to know it.
    package var granted: NanoUSD?

    package init(
        lease: LeaseID, account: AccountKey, consumed: NanoUSD, released: NanoUSD,
        granted: NanoUSD? = nil
    ) {
        self.lease = lease
        self.account = account
        self.consumed = consumed
        self.released = released
        self.granted = granted
    }
}

package struct LeasesRequest: Hashable, Sendable, Codable {
    package var acquire: [LeaseAcquire]
    package var release: [LeaseCounters]

    package init(acquire: [LeaseAcquire], release: [LeaseCounters]) {
        self.acquire = acquire
        self.release = release
    }
}

/// An account as the store sees it. `consumedByOthers` is what holders other than the asking one
/// have spent, so that the holder can tell what is left to the n$: limit − consumedByOthers −
/// own.
package struct AccountState: Hashable, Sendable, Codable {
    package var account: AccountKey
    package var limit: NanoUSD
    package var consumed: NanoUSD
    package var consumedByOthers: NanoUSD
    /// Σ (granted − consumed − released) of all holders: set aside and not spent.
    package var held: NanoUSD
    package var resetsAtMilliseconds: Int64?

    package init(
        account: AccountKey, limit: NanoUSD, consumed: NanoUSD, consumedByOthers: NanoUSD,
        held: NanoUSD, resetsAtMilliseconds: Int64?
    ) {
        self.account = account
        self.limit = limit
        self.consumed = consumed
        self.consumedByOthers = consumedByOthers
        self.held = held
        self.resetsAtMilliseconds = resetsAtMilliseconds
    }
}

package struct LeaseGrant: Hashable, Sendable, Codable {
    package enum Status: String, Sendable, Codable {
        case granted
        /// The limit is spent: Σ consumed + need > limit.
        case exhausted
        /// What is left is set aside by somebody, or by this holder up to its `maxLease`.
        case contended
        /// Below the closed watermark.
        case gone
        case stalePolicy = "stale_policy"
        case wrongPeriod = "wrong_period"
        case unknownAccount = "unknown_account"
        /// The store cannot keep its promises now (persistence, epoch): no grants.
        case unavailable
    }

    package var lease: LeaseID
    package var status: Status
    package var granted: NanoUSD
    /// From when the answer was made; the holder counts from before it asked.
    package var expiresInMilliseconds: Int64
    package var state: AccountState?

    package init(
        lease: LeaseID, status: Status, granted: NanoUSD, expiresInMilliseconds: Int64,
        state: AccountState?
    ) {
        self.lease = lease
        self.status = status
        self.granted = granted
        self.expiresInMilliseconds = expiresInMilliseconds
        self.state = state
    }
}

package struct LeasesResponse: Hashable, Sendable, Codable {
    /// One for each acquire, in its order.
    package var grants: [LeaseGrant]
    /// The store's epoch when it granted. Absent: not said.
    package var epoch: Int64?

    package init(grants: [LeaseGrant], epoch: Int64? = nil) {
        self.grants = grants
        self.epoch = epoch
    }
}

/// What a delegation really cost, once it is known for good.
package struct ChildFinal: Hashable, Sendable, Codable {
    package var key: ChildKey
    package var consumed: NanoUSD
    package init(key: ChildKey, consumed: NanoUSD) {
        self.key = key
        self.consumed = consumed
    }
}

/// An open child whose answer is overdue, and the life that its delegation was addressed to: its
/// parent asks what became of it, and that life, or whoever adopted it, is told of the question.
package struct OpenChild: Hashable, Sendable, Codable {
    package var key: ChildKey
    package var audience: Incarnation
    package init(key: ChildKey, audience: Incarnation) {
        self.key = key
        self.audience = audience
    }
}

/// A lease that the store has open for a holder that did not list it.
package struct UnknownLease: Hashable, Sendable, Codable {
    package var lease: LeaseID
    package var account: AccountKey
    package var granted: NanoUSD
    package var consumed: NanoUSD

    package init(lease: LeaseID, account: AccountKey, granted: NanoUSD, consumed: NanoUSD) {
        self.lease = lease
        self.account = account
        self.granted = granted
        self.consumed = consumed
    }
}

package struct ReportResponse: Hashable, Sendable, Codable {
    package var finals: [ChildFinal]
    package var recalls: [LeaseID]
    /// Leases that the store has open for this holder and the report does not list.
    package var unknown: [UnknownLease]
    package var states: [AccountState]
    /// What parents ask of this sidecar, or of a predecessor that it adopted. Said once: a parent
    /// asks again with its next report.
    package var inquiries: [OpenChild]
    /// Children of this parent whose audience was written off: they cost their whole amount.
    /// Absent: none.
    package var writtenOff: [ChildKey]?
    /// The store's epoch when the report came. Absent: not said.
    package var epoch: Int64?

    package init(
        finals: [ChildFinal], recalls: [LeaseID], unknown: [UnknownLease], states: [AccountState],
        inquiries: [OpenChild] = [], writtenOff: [ChildKey]? = nil, epoch: Int64? = nil
    ) {
        self.writtenOff = writtenOff
        self.epoch = epoch
        self.finals = finals
        self.recalls = recalls
        self.unknown = unknown
        self.states = states
        self.inquiries = inquiries
    }
}
