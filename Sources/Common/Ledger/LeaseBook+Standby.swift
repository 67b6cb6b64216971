import WeirCore

// What a tier lets each of its users spend while there is no control plane (rule 11). It is an
// account of its own beside the user's, so that all holders together never let more through, and
// its leases are good to the end of their period. Nothing is spent of it alone: whoever spends it
// spends of the user's other accounts too, of leases that the holder keeps for it, past their time.
// So it is set aside in advance, inside every limit.

extension LeaseBook {
    /// What a holder keeps for one user.
    struct Standby: Sendable {
        /// The user's accounts of money, and last the account of what is kept.
        var payer: Payer
    }

    /// Says that the user of these accounts is served here, and what may be spent for it without a
    /// control plane. `payer` ends with that account (`AccountKey.Scope.standby`).
    package mutating func keepStandby(_ payer: Payer, now: UInt64) {
        guard payer.count > 1, let slot = slot(of: payer, payer.count - 1),
            standbys[slot] != nil || standbys.count < LedgerLimits.standbysMax
        else { return }
        standbys[slot] = Standby(payer: payer)
        accounts[Int(slot)].lastUsed = max(accounts[Int(slot)].lastUsed, now)
        let row = accounts[Int(slot)]
        guard row.firstLease == noSlot, row.pending.number == 0, !row.isQueued,
            row.deniedUntil <= now, row.limit > 0
        else { return }
        need(slot, max(1, row.limit / LedgerLimits.standbySharesMax))
    }

    /// As `reserve`, without a control plane: leases of the user's accounts count past their time,
    /// because the lease of the last one vouches for them.
    package mutating func reserveStandby(
        _ payer: Payer, amount: NanoUSD, least: NanoUSD, now: UInt64
    ) -> Reservation? {
        guard amount > .zero, payer.count > 1, !reservations.isFull,
            let standby = slot(of: payer, payer.count - 1)
        else { return nil }
        var legs = SIMD8<UInt32>(repeating: noSlot)
        for index in 0..<payer.count {
            guard let account = slot(of: payer, index) else { return nil }
            let lease = first(leaseOf: account, free: amount.rawValue) {
                account == standby ? admits($0, now: now) : mayAdmitLate($0)
            }
            guard lease != noSlot else { return nil }
            legs[index] = lease
        }
        let count = isPlanted(.standbyIsNotCounted) ? payer.count - 1 : payer.count
        return setAside(amount.rawValue, least: least.rawValue, legs, count, now: now)
    }

    private func first(
        leaseOf account: UInt32, free amount: Int64, where admits: (UInt32) -> Bool
    ) -> UInt32 {
        var lease = accounts[Int(account)].firstLease
        while lease != noSlot {
            if leases[Int(lease)].free >= amount, admits(lease) { return lease }
            lease = leases[Int(lease)].next
        }
        return noSlot
    }

    /// Of a lease that this life was granted it is known that nobody else has its money, until this
    /// life gives it back.
    private func mayAdmitLate(_ lease: UInt32) -> Bool {
        leases[Int(lease)].id.incarnation == incarnation && leases[Int(lease)].admitsUntil > 0
    }

    // MARK: Keeping

    /// How much of what is free of each account stays here, though nobody used it lately and though
    /// its time is over. What others wait for goes back all the same.
    mutating func keptForStandby(now: UInt64) -> [UInt32: Int64] {
        var kept: [UInt32: Int64] = [:]
        guard !standbys.isEmpty, leaseIndex.count <= LedgerLimits.idleLeasesMax else { return kept }
        for slot in standbys.keys.sorted() {
            guard let payer = standbys[slot]?.payer, isKept(slot, payer, now: now) else {
                standbys[slot] = nil
                continue
            }
            let share = freeAndUsable(slot, now: now)
            guard share > 0 else { continue }
            for index in 0..<payer.count {
                guard let account = self.slot(of: payer, index),
                    account == slot || accounts[Int(account)].wantedUntil <= now
                else { continue }
                kept[account] = (NanoUSD(kept[account] ?? 0) + NanoUSD(share)).rawValue
            }
        }
        return kept
    }

    private func isKept(_ slot: UInt32, _ payer: Payer, now: UInt64) -> Bool {
        let row = accounts[Int(slot)]
        return row.generation == payer.generations[payer.count - 1]
            && now < row.lastUsed &+ LedgerLimits.standbyNanoseconds
    }

    /// Asks for what is missing beside a share that is here, where the limit has room for it: for
    /// this nobody is asked to give anything back.
    mutating func askForStandby(now: UInt64) {
        for (account, share) in keptForStandby(now: now).sorted(by: { $0.key < $1.key }) {
            let row = accounts[Int(account)]
            // The share itself may grow again when another holder has let go of its own.
            let missing =
                standbys[account] == nil
                ? share - freeAtAnyTime(account) : row.limit / LedgerLimits.standbySharesMax
            guard missing > 0, missing >= share / 4 || standbys[account] != nil, !row.isQueued,
                row.pending.number == 0, row.deniedUntil <= now, row.wantedUntil <= now,
                row.isStateKnown,
                row.stateConsumed + row.stateHeld + missing <= row.stateLimit
            else { continue }
            need(account, missing)
        }
    }

    private func freeAtAnyTime(_ account: UInt32) -> Int64 {
        var total = NanoUSD.zero
        var lease = accounts[Int(account)].firstLease
        while lease != noSlot {
            if mayAdmitLate(lease) { total += NanoUSD(leases[Int(lease)].free) }
            lease = leases[Int(lease)].next
        }
        return total.rawValue
    }

    /// What is kept past its time makes room for a lease that can be used now.
    mutating func releaseLate(of account: UInt32, now: UInt64, _ entries: inout [LedgerEntry]) {
        guard !standbys.isEmpty else { return }
        var lease = accounts[Int(account)].firstLease
        while lease != noSlot {
            if !admits(lease, now: now) { release(lease, leases[Int(lease)].free, &entries) }
            lease = leases[Int(lease)].next
        }
    }

    /// Another holder serves the user too: half of the share is for that one.
    mutating func shareStandby(_ lease: UInt32, now: UInt64, _ entries: inout [LedgerEntry]) {
        let row = leases[Int(lease)]
        let least = accounts[Int(row.account)].limit / LedgerLimits.standbySharesMax
        release(lease, min(row.free - row.free / 2, row.free - least), &entries)
        accounts[Int(row.account)].wantedUntil = now &+ LedgerLimits.standbyWantedNanoseconds
        giveBackSoon(row.account)
    }
}
