import WeirCore

/// Who lives, who speaks for the dead, and which finals wait for their parents: the rest of the
/// store's side, as a pure state machine.
package struct IncarnationBook: Sendable {
    private var last: Int64 = 0
    /// Predecessor → the one successor that adopted its leases.
    package private(set) var adoptedBy: [Incarnation: Incarnation] = [:]
    /// Their leases count as spent, and so do delegations that were addressed to them.
    private var writtenOff: Set<Incarnation> = []
    /// Those that lease, were not adopted and not written off.
    private var living: Set<Incarnation> = []
    /// The number of the epoch; it grows.
    package private(set) var epoch: Int64 = 0
    /// When it began, by the store's clock.
    private var began = UnixTime(milliseconds: 0)
    /// Those that have not reported in this epoch, or whoever adopted them.
    package private(set) var missing: Set<Incarnation> = []
    /// By the incarnation in the lease's id.
    private var finals: [Incarnation: [ChildKey: NanoUSD]] = [:]
    /// By the life that is to answer: questions that no report of it fetched yet.
    private var inquiries: [Incarnation: Set<OpenChild>] = [:]

    package init() {}

    /// A number that is never used twice, also not by a store that lost the last ones in a
    /// failover: `clock`, in ms since some day, is ahead of all that were handed out, unless more
    /// than a thousand processes a second have joined.
    package mutating func join(clock: Int64 = 0, leases: Bool = true) -> Incarnation {
        last = max(last + 1, clock)
        let incarnation = Incarnation(last)
        if leases { living.insert(incarnation) }
        return incarnation
    }

    /// Whether another state of this book knows of lives or adoptions that this one does not.
    package func isBehind(_ other: IncarnationBook) -> Bool {
        last < other.last || adoptedBy.count < other.adoptedBy.count
    }

    /// Once, by compare-and-set (rule 8); repeating it for the same successor is a success. That
    /// the successor holds the predecessor's journal is the caller's to check.
    package mutating func adopt(_ predecessor: Incarnation, by successor: Incarnation) -> Bool {
        guard predecessor < successor, successor.rawValue <= last, predecessor.rawValue > 0 else {
            return false
        }
        guard !writtenOff.contains(predecessor) else { return false }
        if let earlier = adoptedBy[predecessor], !isPlanted(.everybodyAdopts) {
            return earlier == successor
        }
        adoptedBy[predecessor] = successor
        living.remove(predecessor)
        // Whoever adopts has to report in its place.
        if missing.remove(predecessor) != nil { missing.insert(successor) }
        return true
    }

    /// Whether `holder` may say what a lease of `owner` consumed and gave back: its own, or one
    /// that came to it by adoption, over any number of lives. The dead may speak late: counters
    /// only grow, and whatever they said was journaled before, so their successor says it too.
    package func mayReport(leaseOf owner: Incarnation, by holder: Incarnation) -> Bool {
        var current = owner
        while current != holder {
            guard let next = adoptedBy[current] else { return false }
            current = next
        }
        return true
    }

    /// Nothing new is granted to an incarnation that was adopted: an acquire that was under way
    /// when it died would make a lease that nobody knows.
    package func mayAcquire(_ incarnation: Incarnation) -> Bool {
        adoptedBy[incarnation] == nil && !writtenOff.contains(incarnation)
            && (1...max(1, last)).contains(incarnation.rawValue)
            && !missing.contains(incarnation)
    }

    /// The accounts' part is `AccountBook.writeOff`. Whoever is written off and lives all the same
    /// is granted nothing more and cannot be adopted: it joins anew.
    package mutating func writeOff(_ incarnation: Incarnation) {
        writtenOff.insert(incarnation)
        living.remove(incarnation)
        missing.remove(incarnation)
    }

    // MARK: Epochs

    /// Writes may have been lost: everybody has to say again what it has (rule 12).
    package mutating func epochBegins(after number: Int64, at now: UnixTime) {
        epoch = max(epoch, number) + 1
        began = now
        missing = living
    }

    /// `inEpoch`: the epoch that the holder had heard of when it listed all that it has; `nil` from
    /// one that does not say.
    package mutating func reported(_ holder: Incarnation, inEpoch said: Int64?) {
        guard said == nil || said == epoch || isPlanted(.oldReportsCount) else { return }
        missing.remove(holder)
    }

    /// Holders for which `maxLease` of an account of this period is withheld.
    package func missing(in period: Period) -> Int {
        Self.mayBeLost(period, epochBegan: began) ? missing.count : 0
    }

    /// Whether leases of a period may have been granted before an epoch began. Those of one that
    /// began later were not: nothing is leased earlier than `nextPeriodMilliseconds` ahead.
    package static func mayBeLost(_ period: Period, epochBegan: UnixTime) -> Bool {
        let latest =
            epochBegan.milliseconds + LedgerLimits.nextPeriodMilliseconds
            + LedgerLimits.storeClocksMilliseconds
        return period.end == nil || period.beginning.milliseconds <= latest
    }

    /// The newest life that continues a log.
    package func newestLife(of incarnation: Incarnation) -> Incarnation {
        var current = incarnation
        while let next = adoptedBy[current] { current = next }
        return current
    }

    // MARK: Finals of children

    /// Kept until the parent says that it has it. A child says so once for good, so a repetition
    /// changes nothing.
    package mutating func finalReported(_ final: ChildFinal) {
        let parent = final.key.lease.incarnation
        let known = finals[parent]?[final.key] ?? .zero
        finals[parent, default: [:]][final.key] = max(known, final.consumed)
    }

    package mutating func finalsAcknowledged(_ keys: [ChildKey], by holder: Incarnation) {
        for key in keys where mayReport(leaseOf: key.lease.incarnation, by: holder) {
            finals[key.lease.incarnation]?.removeValue(forKey: key)
        }
    }

    /// A parent asks about its own children. The question goes to the newest life that adopted the
    /// audience's log; whoever has no final by the next report asks again, so questions may get
    /// lost and are taken away when they are fetched. Answers those whose audience was written off:
    /// nobody else will ever say what they cost.
    @discardableResult
    package mutating func ask(_ children: [OpenChild], by holder: Incarnation) -> [ChildKey] {
        var lost: [ChildKey] = []
        for child in children {
            let parent = child.key.lease.incarnation
            guard mayReport(leaseOf: parent, by: holder), finals[parent]?[child.key] == nil else {
                continue
            }
            let asked = newestLife(of: child.audience)
            guard !writtenOff.contains(asked), !writtenOff.contains(child.audience) else {
                lost.append(child.key)
                continue
            }
            guard inquiries[asked, default: []].count < LedgerLimits.inquiriesPerMessageMax else {
                continue
            }
            inquiries[asked, default: []].insert(child)
        }
        return lost
    }

    package mutating func takeInquiries(for holder: Incarnation) -> [OpenChild] {
        (inquiries.removeValue(forKey: holder) ?? [])
            .sorted { ($0.key.lease, $0.key.child) < ($1.key.lease, $1.key.child) }
    }

    package func finals(for holder: Incarnation) -> [ChildFinal] {
        finals.filter { mayReport(leaseOf: $0.key, by: holder) }
            .flatMap { $0.value.map { ChildFinal(key: $0.key, consumed: $0.value) } }
            .sorted { ($0.key.lease, $0.key.child) < ($1.key.lease, $1.key.child) }
            .prefix(LedgerLimits.finalsPerMessageMax).map { $0 }
    }
}
