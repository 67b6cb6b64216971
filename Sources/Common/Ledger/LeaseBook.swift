import WeirCore

/// The holder's side of the ledger: the leases of one process, what is set aside from them, and
/// what to ask the store for. Pure: time comes in (nanoseconds on CLOCK_BOOTTIME, which goes on
/// while the machine sleeps), and what must be journaled before it is acted on goes out as
/// `LedgerEntry`.
///
/// Always, for each lease: consumed + outstanding + released ≤ granted. It holds by construction,
/// because a reservation and a release only ever take from `free`, and a settlement replaces its
/// reservation. The one exception is a charge above its reservation, when a provider broke its
/// word: then `free` is zero and nothing more is admitted.
///
/// Reserving and settling allocate nothing: rows in tables that grow to a limit and are reused, and
/// accounts interned once (`Payer`).
package struct LeaseBook: Sendable {
    /// Chooses the numbers of leases; `nil` until the process has joined: no demand goes out.
    package internal(set) var incarnation: Incarnation?
    /// Leases of earlier incarnations are never released by this journal (rule 8).
    package internal(set) var wholeSince = Incarnation(0)
    /// After an adoption the store counts what the predecessor spent as spent by others, until a
    /// report took its leases over; asking before that would count it twice.
    var mustReportFirst = false
    var accounts: ContiguousArray<AccountSlot> = []
    var accountIndex: [AccountKey: UInt32] = [:]
    var freeAccounts: [UInt32] = []
    var leases: ContiguousArray<LeaseSlot> = []
    var leaseIndex: [LeaseID: UInt32] = [:]
    var freeLeases: [UInt32] = []
    var reservations = ReservationTable()
    /// Accounts with demand that no acquire carries.
    var demandQueue: [UInt32] = []
    var pendingIndex: [Int64: UInt32] = [:]
    var nextLeaseNumber: Int64 = 1
    /// Up to here the journal has set numbers aside.
    var leaseNumbersBelow: Int64 = 1
    /// Unknown leases that one answer named; a second one makes sure (`LeaseBook+Report`).
    var suspects: [LeaseID: UInt64] = [:]
    /// The newest of the leases that were closed and forgotten, with their last counters: a store
    /// that lost the report of them in a failover asks for them again. In memory only.
    var forgotten: [LeaseID: LeaseImage] = [:]
    var forgottenOrder: ContiguousArray<LeaseID> = []
    var nextForgotten = 0
    var reportSerial: UInt64 = 0
    /// The store's newest epoch that was heard of; 0: none.
    var epoch: Int64 = 0
    /// Where the last report stopped to list leases.
    var nextListed = -1
    var finalsToAcknowledge: [ChildKey] = []
    /// Numbers of overdue children, next to be asked about first; those that became final since
    /// are dropped when the next report is made.
    var overdue: [Int64] = []
    /// Accounts whose limits were lowered: what is free of their leases goes back.
    var lowered: [UInt32] = []
    /// Accounts that others wait for, of which something came free.
    var givingBack: [UInt32] = []
    /// By the account of what is kept.
    var standbys: [UInt32: Standby] = [:]
    /// Accounts with waiters for which something changed since `takeWakes`.
    var wakes: [UInt32] = []

    package init() {}

    // MARK: Reserving

    /// Sets a worst case aside on every account of the payer, or on none. In memory only: a crash
    /// before `open` finds nothing spent.
    package mutating func reserve(
        _ payer: Payer, amount: NanoUSD, least: NanoUSD, now: UInt64
    ) -> ReserveOutcome {
        let amount = max(0, amount.rawValue)
        guard !reservations.isFull else { return Self.tableFull }
        var legs = SIMD8<UInt32>(repeating: noSlot)
        // What costs nothing needs no lease.
        let count = amount == 0 ? 0 : payer.count
        for index in 0..<count {
            guard let account = slot(of: payer, index) else { return Self.tableFull }
            if accounts[Int(account)].mayBeBeyond, !payer.observes,
                isExhausted(account, for: amount)
            {
                // The store may know of a limit that was raised meanwhile.
                demand(account, amount: amount, observes: false, now: now)
                return exhausted(account)
            }
            let lease = usableLease(of: account, free: amount, now: now)
            guard lease != noSlot else {
                return refusal(payer, amount: amount, now: now)
            }
            legs[index] = lease
        }
        let reservation = setAside(
            amount, least: least.rawValue, legs, count, now: now)
        for index in 0..<count {
            noteDemand(
                leases[Int(legs[index])].account, amount: amount, observes: payer.observes, now: now
            )
        }
        return .reserved(reservation)
    }

    private static let tableFull = ReserveOutcome.contended(
        nil, retryAfterNanoseconds: LedgerLimits.denialNanosecondsMax)

    /// There is room in the table, and in each lease.
    mutating func setAside(
        _ amount: Int64, least: Int64, _ legs: SIMD8<UInt32>, _ count: Int, now: UInt64
    ) -> Reservation {
        let slot = reservations.insert()
        reservations[slot].amount = amount
        reservations[slot].least =
            isPlanted(.worstCaseIsDue) ? amount : min(max(0, least), amount)
        reservations[slot].legs = legs
        reservations[slot].legCount = Int32(count)
        reservations[slot].phase = .reserved
        for index in 0..<count { setAside(amount, from: legs[index], now: now) }
        return Reservation(number: reservations[slot].number)
    }

    private mutating func setAside(_ amount: Int64, from lease: UInt32, now: UInt64) {
        leases[Int(lease)].outstanding += amount
        leases[Int(lease)].openCount += 1
        let account = leases[Int(lease)].account
        let usual = accounts[Int(account)].usualAmount
        accounts[Int(account)].usualAmount = max(amount, usual - usual / 16)
        accounts[Int(account)].lastUsed = max(accounts[Int(account)].lastUsed, now)
    }

    private func isExhausted(_ account: UInt32, for amount: Int64) -> Bool {
        position(of: account)?.isExhausted(for: NanoUSD(amount)) ?? false
    }

    private func exhausted(_ account: UInt32) -> ReserveOutcome {
        let row = accounts[Int(account)]
        let resets = row.resetsAtMilliseconds.map { UnixTime(milliseconds: $0) }
        return .exhausted(row.key, resetsAt: resets)
    }

    /// The first account of which the limit would refuse this amount, were it enforced. Asked after
    /// the amount is reserved and before it is opened.
    package mutating func accountBeyond(_ payer: Payer, for amount: NanoUSD) -> AccountKey? {
        for index in 0..<payer.count {
            guard let account = slot(of: payer, index),
                isExhausted(account, for: amount.rawValue)
            else { continue }
            return accounts[Int(account)].key
        }
        return nil
    }

    /// The first lease of the account that may be used now and has enough in one piece.
    private func usableLease(of account: UInt32, free amount: Int64, now: UInt64) -> UInt32 {
        var lease = accounts[Int(account)].firstLease
        while lease != noSlot {
            if leases[Int(lease)].free >= amount, admits(lease, now: now) { return lease }
            lease = leases[Int(lease)].next
        }
        return noSlot
    }

    /// Only leases of this life admit: an adopted predecessor's are wound up.
    func admits(_ lease: UInt32, now: UInt64) -> Bool {
        let row = leases[Int(lease)]
        return row.isLocal
            || row.id.incarnation == incarnation
                && (now < row.admitsUntil || isPlanted(.expiryIsIgnored))
    }

    /// Why a reservation cannot be had now; what is missing is asked for by the way.
    private mutating func refusal(
        _ payer: Payer, amount: Int64, now: UInt64
    ) -> ReserveOutcome {
        var outcome = ReserveOutcome.needsLease
        for index in 0..<payer.count {
            if let account = slot(of: payer, index), isOver(account, now: now) {
                return .periodOver(accounts[Int(account)].key)
            }
        }
        for index in 0..<payer.count {
            guard let account = slot(of: payer, index),
                usableLease(of: account, free: amount, now: now) == noSlot
            else { continue }
            demand(account, amount: amount, observes: payer.observes, now: now)
            let row = accounts[Int(account)]
            if !payer.observes, isExhausted(account, for: amount) { return exhausted(account) }
            if row.deniedUntil > now {
                outcome = .contended(row.key, retryAfterNanoseconds: row.deniedUntil - now)
            }
        }
        return outcome
    }

    // MARK: Opening and ending

    /// The reservation becomes an own attempt or a child; the entry must be committed before the
    /// first byte goes upstream. `nil`: there is no such reservation. `audience`: the life that a
    /// child's delegation is addressed to.
    package mutating func open(
        _ reservation: Reservation, as kind: OpenedReservation.Kind,
        audience: Incarnation = Incarnation(0)
    ) -> OpenedReservation? {
        guard let slot = reservations.find(reservation.number),
            reservations[slot].phase == .reserved
        else { return nil }
        reservations[slot].phase = ReservationSlot.Phase(kind)
        reservations[slot].audience = audience
        let row = reservations[slot]
        for index in 0..<Int(row.legCount) {
            let account = leases[Int(row.legs[index])].account
            accounts[Int(account)].leastOutstanding += row.least
        }
        return OpenedReservation(
            number: row.number, kind: kind, amount: row.amount, least: row.least,
            legCount: Int(row.legCount), legs: row.legs, audience: row.audience)
    }

    /// The name that an opened reservation has at others: its first lease and its number.
    package func key(of reservation: Reservation) -> ChildKey? {
        guard let slot = reservations.find(reservation.number) else { return nil }
        let row = reservations[slot]
        let lease =
            row.legCount > 0
            ? leases[Int(row.legs[0])].id
            : LeaseID(incarnation: incarnation ?? Incarnation(0), number: 0)
        return ChildKey(lease: lease, child: row.number)
    }

    package func amount(of reservation: Reservation) -> NanoUSD? {
        reservations.find(reservation.number).map { NanoUSD(reservations[$0].amount) }
    }

    /// Nothing went upstream and nothing was journaled: the money is free again.
    @discardableResult
    package mutating func cancel(_ reservation: Reservation) -> Bool {
        guard let slot = reservations.find(reservation.number),
            reservations[slot].phase == .reserved
        else { return false }
        finish(slot, consumed: 0)
        return true
    }

    /// An own attempt is over; the caller commits its record first.
    @discardableResult
    package mutating func settle(_ reservation: Reservation, cost: NanoUSD) -> Bool {
        guard let slot = reservations.find(reservation.number),
            reservations[slot].phase == .attempt
        else { return false }
        finish(slot, consumed: max(0, cost.rawValue))
        return true
    }

    /// Whether this final is news: the child is open here. A final that comes twice, by the
    /// response and by the control plane, is none the second time.
    package func isOpenChild(_ key: ChildKey) -> Bool {
        guard let slot = reservations.find(key.child), reservations[slot].phase == .child else {
            return false
        }
        let row = reservations[slot]
        return row.legCount == 0
            ? key.lease.number == 0 : leases[Int(row.legs[0])].id == key.lease
    }

    package func isOpenAttempt(_ reservation: Reservation) -> Bool {
        reservations.find(reservation.number).map { reservations[$0].phase == .attempt } ?? false
    }

    /// Open reservations, attempts and children.
    package var openCount: Int { reservations.count }

    /// Leases whose counters the store is not known to have.
    package var unreportedCount: Int {
        leases.count { row in
            row.account != noSlot && !row.isLocal && !row.isAcknowledged
                && !accounts[Int(row.account)].key.isRate
        }
    }

    /// A child is final; the caller commits the entry first.
    @discardableResult
    package mutating func childFinal(_ key: ChildKey, consumed: NanoUSD) -> Bool {
        guard isOpenChild(key), let slot = reservations.find(key.child) else { return false }
        finish(slot, consumed: max(0, consumed.rawValue))
        return true
    }

    /// A use is over; the caller commits the entry first. `false`: it is not open.
    @discardableResult
    package mutating func endUse(_ reservation: Reservation, consumed: NanoUSD) -> Bool {
        guard isOpenUse(reservation), let slot = reservations.find(reservation.number) else {
            return false
        }
        finish(slot, consumed: max(0, consumed.rawValue))
        return true
    }

    package func isOpenUse(_ reservation: Reservation) -> Bool {
        reservations.find(reservation.number).map { reservations[$0].phase == .use } ?? false
    }

    /// Consumes a reservation at once and without a record: counted requests (rule 14). The entry
    /// must be committed.
    package mutating func spend(_ reservation: Reservation) -> OpenedReservation? {
        guard let opened = open(reservation, as: .attempt),
            let slot = reservations.find(reservation.number)
        else { return nil }
        finish(slot, consumed: opened.amount)
        return opened
    }

    mutating func finish(_ slot: Int, consumed: Int64) {
        let row = reservations[slot]
        for index in 0..<Int(row.legCount) {
            let lease = Int(row.legs[index])
            leases[lease].outstanding -= row.amount
            leases[lease].openCount -= 1
            leases[lease].consumed = (NanoUSD(leases[lease].consumed) + NanoUSD(consumed)).rawValue
            let account = Int(leases[lease].account)
            if isOwn(lease) {
                accounts[account].ownConsumed =
                    (NanoUSD(accounts[account].ownConsumed) + NanoUSD(consumed)).rawValue
                if row.phase != .reserved { accounts[account].leastOutstanding -= row.least }
            }
            // A denial was about what was set aside then; there is news for the store now.
            accounts[account].deniedUntil = 0
            accounts[account].denialDelay = 0
            if accounts[account].waiters > 0 { wakes.append(UInt32(account)) }
            if accounts[account].wantedUntil > 0 { giveBackSoon(UInt32(account)) }
        }
        reservations.remove(slot)
    }

    // MARK: What is left

    func position(of account: UInt32) -> BudgetPosition? {
        let row = accounts[Int(account)]
        guard row.isStateKnown else { return nil }
        return BudgetPosition(
            limit: NanoUSD(row.stateLimit), consumedByOthers: NanoUSD(row.othersConsumed),
            ownConsumed: NanoUSD(row.ownConsumed),
            leastOutstanding: NanoUSD(row.leastOutstanding))
    }

    /// `nil` until the store has said what others spent.
    package func position(of account: AccountKey) -> BudgetPosition? {
        accountIndex[account].flatMap { position(of: $0) }
    }
}

/// A worst case that is set aside. The number is never used again.
package struct Reservation: Hashable, Sendable {
    package let number: Int64
    package init(number: Int64) { self.number = number }
}

package enum ReserveOutcome: Hashable, Sendable {
    case reserved(Reservation)
    /// 402: no room could be made anywhere (429 `quota_exhausted` for an account in requests).
    case exhausted(AccountKey, resetsAt: UnixTime?)
    /// The store was asked lately and everything is set aside: wait a little, then 503. Without an
    /// account: a table of this process is full.
    case contended(AccountKey?, retryAfterNanoseconds: UInt64)
    /// A lease is being asked for: wait.
    case needsLease
    /// This account's minute is over by the store's clock, which decides: reserve of the next one.
    case periodOver(AccountKey)
    /// The log cannot take it: the disk is full, or slower than the requests.
    case journalFull
}
