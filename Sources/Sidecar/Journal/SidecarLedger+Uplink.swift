import Synchronization
import WeirCore
import WeirLedger
import WeirMeshProtocol

// The uplink's calls, from the control thread.

extension SidecarLedger {
    /// Called from any thread when there is something for `takeDemands`.
    package func onDemand(_ wake: @escaping @Sendable () -> Void) {
        state.withLock { $0.onDemand = wake }
    }

    package struct Demands: Sendable {
        package let request: LeasesRequest
        /// Give it back with the answer: leases count their time from before the asking.
        package let sentAt: UInt64
        /// Come again then, also without a call of `onDemand`; on CLOCK_BOOTTIME.
        package let nextAt: UInt64?

        package var isEmpty: Bool { request.acquire.isEmpty && request.release.isEmpty }
    }

    /// What to ask for now; everything in it is journaled. Each one that is not empty is either
    /// answered (`apply`) or has failed (`requestFailed`).
    package func takeDemands() -> Demands {
        let now = Self.bootTime()
        return state.withLock { state in
            state.isDemandSaid = false
            let empty = Demands(
                request: LeasesRequest(acquire: [], release: []), sentAt: now,
                nextAt: now &+ LedgerLimits.denialNanosecondsMax)
            guard state.settleDebts() else { return empty }
            let (request, entries, nextAt) = state.book.takeDemands(now: now)
            guard state.commit(entries) else {
                state.book.requestFailed(request)
                return empty
            }
            return Demands(request: request, sentAt: now, nextAt: nextAt)
        }
    }

    /// What to ask for together with who the caller is, to whom these accounts may belong
    /// (`LeaseBook.takeOpening`); answered or failed as other demands.
    package func takeOpening(_ accounts: [AccountTerms]) -> Demands {
        let now = Self.bootTime()
        return state.withLock { state in
            let nothing = Demands(
                request: LeasesRequest(acquire: [], release: []), sentAt: now, nextAt: nil)
            guard state.isAlive, state.settleDebts() else { return nothing }
            let (request, entries) = state.book.takeOpening(accounts, now: now)
            guard state.commit(entries) else {
                state.book.requestFailed(request)
                return nothing
            }
            return Demands(request: request, sentAt: now, nextAt: nil)
        }
    }

    package func requestFailed(_ demands: Demands) {
        state.withLock { $0.book.requestFailed(demands.request) }
    }

    package func apply(_ response: LeasesResponse, to demands: Demands) {
        let now = Self.bootTime()
        let calls = state.withLock { state -> [@Sendable () -> Void] in
            let entries = state.book.apply(
                response, to: demands.request, sentAt: demands.sentAt, now: now)
            _ = state.commit(entries)
            return state.callsToMake()
        }
        for call in calls { call() }
    }

    package struct LedgerReports: Sendable {
        package let ledger: LedgerReport
        package let childFinals: [ChildFinal]

        package func report(health: SidecarHealth) -> Report {
            Report(
                highestLease: ledger.highestLease, leases: ledger.leases, childFinals: childFinals,
                acknowledgedFinals: ledger.acknowledgedFinals, openChildren: ledger.openChildren,
                health: health, epoch: ledger.epoch)
        }
    }

    /// Gives back what is free of these leases, because somebody else needs it (rule 9).
    package func recall(_ leases: [LeaseID]) {
        let now = Self.bootTime()
        let demand = state.withLock { state -> (@Sendable () -> Void)? in
            // While something is unwritten nothing is said, so nothing need be given back either.
            guard state.isAlive, state.settleDebts() else { return nil }
            _ = state.commit(state.book.recall(leases, now: now))
            return state.demandToSay()
        }
        demand?()
    }

    /// Gives back what is idle or expired, and says what was spent; at least once a second. `nil`:
    /// the log cannot be written, so nothing may be said.
    package func makeReport(wall: UnixTime = SidecarLedger.wallTime()) -> LedgerReports? {
        let now = Self.bootTime()
        let (reports, demand) = state.withLock {
            state -> (LedgerReports?, (@Sendable () -> Void)?) in
            guard state.isAlive, state.settleDebts() else { return (nil, nil) }
            state.book.askAhead(wall: wall, now: now)
            let entries = state.book.endMinutes(wall: wall) + state.book.maintain(now: now)
            guard state.commit(entries) else { return (nil, nil) }
            let reports = LedgerReports(
                ledger: state.book.makeReport(), childFinals: state.delegations.finalsToReport())
            return (reports, state.demandToSay())
        }
        demand?()
        return reports
    }

    package func apply(_ response: ReportResponse, to reports: LedgerReports) {
        let now = Self.bootTime()
        let calls = state.withLock { state -> [@Sendable () -> Void] in
            state.delegations.finalsReported(reports.childFinals)
            let entries = state.book.apply(response, to: reports.ledger, now: now)
            _ = state.commit(entries + state.answer(response.inquiries))
            return state.callsToMake()
        }
        for call in calls { call() }
    }

    // MARK: Records

    /// Incarnations whose records are in the log, oldest first, with the last one known stored.
    package func recordBlocks(
        of incarnation: Incarnation, after sequence: UInt64,
        max: Int = MeshLimits.blocksPerMessageMax
    ) -> [RecordBlock] {
        let (segments, end) = state.withLock { ($0.journal.segments, $0.journal.end) }
        return recordReader.withLock {
            $0.blocks(
                of: incarnation, after: sequence, max: max, segments: segments, end: end)
        }
    }

    /// Lives that wrote records which are still in the log, oldest first.
    package func recordIncarnations() -> [Incarnation] {
        state.withLock { state in
            var all = Set(state.journal.segments.flatMap { $0.lastSequences.keys })
            if let incarnation = state.book.incarnation { all.insert(incarnation) }
            return all.sorted()
        }
    }

    /// Everything of this incarnation up to this sequence is kept elsewhere: segments that only
    /// waited for it go.
    package func recordsStored(of incarnation: Incarnation, through sequence: UInt64) {
        state.withLock { state in
            state.stored[incarnation] = max(state.stored[incarnation] ?? 0, sequence)
            let stored = state.stored
            guard !state.isStandalone else { return }
            state.journal.prune { life, last in last <= stored[life] ?? 0 }
        }
    }

    // MARK: What the metrics show

    package struct Gauges: Sendable {
        package let journalBytes: Int64
        /// What can be written before the helper thread has to prepare more.
        package let bytesReady: Int
        package let nextSequence: UInt64
        package let openReservations: Int
        /// Leases whose counters no answered message carried yet.
        package let unreportedLeases: Int
        package let openDelegations: Int
        /// Finals of others' delegations that no answered report carried yet.
        package let unreportedFinals: Int
        /// They are as many as this process keeps: no delegation is accepted until a report is
        /// answered.
        package let acceptsDelegations: Bool
        /// Accounts known here of which `nearlySpentPercent` is spent.
        package let accountsNearlySpent: Int
        package let deferredEndings: Int
        package let journalFailure: JournalError?
    }

    /// From here on the taper prefers cheaper agents.
    package static let nearlySpentPercent: Int64 = 80

    package func gauges() -> Gauges {
        state.withLock { state in
            Gauges(
                journalBytes: state.journal.byteCount, bytesReady: state.journal.bytesReady,
                nextSequence: state.nextSequence,
                openReservations: state.book.openCount,
                unreportedLeases: state.book.unreportedCount,
                openDelegations: state.delegations.openCount,
                unreportedFinals: state.delegations.finals.count,
                acceptsDelegations: !state.delegations.isFull,
                accountsNearlySpent: state.book.accountsSpent(percent: Self.nearlySpentPercent),
                deferredEndings: state.deferred.count, journalFailure: state.journal.failure)
        }
    }
}

extension SidecarLedger.State {
    /// Only of lives whose log is whole: another one may have accepted what is missing here, and
    /// then the child stays outstanding until somebody writes it off.
    fileprivate mutating func answer(_ inquiries: [OpenChild]) -> [LedgerEntry] {
        let keys = inquiries.filter { book.isWhole(of: $0.audience) }.map(\.key)
        return delegations.answer(keys)
    }
}
