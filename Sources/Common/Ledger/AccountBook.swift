import WeirCore

/// One account as the store keeps it: the rules of granting, reporting and releasing, as a pure
/// state machine. The scripts in Redis are these operations in Lua, one account and one operation
/// each, and a test compares the two; so state is flat integers by name, each operation checks
/// everything before its first write, and nothing here knows of clocks or policies: the caller
/// brings the time, the limit that its policy version states, and `maxLease`.
///
/// What is kept, for every order and repetition of messages:
/// - committed = Σ (granted − released) + overrun, and a grant is made only if committed + grant
///   ≤
///   limit (rule 1); grants that observe are made beyond it, and count in committed all the same.
///   *Overrun* is what leases consumed beyond their granted − released: zero unless a provider
///   broke its word, and then it is not granted a second time.
/// - a lease's counters only grow, merged by maximum (rule 3); `released` alone frees money (4).
/// - a lease id is granted once (rule 2).
package struct AccountBook: Sendable {
    package struct Lease: Hashable, Sendable {
        /// Who reports for it: the incarnation in its id, or the successor that adopted it.
        package var holder: Incarnation
        package var granted: Int64
        package var consumed: Int64 = 0
        package var released: Int64 = 0

        package var isClosed: Bool { consumed + released >= granted }
        package var overrun: Int64 { max(0, consumed + released - granted) }
        /// Set aside and not spent.
        package var held: Int64 { max(0, granted - consumed - released) }
    }

    package struct Holder: Hashable, Sendable {
        /// Over its leases, closed and forgotten ones included.
        package var consumed: Int64 = 0
        package var held: Int64 = 0
        /// Every lease of this incarnation below it is closed, and its number is used up.
        package var closedBelow: Int64 = 0
    }

    package let account: AccountKey
    package private(set) var limit: Int64
    package private(set) var policyNumber: Int64
    /// An administrator or the user set the limit: a newer policy does not change it.
    package private(set) var isLimitOverridden = false
    package private(set) var granted: Int64 = 0
    package private(set) var consumed: Int64 = 0
    package private(set) var released: Int64 = 0
    package private(set) var overrun: Int64 = 0
    package private(set) var held: Int64 = 0
    package private(set) var leases: [LeaseID: Lease] = [:]
    package private(set) var holders: [Incarnation: Holder] = [:]

    package init(account: AccountKey, limit: NanoUSD, policyNumber: Int64) {
        self.account = account
        self.limit = limit.rawValue
        self.policyNumber = policyNumber
    }

    package var committed: Int64 { granted - released + overrun }

    // MARK: Operations

    /// Rule 1: the account keeps the newest policy's limit. Lowering it stops grants and takes
    /// nothing back.
    package mutating func policyChanged(limit newLimit: NanoUSD, policyNumber number: Int64) {
        guard number > policyNumber || isPlanted(.olderPolicyMovesTheLimit) else { return }
        policyNumber = number
        if !isLimitOverridden { limit = newLimit.rawValue }
    }

    /// `nil` gives the limit back to the policy, whose number for it the caller brings.
    package mutating func override(limit newLimit: NanoUSD?, otherwise policyLimit: NanoUSD) {
        isLimitOverridden = newLimit != nil
        limit = (newLimit ?? policyLimit).rawValue
    }

    package struct Terms: Sendable {
        /// The limit by the policy version that the caller holds; used only if that is newer.
        package var limit: NanoUSD
        package var policyNumber: Int64
        package var maxLease: NanoUSD
        /// The store's own time (rule 10).
        package var now: UnixTime
        /// Holders that may have leases of this account which a failover lost, and that have not
        /// said so yet: `maxLease` is withheld for each (rule 12).
        package var missing: Int

        package init(
            limit: NanoUSD, policyNumber: Int64, maxLease: NanoUSD, now: UnixTime, missing: Int = 0
        ) {
            self.limit = limit
            self.policyNumber = policyNumber
            self.maxLease = maxLease
            self.now = now
            self.missing = missing
        }

        /// The product may be beyond what numbers hold; more than the limit is the limit.
        func withheld(of limit: Int64) -> Int64 {
            guard !isPlanted(.nothingIsWithheld) else { return 0 }
            let (amount, isBeyond) = maxLease.rawValue.multipliedReportingOverflow(
                by: Int64(missing))
            return isBeyond ? limit : min(amount, limit)
        }
    }

    /// Grants a lease, or says why not. Repeating an acquire gives what it gave before.
    package mutating func acquire(_ request: LeaseAcquire, terms: Terms) -> LeaseGrant {
        let incarnation = request.lease.incarnation
        policyChanged(limit: terms.limit, policyNumber: terms.policyNumber)
        raiseWatermark(of: incarnation, to: request.closedBelow)

        if let known = leases[request.lease], !isPlanted(.repeatedAcquireGrantsAgain) {
            // Closed: all of it is spent or given back, and whoever asks now must not spend it.
            return known.isClosed
                ? answer(request, .gone, now: terms.now)
                : answer(request, .granted, amount: known.granted, now: terms.now)
        }
        let holder = holders[incarnation] ?? Holder()
        guard request.lease.number >= holder.closedBelow || isPlanted(.watermarkIsIgnored) else {
            return answer(request, .gone, now: terms.now)
        }
        guard
            max(request.policyNumber, terms.policyNumber) >= policyNumber
                || isPlanted(.olderPolicyMovesTheLimit)
        else {
            return answer(request, .stalePolicy, now: terms.now)
        }
        guard millisecondsToExpiry(now: terms.now) != nil else {
            return answer(request, .wrongPeriod, now: terms.now)
        }
        let need = max(1, request.need.rawValue)
        var want = max(need, request.want.rawValue)
        // Where most of the limit is left, one holder gets its whole share at once, and asks less.
        let withheld = terms.withheld(of: limit)
        let isAmple = committed + withheld + terms.maxLease.rawValue <= limit / 2
        if isAmple { want = max(want, terms.maxLease.rawValue) }
        // Where the limit is only observed, neither it nor `maxLease` is a reason to refuse; what
        // can be counted is.
        let observes = request.observes ?? false
        let ceiling = observes ? LedgerLimits.amountMax : limit
        // A single worst case above `maxLease` would otherwise never be served.
        let room =
            observes
            ? max(terms.maxLease.rawValue - holder.held, need)
            : max(terms.maxLease.rawValue, need) - holder.held
        let given = isPlanted(.grantsWhatIsHeld) ? consumed : committed
        let grant = min(want, ceiling - given - (observes ? 0 : withheld), room)
        guard need <= LedgerLimits.amountMax, grant >= need else {
            let isSpent = need > LedgerLimits.amountMax || consumed + need > ceiling
            return answer(request, isSpent ? .exhausted : .contended, now: terms.now)
        }
        leases[request.lease] = Lease(holder: incarnation, granted: grant)
        granted += grant
        held += grant
        holders[incarnation, default: Holder()].held += grant
        return answer(request, .granted, amount: grant, now: terms.now)
    }

    /// A report of one lease, or a release: the same thing. `false`: the lease is not known, or the
    /// counters are none that a holder can have; nothing was changed. That `holder` may speak for
    /// the lease is the caller's to know (`IncarnationBook.mayReport`).
    ///
    /// What the holder was granted, it knows better than a store that lost writes in a failover
    /// (rule 12): a lease that is missing is put back, unless its number is below the watermark,
    /// because then it was closed and forgotten.
    @discardableResult
    package mutating func report(_ counters: LeaseCounters, by holder: Incarnation) -> Bool {
        let valid = 0...LedgerLimits.amountMax
        let owner = counters.lease.incarnation
        let known = leases[counters.lease]
        let isPast =
            counters.lease.number < holders[owner]?.closedBelow ?? 0
            && !isPlanted(.closedLeasesComeBack)
        let said = counters.granted?.rawValue
        let before = known ?? Lease(holder: holder, granted: 0)
        guard known != nil || said != nil && !isPast && !isPlanted(.lostGrantsStayLost) else {
            return false
        }
        var lease = before
        lease.granted = said ?? before.granted
        guard valid.contains(lease.granted), valid.contains(counters.consumed.rawValue),
            valid.contains(counters.released.rawValue),
            counters.released.rawValue <= lease.granted
        else { return false }
        lease.consumed = max(lease.consumed, counters.consumed.rawValue)
        lease.released = max(lease.released, counters.released.rawValue)
        if isPlanted(.countersMoveBack) {
            lease.consumed = counters.consumed.rawValue
            lease.released = counters.released.rawValue
        }
        // A successor takes over; its predecessor's late words still count, but move nothing back.
        if holder > lease.holder { lease.holder = holder }
        granted += lease.granted - before.granted
        consumed += lease.consumed - before.consumed
        released += lease.released - before.released
        overrun += lease.overrun - before.overrun
        held += lease.held - before.held
        holders[before.holder, default: Holder()].consumed -= before.consumed
        holders[before.holder, default: Holder()].held -= before.held
        holders[lease.holder, default: Holder()].consumed += lease.consumed
        holders[lease.holder, default: Holder()].held += lease.held
        leases[counters.lease] = lease
        return true
    }

    /// Counts everything that an incarnation still holds as spent: it will not come back, or nobody
    /// can tell what it spent. Answers how much that is; repeating it finds nothing left.
    package mutating func writeOff(_ incarnation: Incarnation) -> Int64 {
        var total: Int64 = 0
        for (id, lease) in leases where id.incarnation == incarnation && lease.held > 0 {
            let rest = lease.held
            if isPlanted(.writeOffFreesMoney) {
                released += rest
                leases[id]?.released += rest
            } else {
                consumed += rest
                leases[id]?.consumed += rest
                holders[lease.holder, default: Holder()].consumed += rest
            }
            held -= rest
            holders[lease.holder, default: Holder()].held -= rest
            total += rest
        }
        return total
    }

    /// Forgets closed leases of an incarnation below a number. From then on the number alone says
    /// `gone`, however late an acquire of it arrives.
    package mutating func raiseWatermark(of incarnation: Incarnation, to number: Int64) {
        guard number > holders[incarnation]?.closedBelow ?? 0 else { return }
        holders[incarnation, default: Holder()].closedBelow = number
        for (id, lease) in leases
        where id.incarnation == incarnation && id.number < number && lease.isClosed {
            leases.removeValue(forKey: id)
        }
    }

    // MARK: Answers

    /// The open leases that `holder` speaks for and did not list (rule 5). Above the highest number
    /// that it knew of when it wrote the report, an acquire may still be on its way.
    package func unknown(
        to holder: Incarnation, listed: Set<LeaseID>, highest: Int64
    ) -> [UnknownLease] {
        leases.filter { id, lease in
            lease.holder == holder && !lease.isClosed && !listed.contains(id)
                && (id.incarnation != holder || id.number <= highest)
        }.map { id, lease in
            UnknownLease(
                lease: id, account: account, granted: NanoUSD(lease.granted),
                consumed: NanoUSD(lease.consumed))
        }.sorted { $0.lease < $1.lease }
    }

    package func state(for holder: Incarnation) -> AccountState {
        AccountState(
            account: account, limit: NanoUSD(limit), consumed: NanoUSD(consumed),
            consumedByOthers: NanoUSD(consumed - (holders[holder]?.consumed ?? 0)),
            held: NanoUSD(held), resetsAtMilliseconds: account.period.end?.milliseconds)
    }

    private func answer(
        _ request: LeaseAcquire, _ status: LeaseGrant.Status, amount: Int64 = 0, now: UnixTime
    ) -> LeaseGrant {
        LeaseGrant(
            lease: request.lease, status: status, granted: NanoUSD(amount),
            expiresInMilliseconds: status == .granted ? millisecondsToExpiry(now: now) ?? 0 : 0,
            state: state(for: request.lease.incarnation))
    }

    /// `nil` when the period is over, or too far ahead.
    private func millisecondsToExpiry(now: UnixTime) -> Int64? {
        guard let end = account.period.end else { return account.leaseMilliseconds }
        let untilStart = account.period.beginning.milliseconds - now.milliseconds
        let untilEnd = end.milliseconds - now.milliseconds
        guard untilEnd > 0 || isPlanted(.pastPeriodsGrant),
            untilStart <= LedgerLimits.nextPeriodMilliseconds
        else { return nil }
        if isPlanted(.pastPeriodsGrant) { return account.leaseMilliseconds }
        return min(max(0, untilStart) + account.leaseMilliseconds, untilEnd)
    }
}
