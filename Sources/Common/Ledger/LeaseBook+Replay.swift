import WeirCore

// The state as entries, and back. Replaying is for a process that has just started.

extension LeaseBook {
    /// The whole state, in an order that `replay` takes.
    package func snapshot() -> [LedgerEntry] {
        var entries: [LedgerEntry] = [.leaseNumbers(below: leaseNumbersBelow)]
        if let incarnation { entries.append(.life(incarnation, wholeSince: wholeSince)) }
        for slot in accountIndex.values.sorted() where accounts[Int(slot)].ownConsumed > 0 {
            let row = accounts[Int(slot)]
            entries.append(.account(row.key, ownConsumed: row.ownConsumed))
        }
        for index in leases.indices where leases[index].account != noSlot {
            entries.append(.lease(image(of: UInt32(index))))
        }
        for row in reservations.rows {
            guard let kind = row.phase.kind else { continue }
            entries.append(
                .opened(
                    OpenedReservation(
                        number: row.number, kind: kind,
                        amount: row.amount, least: row.least, legCount: Int(row.legCount),
                        legs: row.legs, audience: row.audience)))
        }
        return entries
    }

    package var nextReservationNumber: Int64 { reservations.nextNumber }

    /// Takes one committed entry. `false`: it is none that a holder in this state writes, and the
    /// log is not to be trusted from here on.
    package mutating func replay(_ entry: LedgerEntry) -> Bool {
        switch entry {
        case .life(let life, let since):
            guard life >= incarnation ?? life, since >= wholeSince else { return false }
            if life == incarnation {
                wholeSince = since
            } else {
                begin(life, wholeSince: since)
            }
        case .leaseNumbers(let below):
            guard below > 0, below < .max / 2 else { return false }
            leaseNumbersBelow = max(leaseNumbersBelow, below)
            nextLeaseNumber = leaseNumbersBelow
        case .numbers(let next, _):
            guard next > 0, next < .max / 2 else { return false }
            reservations.skipNumbers(below: next)
        case .account(let key, let ownConsumed):
            guard ownConsumed >= 0, let slot = intern(key, now: 0) else { return false }
            accounts[Int(slot)].ownConsumed = ownConsumed
        case .lease(let image): return replayLease(image)
        case .leaseForgotten(let slot):
            guard let row = leaseRow(slot), row.openCount == 0 else { return false }
            removeLease(slot)
        case .released(let slot, let total):
            guard let row = leaseRow(slot), total >= row.released, total <= row.granted else {
                return false
            }
            leases[Int(slot)].released = total
        case .opened(let opened): return replayOpened(opened)
        case .spent(let opened):
            guard replayOpened(opened), let slot = reservations.find(opened.number) else {
                return false
            }
            finish(slot, consumed: opened.amount)
        case .childFinal(let number, let consumed):
            return replayEnd(number, .child, consumed: consumed)
        case .useEnded(let number, let consumed):
            return replayEnd(number, .use, consumed: consumed)
        case .settled(let number, let cost): return replayEnd(number, .attempt, consumed: cost)
        case .accepted, .delegationSettled, .refused, .window, .forgottenIssuers, .final:
            return true
        }
        return true
    }

    private func leaseRow(_ slot: UInt32) -> LeaseSlot? {
        guard slot < leases.count, leases[Int(slot)].account != noSlot else { return nil }
        return leases[Int(slot)]
    }

    private mutating func replayLease(_ image: LeaseImage) -> Bool {
        let amounts = 0...LedgerLimits.amountMax
        guard image.slot != noSlot, amounts.contains(image.granted), image.consumed >= 0,
            amounts.contains(image.released), image.released <= image.granted,
            (0..<(.max / 2)).contains(image.id.number)
        else { return false }
        leaseNumbersBelow = max(leaseNumbersBelow, image.id.number &+ 1)
        // A replayed lease admits nothing: nobody knows how long it had been waiting.
        return insertLease(image, expiresAt: isPlanted(.replayedLeasesAdmit) ? .max : 0) != nil
    }

    private mutating func replayOpened(_ opened: OpenedReservation) -> Bool {
        let count = opened.legCount
        guard opened.amount >= 0, opened.least >= 0, opened.least <= opened.amount,
            (0...LedgerLimits.accountsPerReservationMax).contains(count),
            (0..<count).allSatisfy({ leaseRow(opened.legs[$0]) != nil }),
            let slot = reservations.insert(number: opened.number)
        else { return false }
        reservations[slot].amount = opened.amount
        reservations[slot].least = opened.least
        reservations[slot].legs = opened.legs
        reservations[slot].legCount = Int32(count)
        reservations[slot].phase = ReservationSlot.Phase(opened.kind)
        reservations[slot].audience = opened.audience
        for index in 0..<count {
            let lease = Int(opened.legs[index])
            leases[lease].outstanding =
                (NanoUSD(leases[lease].outstanding) + NanoUSD(opened.amount)).rawValue
            leases[lease].openCount += 1
            guard isOwn(lease) else { continue }
            let account = Int(leases[lease].account)
            accounts[account].leastOutstanding =
                (NanoUSD(accounts[account].leastOutstanding) + NanoUSD(opened.least)).rawValue
        }
        return true
    }

    private mutating func replayEnd(
        _ number: Int64, _ phase: ReservationSlot.Phase, consumed: Int64
    ) -> Bool {
        guard consumed >= 0, let slot = reservations.find(number),
            reservations[slot].phase == phase
        else { return false }
        finish(slot, consumed: consumed)
        return true
    }

    /// After the last entry. Nobody waits for the answers of children that are open now.
    package mutating func replayed() {
        wakes.removeAll()
        for key in openChildren() {
            if isPlanted(.replayForgetsChildren) {
                childFinal(key, consumed: .zero)
            } else {
                childLost(key)
            }
        }
        freeLeases = leases.indices.filter { leases[$0].account == noSlot }.map { UInt32($0) }
    }

    /// Own attempts that were open: each settles at its worst case, as `crashed` (rule 6).
    package func openAttempts() -> [(reservation: Reservation, key: ChildKey, amount: NanoUSD)] {
        reservations.rows.filter { $0.phase == .attempt }.compactMap { row in
            let reservation = Reservation(number: row.number)
            return key(of: reservation).map { (reservation, $0, NanoUSD(row.amount)) }
        }
    }

    /// Uses that were open: each is used up whole. The entries must be committed before anything
    /// is said.
    package mutating func endCrashedUses() -> [LedgerEntry] {
        reservations.rows.indices.filter { reservations[$0].phase == .use }.map { slot in
            let row = reservations[slot]
            let consumed = isPlanted(.replayForgetsUses) ? 0 : row.amount
            finish(slot, consumed: consumed)
            return .useEnded(number: row.number, consumed: consumed)
        }
    }

    // MARK: Beginning a life

    /// A new incarnation. Leases of the life before stay in the table until they are wound up:
    /// reported, and released if this journal may.
    package mutating func begin(_ incarnation: Incarnation, mayRelease: Bool) -> LedgerEntry {
        begin(incarnation, wholeSince: mayRelease ? wholeSince : incarnation)
        return .life(incarnation, wholeSince: wholeSince)
    }

    /// What was replayed is not the whole truth: nothing of it is ever released by this log.
    package mutating func markBroken() {
        guard let incarnation else { return }
        wholeSince = max(wholeSince, Incarnation(incarnation.rawValue &+ 1))
    }

    /// Whether the present life may still release, and so go on.
    package var isWhole: Bool { incarnation.map { $0 >= wholeSince } ?? true }

    /// Whether this log has everything that a life wrote: this one, or one that it continues.
    package func isWhole(of life: Incarnation) -> Bool {
        life >= wholeSince && life <= incarnation ?? life
    }

    private mutating func begin(_ incarnation: Incarnation, wholeSince: Incarnation) {
        self.incarnation = incarnation
        self.wholeSince = wholeSince
        nextLeaseNumber = leaseNumbersBelow
        mustReportFirst = leases.contains { $0.account != noSlot && !$0.isLocal }
        // The store counts what an earlier life spent and closed as spent by somebody else.
        for slot in accounts.indices {
            accounts[slot].ownConsumed = 0
            accounts[slot].leastOutstanding = 0
        }
        for lease in leases.indices where leases[lease].account != noSlot && isOwn(lease) {
            let account = Int(leases[lease].account)
            accounts[account].ownConsumed =
                (NanoUSD(accounts[account].ownConsumed) + NanoUSD(leases[lease].consumed)).rawValue
        }
        for row in reservations.rows where row.phase.kind != nil {
            for index in 0..<Int(row.legCount) where isOwn(Int(row.legs[index])) {
                accounts[Int(leases[Int(row.legs[index])].account)].leastOutstanding += row.least
            }
        }
    }

    /// Whether the store counts what is spent of it as this holder's. Of a life that this log is
    /// not the whole truth of, perhaps nobody may speak for it: then the store counts it as spent
    /// by somebody else, and counting it here, too, would refuse users who have money left.
    func isOwn(_ lease: Int) -> Bool {
        leases[lease].isLocal || leases[lease].id.incarnation >= wholeSince
    }

    /// Standalone: an allowance that stands in for a budget. Once for each account; after a restart
    /// the journal says what is left of it.
    package mutating func grantLocally(
        _ terms: AccountTerms, amount: NanoUSD, now: UInt64
    ) -> LedgerEntry? {
        guard let account = intern(terms, now: now), amount > .zero else { return nil }
        // The log has the lease and what was spent of it, but never what a store would say: without
        // that, a spent allowance would be waited for instead of refused.
        accounts[Int(account)].isStateKnown = true
        accounts[Int(account)].stateLimit = amount.rawValue
        guard accounts[Int(account)].firstLease == noSlot else { return nil }
        let id = LeaseID(incarnation: incarnation ?? Incarnation(0), number: nextLeaseNumber)
        let image = LeaseImage(
            slot: noSlot, id: id, account: terms.key, granted: amount.rawValue, consumed: 0,
            released: 0, isLocal: true)
        guard let slot = insertLease(image, expiresAt: .max) else { return nil }
        nextLeaseNumber += 1
        leaseNumbersBelow = max(leaseNumbersBelow, nextLeaseNumber)
        return .lease(self.image(of: slot))
    }
}
