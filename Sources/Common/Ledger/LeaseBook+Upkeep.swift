import WeirCore

// What a holder does each second: it gives back what nobody uses, and asks ahead for what will be
// used.

extension LeaseBook {
    /// Gives back what nobody used lately and what may not be used any more. The next report says
    /// so, once the entries are committed.
    package mutating func maintain(now: UInt64) -> [LedgerEntry] {
        var entries: [LedgerEntry] = []
        var kept = keptForStandby(now: now)
        // What may be used is kept before what is late.
        for isLate in kept.isEmpty ? [nil] : [false, true] {
            giveBackUnused(isLate: isLate, &kept, now: now, &entries)
        }
        return entries
    }

    private mutating func giveBackUnused(
        isLate: Bool?, _ kept: inout [UInt32: Int64], now: UInt64, _ entries: inout [LedgerEntry]
    ) {
        for index in leases.indices {
            let row = leases[index]
            guard row.account != noSlot, row.free > 0 else { continue }
            // What is left of a minute that is over, nobody can use.
            guard !isOver(row.account, now: now) else { continue }
            let admits = admits(UInt32(index), now: now)
            if let isLate, isLate == admits { continue }
            let isIdle = isIdle(accounts[Int(row.account)], now: now)
            let stays = min(row.free, kept[row.account] ?? 0)
            if stays > 0 { kept[row.account]? -= stays }
            guard isIdle || !admits, !isPlanted(.idleMoneyStays) else { continue }
            release(UInt32(index), row.free - stays, &entries)
        }
    }

    /// Users who come back find their money here, as long as nobody else could miss it (rule 9).
    private func isIdle(_ account: AccountSlot, now: UInt64) -> Bool {
        let mayStay =
            account.isAmple && account.wantedUntil <= now
            && leaseIndex.count <= LedgerLimits.idleLeasesMax
        let longest = mayStay ? LedgerLimits.ampleIdleNanoseconds : LedgerLimits.idleNanoseconds
        return now > account.lastUsed && now - account.lastUsed >= longest
    }

    /// A lower limit does not un-grant (rule 1); but what nobody has set aside goes back at once,
    /// so that the next reservation is decided under it.
    mutating func releaseLowered(_ entries: inout [LedgerEntry]) {
        for account in lowered {
            var lease = accounts[Int(account)].firstLease
            while lease != noSlot {
                release(lease, leases[Int(lease)].free, &entries)
                lease = leases[Int(lease)].next
            }
        }
        lowered.removeAll(keepingCapacity: true)
    }

    // MARK: Minutes

    /// Whether the store has said so: by the end of a lease, or by refusing one.
    func isOver(_ account: UInt32, now: UInt64) -> Bool { now >= accounts[Int(account)].endsAt }

    /// Forgets what is left of minutes that are over. What was spent of them limits nothing any
    /// more and the store forgets it by itself, so nobody is told: a thousand users are not
    /// thousands of leases to report each minute. Where a clock is wrong and the minute is not over
    /// at the store, the lease stays set aside there, which errs to the safe side. Leases of
    /// which something is open stay until it is settled.
    package mutating func endMinutes(wall: UnixTime) -> [LedgerEntry] {
        var entries: [LedgerEntry] = []
        var unqueued: Set<UInt32> = []
        let over = wall.milliseconds - LedgerLimits.minuteGraceMilliseconds
        for account in accountIndex.values.sorted()
        where accounts[Int(account)].key.isRate
            && accounts[Int(account)].key.period.beginning.milliseconds + 60_000 <= over
        {
            if dropDemand(account) { unqueued.insert(account) }
            var lease = accounts[Int(account)].firstLease
            while lease != noSlot {
                let row = leases[Int(lease)]
                if row.openCount == 0 {
                    removeLease(lease)
                    entries.append(.leaseForgotten(slot: lease))
                }
                lease = row.next
            }
            if isUnused(account) { evict(account) }
        }
        if !unqueued.isEmpty { demandQueue.removeAll { unqueued.contains($0) } }
        return entries
    }

    /// Of a minute that is over nothing is asked any more; an answer under way is none to anything.
    /// - Returns: whether it has to be taken out of the queue.
    private mutating func dropDemand(_ account: UInt32) -> Bool {
        let slot = Int(account)
        pendingIndex.removeValue(forKey: accounts[slot].pending.number)
        accounts[slot].pending = PendingAcquire()
        accounts[slot].needMin = 0
        accounts[slot].needSum = 0
        defer { accounts[slot].isQueued = false }
        return accounts[slot].isQueued
    }

    // MARK: Asking ahead

    /// For accounts in use: what their leases will need when they end, and leases of the periods
    /// that come next, so that neither is a pause.
    package mutating func askAhead(wall: UnixTime, now: UInt64) {
        guard let incarnation else { return }
        askForStandby(now: now)
        // By slot: a simulation's histories repeat, and dictionaries have no order.
        for account in accountIndex.values.sorted() {
            let end = accounts[Int(account)].key.period.end
            let remaining = end.map { $0.milliseconds - wall.milliseconds } ?? .max
            renew(account, remainingMilliseconds: remaining, now: now)
            guard let end else { continue }
            prepareNextPeriod(account, from: end, in: remaining, incarnation, now: now)
        }
    }

    /// What would serve the next request and ends soon, as far as `maxLease` has room for another
    /// lease beside it. Near a limit each lease is asked for when it is needed.
    private mutating func renew(
        _ account: UInt32, remainingMilliseconds: Int64, now: UInt64
    ) {
        let row = accounts[Int(account)]
        let ahead = LedgerLimits.renewalNanoseconds
        guard row.isAmple, row.usualAmount > 0, !row.isQueued, row.pending.number == 0,
            row.deniedUntil <= now, row.wantedUntil <= now,
            now < row.lastUsed &+ LedgerLimits.ampleIdleNanoseconds,
            // One of this period would end with this one.
            remainingMilliseconds > Int64(2 * ahead / 1_000_000),
            freeAndUsable(account, now: now) >= row.usualAmount,
            freeAndUsable(account, now: now &+ ahead) < row.usualAmount
        else { return }
        need(account, row.usualAmount)
    }

    /// Each holder and account asks at its own moment of the time that the store allows for it.
    private mutating func prepareNextPeriod(
        _ account: UInt32, from end: UnixTime, in remaining: Int64, _ incarnation: Incarnation,
        now: UInt64
    ) {
        let row = accounts[Int(account)]
        let key = row.key
        guard row.reservedPerWindow > 0 || row.windowReserved > 0 else { return }
        if key.isRate {
            guard now < row.lastUsed &+ LedgerLimits.minuteActiveNanoseconds else { return }
        }
        let early =
            key.isRate
            ? LedgerLimits.nextMinuteMilliseconds : LedgerLimits.nextPeriodMilliseconds - 2_000
        let spread = UInt64(key.isRate ? early * 3 / 4 : LedgerLimits.nextPeriodMilliseconds / 2)
        let seed = UInt64(bitPattern: incarnation.rawValue) &* 0x9E37_79B9_7F4A_7C15
        let mixed = (seed ^ (UInt64(account) &* 0xBF58_476D_1CE4_E5B9)) >> 8
        let jitter = Int64(mixed % spread)
        guard remaining > 0, remaining < early - jitter else { return }
        let nextKey = AccountKey(
            unit: key.unit, scope: key.scope, period: Period(key.period.kind, at: end), id: key.id)
        guard accountIndex[nextKey] == nil,
            let next = intern(
                AccountTerms(
                    key: nextKey, limit: NanoUSD(row.limit), maxLease: NanoUSD(row.maxLease),
                    policyNumber: row.policyNumber), now: now)
        else { return }
        // Of a rate as much as one request takes: the store gives a share of a fresh minute.
        let busy = max(row.reservedPerWindow, row.windowReserved)
        let first = key.isRate ? row.usualAmount : min(busy, row.maxLease) / 4
        demand(next, amount: max(1, min(first, row.limit)), observes: false, now: now)
        // Not idle before it can be used.
        accounts[Int(next)].lastUsed = now &+ UInt64(remaining) &* 1_000_000
    }
}
