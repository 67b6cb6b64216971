/// Every limit of the ledger's state machines. The holder's tables are allocated once at these
/// sizes, so that reserving and settling allocate nothing.
package enum LedgerLimits {
    // MARK: Messages
    package static let leasesPerMessageMax = 1_024
    package static let finalsPerMessageMax = 1_024
    /// Overdue children asked about in one report, and questions to one sidecar in one answer.
    package static let inquiriesPerMessageMax = 1_024

    // MARK: The store
    /// How long a lease admits without being asked about again.
    package static let leaseMilliseconds: Int64 = 60_000
    /// The same for what may be spent without a control plane: to the end of the month. What bounds
    /// it is the amount, and nobody knows how long there is none.
    package static let standbyMilliseconds: Int64 = 32 * 86_400_000
    /// A lease of the next period is granted this long before the period begins, so that midnight
    /// is not a storm; holders spread their asking over it.
    package static let nextPeriodMilliseconds: Int64 = 30_000
    /// A minute's lease is asked for this long before the minute begins, for accounts of which
    /// something was reserved in the last part of the minute before.
    package static let nextMinuteMilliseconds: Int64 = 10_000
    package static let minuteActiveNanoseconds: UInt64 = 10_000_000_000
    /// What is left of a minute is forgotten this long after it.
    package static let minuteGraceMilliseconds: Int64 = 2_000
    /// How far the clocks of the store's servers may lie apart.
    package static let storeClocksMilliseconds: Int64 = 60_000
    /// Sums of an account stay inside what a Redis script compares exactly.
    package static let amountMax: Int64 = (1 << 53) - 1

    // MARK: The holder
    /// User, tenant, tier, API key and tags: the accounts that one reservation may be charged to.
    package static let accountsPerReservationMax = 8
    /// Of these, tags that have a budget.
    package static let taggedAccountsMax = 4
    package static let accountsMax = 8_192
    package static let leasesMax = 8_192
    /// Closed leases whose last counters are kept in memory, should the store lose them. Few in the
    /// simulation's own build, so that histories reach the limit.
    #if WEIR_PLANTED_FAULTS
        package static let forgottenLeasesMax = 4
    #else
        package static let forgottenLeasesMax = 1_024
    #endif
    package static let reservationsMax = 16_384
    package static let finalsToReportMax = 16_384
    package static let waitersMax = 8_192
    /// A lease that nothing was reserved from for this long goes back; with a report each second
    /// it is there within the five seconds of promise 2.
    package static let idleNanoseconds: UInt64 = 2_500_000_000
    /// The same where half of the account's limit is neither spent nor set aside, so that nobody
    /// misses it: whoever comes back within a minute needs no exchange.
    package static let ampleIdleNanoseconds: UInt64 = 60_000_000_000
    /// Users for whom a process keeps what they may spend without a control plane.
    package static let standbysMax = 1_024
    /// How long after a user's last request it is kept.
    package static let standbyNanoseconds: UInt64 = 900_000_000_000
    /// After it was shared with another holder: how long that one has to come for it.
    package static let standbyWantedNanoseconds: UInt64 = 10_000_000_000
    /// Into how many shares of use it may be cut by holders that serve the same user.
    package static let standbySharesMax: Int64 = 8
    /// Leases of one process above which none is left idle for long: the table must have room.
    package static let idleLeasesMax = leasesMax / 2
    /// A lease of an account in use is replaced this long before it ends.
    package static let renewalNanoseconds: UInt64 = 10_000_000_000
    /// Since somebody else waited for an account's money: how long what comes free of it goes back
    /// at once. As long as the store remembers that it is wanted.
    package static let wantedNanoseconds: UInt64 = 2_000_000_000
    /// A lease is not used for admission in its last part, so that a reservation made now is not
    /// older than its lease when the first byte goes.
    package static let expiryMarginNanoseconds: UInt64 = 1_000_000_000
    /// After a refusal by the store: the first and the longest time until it is asked again.
    package static let denialNanosecondsMin: UInt64 = 10_000_000
    /// The longest while somebody waits: a recall takes about as long.
    package static let denialNanosecondsWaited: UInt64 = 40_000_000
    package static let denialNanosecondsMax: UInt64 = 1_000_000_000
    /// How long spending is averaged over, to tell how much to ask for ahead.
    package static let demandWindowNanoseconds: UInt64 = 1_000_000_000
    /// Numbers of leases are set aside in the journal by the batch, so that one that was asked for
    /// and forgotten in a crash is never given to another account.
    package static let leaseNumbersPerBatch: Int64 = 256

    // MARK: Delegations accepted
    package static let childWindow = 65_536
    package static let issuersMax = 64
    /// Finals that the store has, kept in memory, should it lose them.
    package static let finalsKeptMax = 1_024
}
