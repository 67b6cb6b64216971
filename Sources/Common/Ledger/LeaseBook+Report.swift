import WeirCore

// Telling the store what was spent and given back.

/// The ledger's part of a report. `serial` orders reports of one life: the answer is taken together
/// with the report that it answers.
package struct LedgerReport: Hashable, Sendable {
    package var serial: UInt64
    package var highestLease: Int64
    package var leases: [LeaseCounters]
    package var acknowledgedFinals: [ChildKey]
    package var openChildren: [OpenChild]
    /// The epoch in which, with this report, all leases have been listed; 0: none (rule 12).
    package var epoch: Int64
}

extension LeaseBook {
    /// All leases that the store may have open, with counters that only grow (rule 5).
    package mutating func makeReport() -> LedgerReport {
        reportSerial += 1
        let listed = takeListed()
        return LedgerReport(
            serial: reportSerial, highestLease: nextLeaseNumber - 1,
            leases: listed.map { counters(of: UInt32($0)) },
            acknowledgedFinals: Array(
                finalsToAcknowledge.prefix(LedgerLimits.finalsPerMessageMax)),
            openChildren: takeOverdue(), epoch: isUnheard(otherThan: listed) ? 0 : epoch)
    }

    /// A new epoch of the store may have lost everything that was acknowledged before.
    mutating func hear(_ heard: Int64?) {
        guard let heard, heard > epoch else { return }
        epoch = heard
        for slot in leases.indices {
            leases[slot].acknowledgedConsumed = LeaseSlot.unheard
            leases[slot].acknowledgedReleased = LeaseSlot.unheard
        }
    }

    private func isUnheard(otherThan listed: [Int]) -> Bool {
        let listed = Set(listed)
        return leases.indices.contains {
            leases[$0].account != noSlot && !leases[$0].isLocal && leases[$0].isUnheard
                && !listed.contains($0)
        }
    }

    /// The leases that this report lists. Where they are more than a message carries, those come
    /// first of which the store does not know the counters, and the others take turns: it never
    /// gives up a lease that a report left out, it only asks about it.
    private mutating func takeListed() -> [Int] {
        var listed: [Int] = []
        for _ in leases.indices where listed.count < LedgerLimits.leasesPerMessageMax {
            nextListed = nextListed + 1 < leases.count ? nextListed + 1 : 0
            if mustBeListed(nextListed) { listed.append(nextListed) }
        }
        guard listed.count == LedgerLimits.leasesPerMessageMax else { return listed }
        let news = leases.indices.filter {
            mustBeListed($0) && !leases[$0].isAcknowledged
        }
        let isNews = Set(news)
        let unheard = news.filter { leases[$0].isUnheard }
        let heard = news.filter { !leases[$0].isUnheard }
        let all = unheard + heard + listed.filter { !isNews.contains($0) }
        return Array(all.prefix(LedgerLimits.leasesPerMessageMax))
    }

    /// Of a minute only what was given back is news that is worth a report: what was spent is said
    /// with the next acquire or recall of its account, and stays set aside until then. Those of an
    /// adopted predecessor the store has to hear of, or it would count them as somebody else's.
    private func mustBeListed(_ lease: Int) -> Bool {
        let row = leases[lease]
        guard row.account != noSlot, !row.isLocal else { return false }
        return !accounts[Int(row.account)].key.isRate || row.released != row.acknowledgedReleased
            || row.id.incarnation != incarnation
    }

    /// The call of a child ended without a settlement: from now on reports ask what became of it.
    package mutating func childLost(_ key: ChildKey) {
        guard isOpenChild(key), let slot = reservations.find(key.child),
            !reservations[slot].isOverdue
        else { return }
        reservations[slot].isOverdue = true
        overdue.append(key.child)
    }

    /// The overdue children that this report asks about. Where they are more than a message
    /// carries, the next report begins with those that this one leaves out: there may be no answer
    /// for long, when a sidecar does not come back.
    private mutating func takeOverdue() -> [OpenChild] {
        overdue.removeAll { number in
            !(reservations.find(number).map { reservations[$0].isOverdue } ?? false)
        }
        let asked = overdue.prefix(LedgerLimits.inquiriesPerMessageMax)
        overdue = Array(overdue.dropFirst(asked.count)) + asked
        return asked.compactMap { number in
            guard let slot = reservations.find(number),
                let key = key(of: Reservation(number: number))
            else { return nil }
            return OpenChild(key: key, audience: reservations[slot].audience)
        }
    }

    /// Entries must be committed before anything else is said.
    package mutating func apply(
        _ response: ReportResponse, to report: LedgerReport, now: UInt64
    ) -> [LedgerEntry] {
        var entries: [LedgerEntry] = []
        hear(response.epoch)
        if response.epoch ?? epoch >= epoch { acknowledge(report.leases) }
        mustReportFirst = false
        let said = Set(report.acknowledgedFinals)
        finalsToAcknowledge.removeAll { said.contains($0) }
        for final in response.finals.prefix(LedgerLimits.finalsPerMessageMax) {
            if let entry = finalEntry(final) {
                entries.append(entry)
                childFinal(final.key, consumed: final.consumed)
            }
            // Known or new, from here on it is in the journal.
            if finalsToAcknowledge.count < LedgerLimits.finalsToReportMax {
                finalsToAcknowledge.append(final.key)
            }
        }
        entries += takeWrittenOff(response.writtenOff ?? [])
        for state in response.states { apply(state) }
        entries += recall(response.recalls, now: now)
        entries += disown(response.unknown, serial: report.serial)
        releaseLowered(&entries)
        entries += forgetClosed()
        return entries
    }

    /// Whoever these children were addressed to will never say what they cost: all of it.
    private mutating func takeWrittenOff(_ children: [ChildKey]) -> [LedgerEntry] {
        children.prefix(LedgerLimits.inquiriesPerMessageMax).compactMap { key in
            guard let amount = amount(of: Reservation(number: key.child)),
                let entry = finalEntry(ChildFinal(key: key, consumed: amount))
            else { return nil }
            childFinal(key, consumed: amount)
            return entry
        }
    }

    /// Somebody needs the money of these leases (rule 9): what is free of them goes back, whether
    /// it lies idle or not, and for a while what comes free of them later. The entries must be
    /// committed before `takeDemands` or a report says so.
    package mutating func recall(_ recalled: [LeaseID], now: UInt64) -> [LedgerEntry] {
        var entries: [LedgerEntry] = []
        guard !isPlanted(.recallsAreIgnored) else { return entries }
        for id in recalled.prefix(LedgerLimits.leasesPerMessageMax) {
            guard let lease = leaseIndex[id] else { continue }
            guard accounts[Int(leases[Int(lease)].account)].key.scope != .standby else {
                shareStandby(lease, now: now, &entries)
                continue
            }
            release(lease, leases[Int(lease)].free, &entries)
            let account = leases[Int(lease)].account
            accounts[Int(account)].wantedUntil = now &+ LedgerLimits.wantedNanoseconds
            giveBackSoon(account)
        }
        return entries
    }

    package func finalEntry(_ final: ChildFinal) -> LedgerEntry? {
        isOpenChild(final.key)
            ? .childFinal(number: final.key.child, consumed: max(0, final.consumed.rawValue)) : nil
    }

    mutating func acknowledge(_ counters: [LeaseCounters]) {
        for counter in counters {
            guard let slot = leaseIndex[counter.lease] else { continue }
            let row = leases[Int(slot)]
            leases[Int(slot)].acknowledgedConsumed = max(
                row.acknowledgedConsumed, counter.consumed.rawValue)
            leases[Int(slot)].acknowledgedReleased = max(
                row.acknowledgedReleased, counter.released.rawValue)
        }
    }

    /// A closed lease goes when the store has its last counters: then the store's watermark keeps
    /// its number from being used again.
    private mutating func forgetClosed() -> [LedgerEntry] {
        var entries: [LedgerEntry] = []
        for index in leases.indices {
            let row = leases[index]
            guard row.account != noSlot, row.isClosed, row.isAcknowledged, !row.isLocal else {
                continue
            }
            remember(image(of: UInt32(index)))
            removeLease(UInt32(index))
            entries.append(.leaseForgotten(slot: UInt32(index)))
        }
        return entries
    }

    private mutating func remember(_ closed: LeaseImage) {
        if forgottenOrder.count < LedgerLimits.forgottenLeasesMax {
            forgottenOrder.append(closed.id)
        } else {
            forgotten.removeValue(forKey: forgottenOrder[nextForgotten])
            forgottenOrder[nextForgotten] = closed.id
            nextForgotten = (nextForgotten + 1) % LedgerLimits.forgottenLeasesMax
        }
        forgotten[closed.id] = closed
    }

    /// A lease that was closed, that the store knew to be closed, and does not know so any more:
    /// its last counters are reported once more (rule 12).
    private mutating func recollect(_ lease: LeaseID) -> LedgerEntry? {
        guard var image = forgotten[lease] else { return nil }
        image.slot = noSlot
        return insertLease(image, expiresAt: 0).map { .lease(self.image(of: $0)) }
    }

    /// Rule 5: what the store has open and this holder does not know is given back whole. Such a
    /// lease comes of an acquire that was answered after this process, or its predecessor, had
    /// stopped asking; nothing was ever spent of it, because spending needs the journaled grant.
    ///
    /// An answer may be old: at its report's time the lease may have been asked for, then granted,
    /// spent and closed before the answer came. So one answer only makes a suspect; when the answer
    /// to a report that was made after that names it again, it was open at the store at a time when
    /// nobody here could have it any more.
    private mutating func disown(_ unknown: [UnknownLease], serial: UInt64) -> [LedgerEntry] {
        var entries: [LedgerEntry] = []
        var named: [LeaseID: UInt64] = [:]
        for lease in unknown.prefix(LedgerLimits.leasesPerMessageMax) {
            let number = lease.lease.number
            if leaseIndex[lease.lease] == nil, let entry = recollect(lease.lease) {
                entries.append(entry)
                continue
            }
            guard lease.lease.incarnation >= wholeSince, leaseIndex[lease.lease] == nil,
                lease.consumed == .zero,
                lease.granted > .zero, lease.granted <= .limitMax,
                lease.lease.incarnation != incarnation || pendingIndex[number] == nil
            else { continue }
            guard
                let first = isPlanted(.oneAnswerDisowns) ? 0 : suspects[lease.lease],
                serial > first
            else {
                named[lease.lease] = suspects[lease.lease] ?? reportSerial
                continue
            }
            let image = LeaseImage(
                slot: noSlot, id: lease.lease, account: lease.account,
                granted: lease.granted.rawValue, consumed: 0, released: lease.granted.rawValue,
                isLocal: false)
            guard let slot = insertLease(image, expiresAt: 0) else { continue }
            entries.append(.lease(self.image(of: slot)))
        }
        suspects = named
        return entries
    }
}

extension LeaseBook {
    /// A lease with more spent, set aside and given back than was granted, if there is one: what a
    /// simulation asks after each step.
    package func overdrawnLease() -> LeaseID? {
        leases.first {
            $0.account != noSlot && $0.consumed + $0.outstanding + $0.released > $0.granted
        }?.id
    }

    package func knows(_ lease: LeaseID) -> Bool { leaseIndex[lease] != nil }

    /// The lease of its last account: what a simulation asks of each reservation.
    package func lastLease(of reservation: Reservation) -> LeaseID? {
        guard let slot = reservations.find(reservation.number), reservations[slot].legCount > 0
        else { return nil }
        let row = reservations[slot]
        return leases[Int(row.legs[Int(row.legCount) - 1])].id
    }

    /// Children that are open, by name: what a report or an operator lists.
    package func openChildren() -> [ChildKey] {
        reservations.rows.filter { $0.phase == .child }
            .compactMap { key(of: Reservation(number: $0.number)) }
            .sorted { $0.child < $1.child }
    }
}
