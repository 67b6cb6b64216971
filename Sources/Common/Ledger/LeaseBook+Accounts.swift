import WeirCore

/// One account that a request is charged to, and what the policy says about it.
package struct AccountTerms: Hashable, Sendable {
    package var key: AccountKey
    package var limit: NanoUSD
    package var maxLease: NanoUSD
    package var policyNumber: Int64

    package init(key: AccountKey, limit: NanoUSD, maxLease: NanoUSD, policyNumber: Int64) {
        self.key = key
        self.limit = limit
        self.maxLease = maxLease
        self.policyNumber = policyNumber
    }
}

/// The accounts that a request of one subject is charged to, each of them, interned: made once for
/// a subject and a period, then reserving looks nothing up. It stays valid when an account's row
/// was given to another meanwhile: that is noticed, and the account is looked up by its name again.
package struct Payer: Sendable {
    package let accounts: [AccountTerms]
    /// The limits are only observed.
    let observes: Bool
    let count: Int
    let slots: SIMD8<UInt32>
    let generations: SIMD8<UInt32>
}

extension LeaseBook {
    /// `nil` for more accounts than one reservation can carry, or accounts counted in different
    /// units; a program's mistake, but policies decide it.
    package mutating func payer(
        for accounts: [AccountTerms], observes: Bool = false, now: UInt64
    ) -> Payer? {
        guard accounts.count <= LedgerLimits.accountsPerReservationMax,
            Set(accounts.map(\.key)).count == accounts.count,
            Set(accounts.map(\.key.unit)).count <= 1
        else { return nil }
        var slots = SIMD8<UInt32>(repeating: noSlot)
        var generations = SIMD8<UInt32>(repeating: 0)
        for (index, terms) in accounts.enumerated() {
            guard let slot = intern(terms, now: now) else { continue }
            slots[index] = slot
            generations[index] = self.accounts[Int(slot)].generation
        }
        return Payer(
            accounts: accounts, observes: observes, count: accounts.count, slots: slots,
            generations: generations)
    }

    mutating func slot(of payer: Payer, _ index: Int) -> UInt32? {
        let slot = payer.slots[index]
        if slot != noSlot, accounts[Int(slot)].generation == payer.generations[index] {
            return slot
        }
        return intern(payer.accounts[index], now: 0)
    }

    /// `nil` when the table is full of accounts in use.
    mutating func intern(_ terms: AccountTerms, now: UInt64) -> UInt32? {
        guard let slot = intern(terms.key, now: now) else { return nil }
        let known = accounts[Int(slot)].limit
        let first = accounts[Int(slot)].firstLease
        // A local lease has no store behind it that could be asked.
        let isLocal = first != noSlot && leases[Int(first)].isLocal
        if known > 0, terms.limit.rawValue > known, !isLocal {
            // What the store said of the old limit refuses nobody before it is asked again.
            accounts[Int(slot)].isStateKnown = false
            accounts[Int(slot)].deniedUntil = 0
            accounts[Int(slot)].denialDelay = 0
        }
        accounts[Int(slot)].limit = terms.limit.rawValue
        accounts[Int(slot)].maxLease = terms.maxLease.rawValue
        accounts[Int(slot)].policyNumber = max(
            accounts[Int(slot)].policyNumber, terms.policyNumber)
        return slot
    }

    mutating func intern(_ key: AccountKey, now: UInt64) -> UInt32? {
        if let slot = accountIndex[key] { return slot }
        if freeAccounts.isEmpty, accounts.count >= LedgerLimits.accountsMax { evictAccounts() }
        let slot: UInt32
        if let free = freeAccounts.popLast() {
            slot = free
            let generation = accounts[Int(slot)].generation &+ 1
            accounts[Int(slot)] = AccountSlot(
                key: key, generation: generation, limit: 0, maxLease: 0, policyNumber: 0)
        } else if accounts.count < LedgerLimits.accountsMax {
            slot = UInt32(accounts.count)
            accounts.append(
                AccountSlot(key: key, generation: 1, limit: 0, maxLease: 0, policyNumber: 0))
        } else {
            return nil
        }
        accounts[Int(slot)].lastUsed = now
        accountIndex[key] = slot
        return slot
    }

    /// Makes room: the longest unused half of the accounts that hold nothing goes.
    mutating func evictAccounts() {
        let idle = accountIndex.values.filter { isUnused($0) }
            .sorted { accounts[Int($0)].lastUsed < accounts[Int($1)].lastUsed }
        for slot in idle.prefix(max(1, idle.count / 2)) where !idle.isEmpty { evict(slot) }
    }

    /// Nothing leads to its row but its name.
    func isUnused(_ slot: UInt32) -> Bool {
        let row = accounts[Int(slot)]
        return row.firstLease == noSlot && row.pending.number == 0 && !row.isQueued
            && row.waiters == 0 && !row.isGivingBack
    }

    mutating func evict(_ slot: UInt32) {
        accountIndex.removeValue(forKey: accounts[Int(slot)].key)
        accounts[Int(slot)].generation &+= 1
        freeAccounts.append(slot)
    }

    // MARK: What operators see

    /// How many accounts in money this holder knows of which this share of the limit, or more, is
    /// spent. Those of single runs do not count: they are cut to size.
    package func accountsSpent(percent: Int64) -> Int {
        accountIndex.values.count { slot in
            let row = accounts[Int(slot)]
            guard row.key.unit == .usd, row.key.scope != .run,
                row.key.scope != .standby,
                let position = position(of: slot), position.limit > .zero
            else { return false }
            let spent = position.consumedByOthers + position.ownConsumed
            return Int128(spent.rawValue) * 100 >= Int128(position.limit.rawValue) * Int128(percent)
        }
    }

    // MARK: Waiting

    /// Somebody waits for these accounts to change; balanced by `stopWaiting`.
    package mutating func startWaiting(_ payer: Payer) -> [UInt32] {
        var slots: [UInt32] = []
        for index in 0..<payer.count {
            guard let slot = slot(of: payer, index) else { continue }
            accounts[Int(slot)].waiters += 1
            slots.append(slot)
        }
        return slots
    }

    package mutating func stopWaiting(_ slots: [UInt32]) {
        for slot in slots { accounts[Int(slot)].waiters -= 1 }
    }

    package var hasWakes: Bool { !wakes.isEmpty }

    package mutating func takeWakes() -> Set<UInt32> {
        defer { wakes.removeAll(keepingCapacity: true) }
        return Set(wakes)
    }

    // MARK: Lease rows

    /// `nil` when the table is full.
    mutating func insertLease(_ image: LeaseImage, expiresAt: UInt64) -> UInt32? {
        guard leaseIndex[image.id] == nil,
            image.slot == noSlot || image.slot < LedgerLimits.leasesMax,
            let account = intern(image.account, now: 0)
        else {
            return nil
        }
        var slot = image.slot
        if slot == noSlot {
            if let free = freeLeases.popLast() {
                slot = free
            } else if leases.count < LedgerLimits.leasesMax {
                slot = UInt32(leases.count)
            } else {
                return nil
            }
        }
        let row = LeaseSlot(
            id: image.id, account: account, next: accounts[Int(account)].firstLease,
            granted: image.granted, consumed: image.consumed, released: image.released,
            admitsUntil: admitsUntil(expiresAt, image.account), isLocal: image.isLocal)
        while leases.count <= Int(slot) { leases.append(.free) }
        guard leases[Int(slot)].account == noSlot else { return nil }
        leases[Int(slot)] = row
        accounts[Int(account)].firstLease = slot
        leaseIndex[image.id] = slot
        return slot
    }

    /// A rate has no use for the margin: it counts when requests are admitted, and without the last
    /// part of each minute there would be a pause.
    private func admitsUntil(_ expiresAt: UInt64, _ account: AccountKey) -> UInt64 {
        expiresAt
            &- min(expiresAt, account.isRate ? 0 : LedgerLimits.expiryMarginNanoseconds)
    }

    mutating func removeLease(_ slot: UInt32) {
        let row = leases[Int(slot)]
        let account = Int(row.account)
        if accounts[account].firstLease == slot {
            accounts[account].firstLease = row.next
        } else {
            var previous = accounts[account].firstLease
            while previous != noSlot, leases[Int(previous)].next != slot {
                previous = leases[Int(previous)].next
            }
            if previous != noSlot { leases[Int(previous)].next = row.next }
        }
        leaseIndex.removeValue(forKey: row.id)
        leases[Int(slot)].account = noSlot
        freeLeases.append(slot)
    }

    func image(of slot: UInt32) -> LeaseImage {
        let row = leases[Int(slot)]
        return LeaseImage(
            slot: slot, id: row.id, account: accounts[Int(row.account)].key, granted: row.granted,
            consumed: row.consumed, released: row.released, isLocal: row.isLocal)
    }
}
