import WeirCore

/// Which delegations of one issuer were accepted. The numbers of an issuer's children only grow, so
/// a bitmap over the last 65,536 of them is the whole memory: what is older is refused, for nobody
/// can say any more that it is new.
package struct IssuerWindow: Hashable, Sendable {
    package var issuer: Incarnation
    package private(set) var highest: Int64 = 0
    /// Orders windows by their last acceptance; not kept on disk, where the order says it.
    fileprivate var usedAt: UInt64 = 0
    /// Bit `number % childWindow`: accepted, for the numbers in (highest − childWindow, highest].
    package private(set) var bits: ContiguousArray<UInt64>

    package init(issuer: Incarnation) {
        self.issuer = issuer
        bits = ContiguousArray(repeating: 0, count: LedgerLimits.childWindow / 64)
    }

    /// From a journal; `nil` when the sizes are none.
    package init?(issuer: Incarnation, highest: Int64, bits: ContiguousArray<UInt64>) {
        guard highest >= 0, bits.count == LedgerLimits.childWindow / 64 else { return nil }
        self.issuer = issuer
        self.highest = highest
        self.bits = bits
    }

    private func place(_ number: Int64) -> (word: Int, mask: UInt64) {
        let bit = Int(truncatingIfNeeded: number) & (LedgerLimits.childWindow - 1)
        return (bit >> 6, 1 << UInt64(bit & 63))
    }

    package func isNew(_ number: Int64) -> Bool {
        guard number > 0, number < .max / 2 else { return false }
        guard number <= highest else { return true }
        guard highest - number < Int64(LedgerLimits.childWindow) else { return false }
        let (word, mask) = place(number)
        return bits[word] & mask == 0
    }

    /// Too old for the window to tell whether it was accepted.
    func isPast(_ number: Int64) -> Bool {
        number > 0 && number <= highest - Int64(LedgerLimits.childWindow)
    }

    package mutating func insert(_ number: Int64) {
        if number > highest {
            if number - highest >= Int64(LedgerLimits.childWindow) {
                for word in bits.indices { bits[word] = 0 }
            } else {
                // What leaves the window makes room for what comes in.
                for skipped in (highest + 1)...number {
                    let (word, mask) = place(skipped)
                    bits[word] &= ~mask
                }
            }
            highest = number
        }
        let (word, mask) = place(number)
        bits[word] |= mask
    }
}

/// The agent's side: delegations that others gave to this sidecar. Each is accepted once, is open
/// until its attempt's record is written, and its final is reported until an answer says that it is
/// kept.
package struct DelegationBook: Sendable {
    private var windows: ContiguousArray<IssuerWindow> = []
    private var open = ReservationTable()
    private var details: ContiguousArray<AcceptedDelegation> = []
    private var acceptedCount: UInt64 = 0
    /// Windows of issuers up to this incarnation may have been given up.
    private var forgottenThrough = Incarnation(-1)
    package private(set) var finals: ContiguousArray<ChildFinal> = []
    /// The newest finals that the store said to have: should it lose them in a failover, their
    /// parents ask again. In memory only.
    private var kept: [ChildKey: NanoUSD] = [:]
    private var keptOrder: ContiguousArray<ChildKey> = []
    private var nextKept = 0

    package init() {}

    package enum Answer: Hashable, Sendable {
        case accepted(AcceptedDelegation)
        /// It was accepted before, or is too old to tell.
        case repeated
        /// A table is full: nothing was changed.
        case full
    }

    /// The entry (`accepted`) must be committed before the first byte goes upstream.
    package mutating func accept(
        _ key: ChildKey, issuer: Incarnation, amount: NanoUSD, names: RecordNames = RecordNames()
    ) -> Answer {
        guard let window = window(of: issuer) else { return .full }
        guard windows[window].isNew(key.child) || isPlanted(.delegationsRepeat), amount >= .zero
        else { return .repeated }
        guard !isFull else { return .full }
        take(key.child, window)
        let slot = open.insert()
        let accepted = AcceptedDelegation(
            number: open[slot].number, issuer: issuer, key: key, amount: amount.rawValue,
            names: names)
        remember(accepted, slot)
        return .accepted(accepted)
    }

    /// Ends it; the caller commits its record first. From then on the final is reported.
    @discardableResult
    package mutating func settle(_ number: Int64, cost: NanoUSD) -> ChildFinal? {
        guard let slot = open.find(number), let accepted = details(slot) else { return nil }
        open.remove(slot)
        let final = ChildFinal(key: accepted.key, consumed: max(.zero, cost))
        finals.append(final)
        return final
    }

    package func find(_ number: Int64) -> AcceptedDelegation? {
        open.find(number).flatMap { details($0) }
    }

    package var openCount: Int { open.count }

    /// More finals wait to be reported than this process keeps: nothing is accepted until a report
    /// is answered.
    package var isFull: Bool {
        finals.count + open.count >= LedgerLimits.finalsToReportMax || open.isFull
    }

    /// In the order in which they were accepted.
    package var openDelegations: [AcceptedDelegation] {
        open.rows.indices.filter { open.rows[$0].number != 0 }.compactMap { details($0) }
            .sorted { $0.number < $1.number }
    }

    package func finalsToReport() -> [ChildFinal] {
        Array(finals.prefix(LedgerLimits.finalsPerMessageMax))
    }

    /// An answered report carried these.
    package mutating func finalsReported(_ reported: [ChildFinal]) {
        let stored = Set(reported)
        var through = 0
        while through < finals.count, stored.contains(finals[through]) {
            keep(finals[through])
            through += 1
        }
        finals.removeFirst(through)
    }

    private mutating func keep(_ final: ChildFinal) {
        guard kept.updateValue(final.consumed, forKey: final.key) == nil else { return }
        guard keptOrder.count >= LedgerLimits.finalsKeptMax else {
            return keptOrder.append(final.key)
        }
        kept.removeValue(forKey: keptOrder[nextKept])
        keptOrder[nextKept] = final.key
        nextKept = (nextKept + 1) % LedgerLimits.finalsKeptMax
    }

    /// `nil`: an issuer that may have been forgotten.
    private mutating func window(of issuer: Incarnation) -> Int? {
        if let index = windows.firstIndex(where: { $0.issuer == issuer }) { return index }
        guard issuer > forgottenThrough else { return nil }
        // A restarted gateway is a new issuer, so the longest silent one is most likely dead. From
        // then on nobody can tell its new delegations from repeated ones, nor those of other
        // unknown issuers as old: they are refused.
        if windows.count >= LedgerLimits.issuersMax,
            let silent = windows.indices.min(by: { windows[$0].usedAt < windows[$1].usedAt })
        {
            forgottenThrough = max(forgottenThrough, windows[silent].issuer)
            windows.remove(at: silent)
            guard issuer > forgottenThrough else { return nil }
        }
        windows.append(IssuerWindow(issuer: issuer))
        return windows.count - 1
    }

    private mutating func take(_ child: Int64, _ window: Int) {
        acceptedCount += 1
        windows[window].usedAt = acceptedCount
        windows[window].insert(child)
    }

    private mutating func remember(_ accepted: AcceptedDelegation, _ slot: Int) {
        if details.count < open.rows.count {
            rebuildDetails()
        }
        details[slot] = accepted
    }

    private func details(_ slot: Int) -> AcceptedDelegation? {
        guard slot < details.count, details[slot].number == open[slot].number else { return nil }
        return details[slot]
    }

    /// The table grew: each row moves to where its number leads now.
    private mutating func rebuildDetails() {
        let none = AcceptedDelegation(
            number: 0, issuer: Incarnation(0),
            key: ChildKey(lease: LeaseID(incarnation: Incarnation(0), number: 0), child: 0),
            amount: 0)
        var larger = ContiguousArray(repeating: none, count: open.rows.count)
        for row in details where row.number != 0 {
            if let slot = open.find(row.number) { larger[slot] = row }
        }
        details = larger
    }
}

// Questions of parents about children whose answers they miss.

extension DelegationBook {
    /// What is still open gets its final when it settles, and a final that is known here is
    /// reported until it is kept: about both there is nothing to say. One that was kept and is
    /// asked for all the same is reported again. What never came is refused from here on, and its
    /// final is zero. The entries must be committed before a report says so.
    ///
    /// Of a child too old to tell whether it was accepted, zero is said too: if it was, then its
    /// true final has been kept before it could leave this book, and the larger one counts.
    package mutating func answer(_ inquiries: [ChildKey]) -> [LedgerEntry] {
        guard !inquiries.isEmpty else { return [] }
        var known = Set(openDelegations.map(\.key)).union(finals.map(\.key))
        var entries: [LedgerEntry] = []
        for key in inquiries.prefix(LedgerLimits.inquiriesPerMessageMax) {
            guard finals.count + open.count < LedgerLimits.finalsToReportMax else { break }
            if !known.contains(key), let consumed = kept[key] {
                let final = ChildFinal(key: key, consumed: consumed)
                finals.append(final)
                known.insert(key)
                entries.append(.final(final))
                continue
            }
            let isFinal = !known.contains(key) && mayRefuse(key)
            guard isFinal || isPlanted(.zeroWhileOpen), refuse(key) else { continue }
            known.insert(key)
            entries.append(.refused(key))
        }
        return entries
    }

    /// Not one that its window has as accepted, or as refused already: the store has its final.
    private func mayRefuse(_ key: ChildKey) -> Bool {
        guard let window = windows.first(where: { $0.issuer == key.issuer }) else { return true }
        return window.isNew(key.child) || window.isPast(key.child)
    }

    /// `false`: it is no number of a child.
    private mutating func refuse(_ key: ChildKey) -> Bool {
        guard key.child > 0, key.child < .max / 2 else { return false }
        // Without a window, or before it, nothing can be accepted anyway.
        if let window = window(of: key.issuer), windows[window].isNew(key.child),
            !isPlanted(.refusedIsAcceptedLater)
        {
            take(key.child, window)
        }
        finals.append(ChildFinal(key: key, consumed: .zero))
        return true
    }
}

extension DelegationBook {
    package var nextNumber: Int64 { open.nextNumber }

    package func snapshot() -> [LedgerEntry] {
        [.forgottenIssuers(through: forgottenThrough)]
            + windows.sorted { $0.usedAt < $1.usedAt }.map { .window($0) }
            + openDelegations.map { .accepted($0) }
            + finals.map { .final($0) }
    }

    /// As `LeaseBook.replay`.
    package mutating func replay(_ entry: LedgerEntry) -> Bool {
        switch entry {
        case .numbers(_, let next):
            guard next > 0, next < .max / 2 else { return false }
            open.skipNumbers(below: next)
        case .window(let window):
            guard !windows.contains(where: { $0.issuer == window.issuer }),
                windows.count < LedgerLimits.issuersMax
            else { return false }
            acceptedCount += 1
            windows.append(window)
            windows[windows.count - 1].usedAt = acceptedCount
        case .forgottenIssuers(let through): forgottenThrough = max(forgottenThrough, through)
        case .accepted(let accepted):
            guard accepted.amount >= 0, let slot = open.insert(number: accepted.number) else {
                return false
            }
            // A forgotten issuer's may still be open in a snapshot.
            if let window = window(of: accepted.issuer), !isPlanted(.replayForgetsTheWindow) {
                take(accepted.key.child, window)
            }
            remember(accepted, slot)
        case .delegationSettled(let number, let cost):
            guard cost >= 0 else { return false }
            return settle(number, cost: NanoUSD(cost)) != nil
        case .refused(let key):
            return refuse(key)
        case .final(let final):
            guard finals.count < LedgerLimits.finalsToReportMax else { return false }
            finals.append(final)
        case .life, .leaseNumbers, .lease, .leaseForgotten, .released, .account, .opened,
            .childFinal, .settled, .useEnded, .spent:
            return true
        }
        return true
    }
}
