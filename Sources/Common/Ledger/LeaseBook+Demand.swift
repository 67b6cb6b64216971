import WeirCore

// When to ask the store for money, how much, and what to do with its answer.
//
// One acquire for each account is under way at a time, and it keeps its id until it is answered, so
// that a lost answer is asked for again and grants once. `need` is the least amount that somebody
// waits for; `want` is everything waited for and what spending will need next. Fragments too small
// for what is waited for go back in the same message, because the store counts them against
// `maxLease`.

extension LeaseBook {
    // MARK: Demand

    mutating func demand(_ account: UInt32, amount: Int64, observes: Bool, now: UInt64) {
        let slot = Int(account)
        note(observes, account)
        accounts[slot].lastUsed = max(accounts[slot].lastUsed, now)
        need(account, amount)
    }

    /// Without a request that waits: the account does not count as used.
    mutating func need(_ account: UInt32, _ amount: Int64) {
        let slot = Int(account)
        let isFirst = accounts[slot].needMin == 0
        accounts[slot].needMin = isFirst ? amount : min(accounts[slot].needMin, amount)
        accounts[slot].needSum = (NanoUSD(accounts[slot].needSum) + NanoUSD(amount)).rawValue
        enqueue(account)
    }

    private mutating func note(_ observes: Bool, _ account: UInt32) {
        let slot = Int(account)
        guard observes, !accounts[slot].demandObserves else { return }
        accounts[slot].demandObserves = true
        // What was refused for the limit is asked for again without it.
        guard !accounts[slot].denialObserves else { return }
        accounts[slot].deniedUntil = 0
        accounts[slot].denialDelay = 0
    }

    private mutating func enqueue(_ account: UInt32) {
        guard !accounts[Int(account)].isQueued else { return }
        accounts[Int(account)].isQueued = true
        demandQueue.append(account)
    }

    /// Spending is averaged over a window, and when less than half of what the next window will
    /// need is free, more is asked for ahead, so that steady spending never waits.
    mutating func noteDemand(_ account: UInt32, amount: Int64, observes: Bool, now: UInt64) {
        let slot = Int(account)
        note(observes, account)
        let elapsed = now &- accounts[slot].windowStart
        if elapsed >= LedgerLimits.demandWindowNanoseconds {
            let isStale = elapsed >= 2 * LedgerLimits.demandWindowNanoseconds
            accounts[slot].reservedPerWindow = isStale ? 0 : accounts[slot].windowReserved
            accounts[slot].windowReserved = 0
            accounts[slot].windowStart = now
        }
        accounts[slot].windowReserved =
            (NanoUSD(accounts[slot].windowReserved) + NanoUSD(amount)).rawValue
        let row = accounts[slot]
        guard !row.isQueued, row.pending.number == 0, row.deniedUntil <= now else { return }
        guard freeAndUsable(account, now: now) < target(account) / 2 else { return }
        enqueue(account)
    }

    /// What the account should have free: what was reserved in the busier of this window and the
    /// last, within what the store lets one holder have.
    private func target(_ account: UInt32) -> Int64 {
        let row = accounts[Int(account)]
        return min(max(row.reservedPerWindow, row.windowReserved), row.maxLease)
    }

    func freeAndUsable(_ account: UInt32, now: UInt64) -> Int64 {
        var total = NanoUSD.zero
        var lease = accounts[Int(account)].firstLease
        while lease != noSlot {
            if leases[Int(lease)].isLocal { return .max }
            if admits(lease, now: now) { total += NanoUSD(leases[Int(lease)].free) }
            lease = leases[Int(lease)].next
        }
        return total.rawValue
    }

    /// Whether `takeDemands` may have something to send.
    package var hasQueuedDemand: Bool {
        incarnation != nil && !(demandQueue.isEmpty && givingBack.isEmpty)
    }

    package var hasDemand: Bool {
        incarnation != nil && !mustReportFirst
            && (!demandQueue.isEmpty || !givingBack.isEmpty
                || pendingIndex.values.contains { !accounts[Int($0)].pending.isUnderWay })
    }

    // MARK: Asking

    /// What to send now, and the entries to commit before it is sent. `nextAt` is when to call
    /// again at the latest, `nil` when only new demand is a reason to.
    package mutating func takeDemands(
        now: UInt64
    ) -> (request: LeasesRequest, entries: [LedgerEntry], nextAt: UInt64?) {
        var request = LeasesRequest(acquire: [], release: [])
        var entries: [LedgerEntry] = []
        var nextAt: UInt64?
        guard let incarnation, !mustReportFirst else { return (request, entries, nil) }
        var later: [UInt32] = []
        for account in demandQueue {
            let row = accounts[Int(account)]
            guard row.pending.number == 0,
                request.acquire.count < LedgerLimits.leasesPerMessageMax
            else {
                later.append(account)
                continue
            }
            guard row.deniedUntil <= now else {
                nextAt = min(nextAt ?? .max, row.deniedUntil)
                later.append(account)
                continue
            }
            accounts[Int(account)].isQueued = false
            ask(account, now: now, &entries)
        }
        demandQueue = later
        giveBack(now: now, &request, &entries)
        sendPending(incarnation: incarnation, &request)
        return (request, entries, nextAt)
    }

    mutating func ask(
        _ account: UInt32, now: UInt64, _ entries: inout [LedgerEntry]
    ) {
        let slot = Int(account)
        let target = target(account)
        let free = freeAndUsable(account, now: now)
        let waited = accounts[slot].needMin
        // Demand may have been met meanwhile, by a settlement.
        guard waited > 0 || free < target else { return }
        let need = max(1, waited)
        // A first request is rarely the last: its run has more steps.
        let ahead = max(target - (waited > 0 ? 0 : free), (NanoUSD(need) + NanoUSD(need)).rawValue)
        let wanted = NanoUSD(max(accounts[slot].needSum, need)) + NanoUSD(ahead)
        // Of what is kept for a time without a control plane: whatever nobody else keeps.
        let isKept = accounts[slot].key.scope == .standby
        let want = max(need, min(isKept ? .max : wanted.rawValue, accounts[slot].maxLease))
        accounts[slot].needMin = 0
        accounts[slot].needSum = 0
        if waited > 0 {
            releaseLate(of: account, now: now, &entries)
            releaseFragments(of: account, below: need, &entries)
        }
        accounts[slot].pending = PendingAcquire(
            number: nextLeaseNumber, need: need, want: want, isUnderWay: false,
            observes: accounts[slot].demandObserves)
        accounts[slot].demandObserves = false
        pendingIndex[nextLeaseNumber] = account
        nextLeaseNumber += 1
        if nextLeaseNumber > leaseNumbersBelow {
            leaseNumbersBelow = nextLeaseNumber + LedgerLimits.leaseNumbersPerBatch
            if !isPlanted(.leaseNumbersAreNotJournaled) {
                entries.append(.leaseNumbers(below: leaseNumbersBelow))
            }
        }
    }

    /// Every acquire that is not under way, new or to be asked again, after what its account spent
    /// and gave back and the store may not know.
    private mutating func sendPending(incarnation: Incarnation, _ request: inout LeasesRequest) {
        for (_, account) in pendingIndex.sorted(by: { $0.key < $1.key })
        where !accounts[Int(account)].pending.isUnderWay {
            guard request.acquire.count < LedgerLimits.leasesPerMessageMax else { return }
            accounts[Int(account)].pending.isUnderWay = true
            let row = accounts[Int(account)]
            request.acquire.append(acquire(for: account, incarnation: incarnation))
            var lease = row.firstLease
            while lease != noSlot {
                let slot = Int(lease)
                // What was spent counts too: it makes room under `maxLease`.
                if !leases[slot].isAcknowledged,
                    request.release.count < LedgerLimits.leasesPerMessageMax
                {
                    request.release.append(counters(of: lease))
                }
                lease = leases[slot].next
            }
        }
    }

    func acquire(for account: UInt32, incarnation: Incarnation) -> LeaseAcquire {
        let row = accounts[Int(account)]
        return LeaseAcquire(
            lease: LeaseID(incarnation: incarnation, number: row.pending.number), account: row.key,
            need: NanoUSD(row.pending.need), want: NanoUSD(row.pending.want),
            closedBelow: closedBelow(account, incarnation: incarnation),
            policyNumber: row.policyNumber, observes: row.pending.observes)
    }

    mutating func giveBackSoon(_ account: UInt32) {
        guard !accounts[Int(account)].isGivingBack else { return }
        accounts[Int(account)].isGivingBack = true
        givingBack.append(account)
    }

    /// What came free of accounts that others wait for (rule 9), said at once and not with the next
    /// report.
    private mutating func giveBack(
        now: UInt64, _ request: inout LeasesRequest, _ entries: inout [LedgerEntry]
    ) {
        for account in givingBack {
            accounts[Int(account)].isGivingBack = false
            if accounts[Int(account)].wantedUntil <= now { accounts[Int(account)].wantedUntil = 0 }
            var lease = accounts[Int(account)].firstLease
            while lease != noSlot {
                let slot = Int(lease)
                if accounts[Int(account)].wantedUntil > 0,
                    accounts[Int(account)].key.scope != .standby
                {
                    release(lease, leases[slot].free, &entries)
                }
                if !leases[slot].isAcknowledged, !leases[slot].isLocal,
                    request.release.count < LedgerLimits.leasesPerMessageMax
                {
                    request.release.append(counters(of: lease))
                }
                lease = leases[slot].next
            }
        }
        givingBack.removeAll(keepingCapacity: true)
    }

    /// Below it every lease of this incarnation on the account is closed, and the store knows.
    private func closedBelow(_ account: UInt32, incarnation: Incarnation) -> Int64 {
        let row = accounts[Int(account)]
        var lowest = row.pending.number == 0 ? nextLeaseNumber : row.pending.number
        var lease = row.firstLease
        while lease != noSlot {
            if leases[Int(lease)].id.incarnation == incarnation {
                lowest = min(lowest, leases[Int(lease)].id.number)
            }
            lease = leases[Int(lease)].next
        }
        return lowest
    }

    /// Every piece of the account that is free and smaller than what is needed.
    private mutating func releaseFragments(
        of account: UInt32, below need: Int64, _ entries: inout [LedgerEntry]
    ) {
        var lease = accounts[Int(account)].firstLease
        while lease != noSlot {
            let free = leases[Int(lease)].free
            if free > 0, free < need { release(lease, free, &entries) }
            lease = leases[Int(lease)].next
        }
    }

    /// Rule 4: the entry is committed before the release is said.
    mutating func release(
        _ lease: UInt32, _ amount: Int64, _ entries: inout [LedgerEntry]
    ) {
        guard !leases[Int(lease)].isLocal, leases[Int(lease)].id.incarnation >= wholeSince,
            amount > 0
        else { return }
        precondition(amount <= leases[Int(lease)].free, "only what is free is released")
        leases[Int(lease)].released += amount
        entries.append(.released(slot: lease, total: leases[Int(lease)].released))
    }

    func counters(of lease: UInt32) -> LeaseCounters {
        let row = leases[Int(lease)]
        return LeaseCounters(
            lease: row.id, account: accounts[Int(row.account)].key,
            consumed: NanoUSD(row.consumed), released: NanoUSD(row.released),
            granted: NanoUSD(row.granted))
    }

    // MARK: The answer

    /// The request may have arrived or not: its acquires are asked again under the same ids.
    package mutating func requestFailed(_ request: LeasesRequest) {
        for acquire in request.acquire {
            guard let account = pendingIndex[acquire.lease.number] else { continue }
            accounts[Int(account)].pending.isUnderWay = false
        }
    }

    /// Takes an answer; entries must be committed before `reserve` is called again. `sentAt` is the
    /// time before the request was sent: from then on the store may have counted the lease's time.
    package mutating func apply(
        _ response: LeasesResponse, to request: LeasesRequest, sentAt: UInt64, now: UInt64
    ) -> [LedgerEntry] {
        var entries: [LedgerEntry] = []
        // A failover may have lost what was granted before it; asked for again it is not.
        if let granted = response.epoch, granted < epoch, !isPlanted(.oldReportsCount) {
            requestFailed(request)
            return entries
        }
        hear(response.epoch)
        acknowledge(request.release)
        for grant in response.grants {
            guard grant.lease.incarnation == incarnation,
                let account = pendingIndex[grant.lease.number]
            else { continue }
            if let state = grant.state { apply(state) }
            if grant.status == .granted {
                guard let entry = granted(grant, account, sentAt: sentAt, now: now) else {
                    // No room in the table: it stays pending and is asked for again.
                    accounts[Int(account)].pending.isUnderWay = false
                    continue
                }
                entries.append(entry)
            } else {
                if grant.status == .wrongPeriod { noteEnd(of: account, at: now) }
                refused(account, now: now)
            }
            pendingIndex.removeValue(forKey: grant.lease.number)
            accounts[Int(account)].pending = PendingAcquire()
            if accounts[Int(account)].waiters > 0 { wakes.append(account) }
        }
        requestFailed(request)
        releaseLowered(&entries)
        return entries
    }

    private mutating func granted(
        _ grant: LeaseGrant, _ account: UInt32, sentAt: UInt64, now: UInt64
    ) -> LedgerEntry? {
        let lifetime = UInt64(clamping: grant.expiresInMilliseconds)
            .multipliedReportingOverflow(by: 1_000_000)
        guard grant.granted.rawValue > 0, grant.granted <= .limitMax, !lifetime.overflow else {
            return nil
        }
        let image = LeaseImage(
            slot: noSlot, id: grant.lease, account: accounts[Int(account)].key,
            granted: grant.granted.rawValue, consumed: 0, released: 0, isLocal: false)
        let from = isPlanted(.expiryCountsFromTheAnswer) ? now : sentAt
        guard let slot = insertLease(image, expiresAt: from &+ lifetime.partialValue) else {
            return nil
        }
        noteEnd(of: account, at: from &+ lifetime.partialValue)
        accounts[Int(account)].deniedUntil = 0
        accounts[Int(account)].denialDelay = 0
        if accounts[Int(account)].pending.observes { accounts[Int(account)].mayBeBeyond = true }
        return .lease(self.image(of: slot))
    }

    /// A lease of a minute is good for as long as its minute.
    private mutating func noteEnd(of account: UInt32, at time: UInt64) {
        let slot = Int(account)
        guard accounts[slot].key.isRate else { return }
        accounts[slot].endsAt = min(accounts[slot].endsAt, time)
    }

    private mutating func refused(_ account: UInt32, now: UInt64) {
        // A refusal of long ago makes nobody wait: what came free by a recall is there at once.
        let row = accounts[Int(account)]
        let isRecent = now < row.deniedUntil &+ LedgerLimits.denialNanosecondsMax
        let delay = isRecent ? row.denialDelay : 0
        let longest =
            row.waiters > 0
            ? LedgerLimits.denialNanosecondsWaited : LedgerLimits.denialNanosecondsMax
        let next = min(max(LedgerLimits.denialNanosecondsMin, delay * 2), longest)
        accounts[Int(account)].denialDelay = next
        accounts[Int(account)].denialObserves = accounts[Int(account)].pending.observes
        accounts[Int(account)].deniedUntil = now &+ next
    }

    mutating func apply(_ state: AccountState) {
        // The sum only grows, so it tells an old answer from a new one.
        guard let account = accountIndex[state.account],
            state.consumed.rawValue >= accounts[Int(account)].stateConsumed
        else { return }
        let slot = Int(account)
        let own = (state.consumed - state.consumedByOthers).rawValue
        // An account that was forgotten here and came back: the store remembers what was spent.
        if accounts[slot].ownConsumed < own { accounts[slot].ownConsumed = own }
        if accounts[slot].isStateKnown, state.limit.rawValue < accounts[slot].stateLimit {
            lowered.append(account)
        }
        if accounts[slot].stateLimit < state.limit.rawValue {
            // Raised: whoever was refused may ask again.
            accounts[slot].deniedUntil = 0
            accounts[slot].denialDelay = 0
        }
        accounts[slot].stateConsumed = state.consumed.rawValue
        accounts[slot].stateHeld = max(0, state.held.rawValue)
        accounts[slot].othersConsumed = max(0, state.consumedByOthers.rawValue)
        accounts[slot].isStateKnown = true
        accounts[slot].stateLimit = state.limit.rawValue
        accounts[slot].resetsAtMilliseconds = state.resetsAtMilliseconds
        if accounts[slot].waiters > 0 { wakes.append(account) }
    }
}
