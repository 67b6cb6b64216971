import Testing
import WeirCore
import WeirLedger

private let second: UInt64 = 1_000_000_000
private let start: UInt64 = 1_000 * second
private let march = UnixTime(CivilDate(year: 2026, month: 3, day: 10))

private func terms(
    _ id: String = "alice", scope: AccountKey.Scope = .user, limit: Int64 = 10_000,
    maxLease: Int64 = 1_000
) -> AccountTerms {
    AccountTerms(
        key: AccountKey(unit: .usd, scope: scope, period: Period(.month, at: march), id: id),
        limit: NanoUSD(limit), maxLease: NanoUSD(maxLease), policyNumber: 1)
}

/// A holder with a store behind it that is always there.
private struct Holder {
    var book = LeaseBook()
    var accounts: [AccountKey: AccountBook] = [:]
    var log: [LedgerEntry] = []
    var now = start

    init(incarnation: Int64 = 1) {
        log.append(book.begin(Incarnation(incarnation), mayRelease: false))
    }

    /// A process that has read this log and has not begun.
    init(replaying log: [LedgerEntry]) {
        for entry in log { _ = book.replay(entry) }
        book.replayed()
        self.log = log
    }

    /// With a lease of which something is spent.
    static func grown() throws -> Holder {
        var holder = Holder()
        let done = try holder.opened(100)
        guard let entry = holder.book.finalEntry(ChildFinal(key: done, consumed: NanoUSD(70)))
        else { throw Refused() }
        holder.log.append(entry)
        holder.book.childFinal(done, consumed: NanoUSD(70))
        return holder
    }

    /// What was sent, for tests that look at it.
    @discardableResult
    mutating func ask(limit: Int64 = 10_000, maxLease: Int64 = 1_000) -> LeasesRequest {
        let (request, entries, _) = book.takeDemands(now: now)
        log += entries
        for counters in request.release {
            accounts[counters.account]?.report(counters, by: counters.lease.incarnation)
        }
        var response = LeasesResponse(grants: [])
        for acquire in request.acquire {
            var account =
                accounts[acquire.account]
                ?? AccountBook(account: acquire.account, limit: NanoUSD(limit), policyNumber: 1)
            response.grants.append(
                account.acquire(
                    acquire,
                    terms: .init(
                        limit: NanoUSD(limit), policyNumber: 1, maxLease: NanoUSD(maxLease),
                        now: march)))
            accounts[acquire.account] = account
        }
        log += book.apply(response, to: request, sentAt: now, now: now)
        return request
    }

    mutating func reserve(
        _ amount: Int64, least: Int64 = 0, _ all: AccountTerms...
    ) -> ReserveOutcome {
        let payer = book.payer(for: all.isEmpty ? [terms()] : all, now: now)
        return payer.map {
            book.reserve($0, amount: NanoUSD(amount), least: NanoUSD(least), now: now)
        } ?? .journalFull
    }

    /// As a user whose tier only observes.
    mutating func observing(_ amount: Int64) throws -> (Reservation, beyond: AccountKey?) {
        let made = book.payer(for: [terms()], observes: true, now: now)
        let payer = try #require(made)
        for _ in 0..<2 {
            let outcome = book.reserve(payer, amount: NanoUSD(amount), least: .zero, now: now)
            if case .reserved(let reservation) = outcome {
                return (reservation, book.accountBeyond(payer, for: NanoUSD(amount)))
            }
            ask()
        }
        throw Refused()
    }

    mutating func reserved(
        _ amount: Int64, least: Int64 = 0, _ all: AccountTerms...
    ) throws -> Reservation {
        guard let payer = book.payer(for: all.isEmpty ? [terms()] : all, now: now) else {
            throw Refused()
        }
        for _ in 0..<2 {
            let outcome = book.reserve(
                payer, amount: NanoUSD(amount), least: NanoUSD(least), now: now)
            if case .reserved(let reservation) = outcome { return reservation }
            ask()
        }
        throw Refused()
    }

    mutating func opened(_ amount: Int64, least: Int64 = 0) throws -> ChildKey {
        let reservation = try reserved(amount, least: least)
        guard let opened = book.open(reservation, as: .child, audience: Incarnation(9))
        else { throw Refused() }
        log.append(.opened(opened))
        return try #require(book.key(of: reservation))
    }
}

private struct Refused: Error {}

@Suite struct LeaseBookTests {
    @Test func accountsThatAreNearlySpentAreCounted() throws {
        var holder = Holder()
        #expect(holder.book.accountsSpent(percent: 1) == 0)
        for cost: Int64 in [700, 90] {
            let reservation = try holder.reserved(cost)
            let opened = holder.book.open(reservation, as: .attempt)
            let isSettled = holder.book.settle(reservation, cost: NanoUSD(cost))
            #expect(opened != nil && isSettled)
        }
        // 790 of 10,000.
        #expect(holder.book.accountsSpent(percent: 8) == 0)
        #expect(holder.book.accountsSpent(percent: 7) == 1)
        // Half of a run's money is no news.
        let run = terms("run_1", scope: .run)
        _ = try holder.reserved(500, run)
        #expect(holder.book.accountsSpent(percent: 0) == 1)
    }

    @Test func aReservationNeedsALeaseOnEveryAccountOrTakesNone() throws {
        var holder = Holder()
        let both = [terms(), terms("acme", scope: .tenant)]
        _ = try holder.reserved(400)
        let outcome = holder.reserve(400, both[0], both[1])
        #expect(outcome == .needsLease)
        // The user's lease was not touched: all of it is still there.
        #expect(holder.book.openCount == 1)
        holder.ask()
        _ = try holder.reserved(400, both[0], both[1])
        #expect(holder.book.overdrawnLease() == nil && holder.book.openCount == 2)
    }

    @Test func whoIsOnlyWatchedGoesBeyondTheLimit() throws {
        var holder = Holder()
        for number in 0..<12 {
            let (reservation, beyond) = try holder.observing(1_000)
            // Ten times 1,000 is all that the limit of 10,000 allows.
            #expect((beyond != nil) == (number >= 10))
            let opened = holder.book.open(reservation, as: .attempt)
            holder.log.append(.opened(try #require(opened)))
            let settled = holder.book.settle(reservation, cost: NanoUSD(1_000))
            #expect(settled)
        }
        holder.ask()
        let position = try #require(holder.book.position(of: terms().key))
        #expect(position.remaining == .zero && position.beyond == NanoUSD(2_000))
        #expect(holder.book.overdrawnLease() == nil)
        // Enforced again: refused at once, although money that was leased beyond it is in hand.
        let outcome = holder.reserve(1)
        #expect(outcome == .exhausted(terms().key, resetsAt: terms().key.period.end))
        // But the store is asked, because it may know of a higher limit.
        #expect(holder.book.hasDemand)
    }

    @Test func moneyThatOnlyObservesIsNotHeldToTheLargestLease() throws {
        var holder = Holder()
        _ = try holder.observing(900)
        let (_, beyond) = try holder.observing(5_000)
        #expect(beyond == nil)
    }

    @Test func aCancelledReservationIsFreeAgainAndItsNumberIsNot() throws {
        var holder = Holder()
        let first = try holder.reserved(1_000)
        let refused = holder.reserve(1_000)
        #expect(refused != .reserved(first))
        let cancelled = holder.book.cancel(first)
        #expect(cancelled)
        let second = try holder.reserved(1_000)
        #expect(second.number > first.number)
        let again = holder.book.cancel(first)
        #expect(!again)
    }

    @Test func aFinalCountsOnce() throws {
        var holder = Holder()
        let key = try holder.opened(300)
        let answers = [
            holder.book.childFinal(key, consumed: NanoUSD(120)),
            holder.book.childFinal(key, consumed: NanoUSD(120)),
        ]
        #expect(answers == [true, false])
        let counters = holder.book.makeReport().leases
        #expect(counters.map(\.consumed) == [NanoUSD(120)])
    }

    @Test func aFinalUnderAnotherLeaseIsNone() throws {
        var holder = Holder()
        var key = try holder.opened(300)
        key.lease.number += 1
        let taken = holder.book.childFinal(key, consumed: NanoUSD(1))
        #expect(!taken)
    }

    @Test func exhaustedOnlyWhenNoSettlementCanMakeRoom() throws {
        var holder = Holder()
        // Three quarters set aside at a fixed price, so due; then not due.
        for least in [Int64(750), 0] {
            holder = Holder()
            let payer = terms(limit: 1_000, maxLease: 1_000)
            _ = holder.reserve(750, least: least, payer)
            holder.ask(limit: 1_000)
            guard case .reserved(let reservation) = holder.reserve(750, least: least, payer) else {
                throw Refused()
            }
            _ = holder.book.open(reservation, as: .child)
            _ = holder.reserve(500, payer)
            holder.ask(limit: 1_000)
            let outcome = holder.reserve(500, payer)
            if least > 0 {
                guard case .exhausted(payer.key, _) = outcome else { throw Refused() }
            } else {
                guard case .contended(payer.key, _) = outcome else { throw Refused() }
            }
        }
    }

    @Test func aRefusedUserDoesNotMakeAStorm() throws {
        var holder = Holder()
        var asked = 0
        let payer = terms(limit: 100, maxLease: 100)
        for _ in 0..<1_000 {
            _ = holder.reserve(500, payer)
            asked += holder.ask(limit: 100).acquire.count
            holder.now += second / 1_000
        }
        // Ten milliseconds at first, doubling to a second.
        #expect(asked <= 9)
    }

    @Test func idleMoneyGoesBackAndMoneyInUseDoesNot() throws {
        // Most of the limit is one lease.
        var holder = Holder()
        _ = holder.reserve(200)
        holder.ask(limit: 1_100)
        let key = try holder.opened(200)
        holder.now += 2 * second
        let early = holder.book.maintain(now: holder.now)
        #expect(early.isEmpty)
        holder.now += second
        let released = holder.book.maintain(now: holder.now)
        #expect(released.count == 1)
        let counters = holder.book.makeReport().leases[0]
        #expect(counters.released > .zero && holder.book.overdrawnLease() == nil)
        holder.book.childFinal(key, consumed: NanoUSD(50))
        holder.log += holder.book.maintain(now: holder.now + 3 * second)
        let last = holder.book.makeReport().leases[0]
        #expect(last.released == counters.released + NanoUSD(150))
    }

    /// What nobody has set aside goes back at once, and the next reservation is decided under the
    /// new limit; what was spent is never taken back.
    @Test func aLoweredLimitTakesBackWhatIsFree() throws {
        var holder = Holder()
        let key = try holder.opened(200)
        let before = try #require(holder.book.position(of: terms().key))
        let state = AccountState(
            account: terms().key, limit: NanoUSD(300), consumed: .zero, consumedByOthers: .zero,
            held: NanoUSD(1_000), resetsAtMilliseconds: nil)
        let report = holder.book.makeReport()
        let entries = holder.book.apply(
            ReportResponse(finals: [], recalls: [], unknown: [], states: [state]), to: report,
            now: holder.now)
        #expect(before.limit == NanoUSD(10_000))
        #expect(entries.count == 1)
        let counters = holder.book.makeReport().leases[0]
        #expect(counters.released > .zero && holder.book.overdrawnLease() == nil)
        holder.book.childFinal(key, consumed: NanoUSD(200))
        let refused = holder.reserve(101)
        #expect(refused == .exhausted(terms().key, resetsAt: nil))
        #expect(holder.reserve(100) == .needsLease)
    }

    /// What the store said of the old limit must not refuse before it is asked about the new one.
    @Test func aRaisedLimitIsAskedForBeforeAnybodyIsRefused() throws {
        var holder = Holder()
        let low = terms(limit: 100, maxLease: 100)
        _ = holder.reserve(500, low)
        holder.ask(limit: 100, maxLease: 100)
        guard case .exhausted = holder.reserve(500, low) else {
            Issue.record("the limit is 100")
            return
        }
        #expect(holder.reserve(500, terms(limit: 1_000)) == .needsLease)
    }

    @Test func expiryStopsAdmissionAndFinalsStillCount() throws {
        var holder = Holder()
        let key = try holder.opened(200)
        holder.now += 120 * second
        let outcome = holder.reserve(1)
        #expect(outcome == .needsLease)
        let counted = holder.book.childFinal(key, consumed: NanoUSD(200))
        #expect(counted)
    }

    @Test func fragmentsGoBackInTheMessageThatAsksForMore() throws {
        var holder = Holder()
        _ = try holder.opened(300)
        // What is left of the lease is too small for this.
        let outcome = holder.reserve(1_000)
        #expect(outcome == .needsLease)
        let request = holder.ask()
        #expect(request.acquire.map(\.need) == [NanoUSD(1_000)])
        #expect(request.release.count == 1 && request.release[0].released > .zero)
    }

    @Test func aLostAnswerIsAskedForUnderTheSameNumber() throws {
        var holder = Holder()
        _ = holder.reserve(100)
        let first = holder.book.takeDemands(now: holder.now).request
        let between = holder.book.takeDemands(now: holder.now).request
        #expect(between.acquire.isEmpty)
        holder.book.requestFailed(first)
        let second = holder.book.takeDemands(now: holder.now).request
        #expect(first.acquire.map(\.lease) == second.acquire.map(\.lease))
    }

    @Test func replayGivesTheStateAgain() throws {
        var holder = Holder()
        let open = try holder.opened(200)
        let done = try holder.opened(100)
        holder.log.append(
            try #require(holder.book.finalEntry(ChildFinal(key: done, consumed: NanoUSD(70)))))
        holder.book.childFinal(done, consumed: NanoUSD(70))
        for log in [holder.log, holder.book.snapshot()] {
            var again = LeaseBook()
            for entry in log {
                let taken = again.replay(entry)
                #expect(taken)
            }
            again.replayed()
            #expect(again.openChildren() == [open])
            let (old, new) = (holder.book.makeReport().leases, again.makeReport().leases)
            #expect(old == new)
        }
    }

    /// Otherwise the store would count what the life before spent, and does not know of, as free.
    @Test func aSuccessorAsksForNothingBeforeItHasReported() throws {
        let before = try Holder.grown()
        var holder = Holder(replaying: before.log)
        holder.log.append(holder.book.begin(Incarnation(2), mayRelease: true))
        guard case .needsLease = holder.reserve(5_000) else { throw Refused() }
        #expect(!holder.book.hasDemand)
        #expect(holder.book.takeDemands(now: holder.now).request.acquire.isEmpty)
        let report = holder.book.makeReport()
        #expect(report.leases.contains { $0.lease.incarnation == Incarnation(1) })
        _ = holder.book.apply(
            ReportResponse(finals: [], recalls: [], unknown: [], states: []), to: report,
            now: holder.now)
        #expect(holder.book.hasDemand)
        #expect(holder.book.takeDemands(now: holder.now).request.acquire.count == 1)
    }

    @Test func whatEndedWithoutASettlementIsAskedForUntilItIsFinal() throws {
        var holder = Holder()
        let (lost, running) = (try holder.opened(200), try holder.opened(100))
        #expect(holder.book.makeReport().openChildren.isEmpty)
        holder.book.childLost(lost)
        holder.book.childLost(lost)
        for _ in 0..<2 {
            #expect(
                holder.book.makeReport().openChildren == [
                    OpenChild(key: lost, audience: Incarnation(9))
                ])
        }
        var again = LeaseBook()
        for entry in holder.book.snapshot() {
            let taken = again.replay(entry)
            #expect(taken)
        }
        again.replayed()
        #expect(
            again.makeReport().openChildren
                == [lost, running].map { OpenChild(key: $0, audience: Incarnation(9)) })
        again.childFinal(lost, consumed: .zero)
        #expect(again.makeReport().openChildren.map(\.key) == [running])
    }

    @Test func moreOverdueChildrenThanAMessageCarriesTakeTurns() throws {
        var holder = Holder()
        let most = LedgerLimits.inquiriesPerMessageMax
        let keys = try (0..<most + 10).map { _ in try holder.opened(0) }
        for key in keys { holder.book.childLost(key) }
        let first = holder.book.makeReport().openChildren.map(\.key)
        let second = holder.book.makeReport().openChildren.map(\.key)
        #expect(first == Array(keys.prefix(most)))
        #expect(second == Array(keys.suffix(10) + keys.prefix(most - 10)))
    }

    @Test func aLogThatNoHolderWroteIsRefused() {
        let lease = LeaseImage(
            slot: 0, id: LeaseID(incarnation: Incarnation(1), number: 1), account: terms().key,
            granted: 100, consumed: 0, released: 0, isLocal: false)
        let opened = OpenedReservation(
            number: 1, kind: .child, amount: 10, least: 0, legCount: 1,
            legs: SIMD8<UInt32>(repeating: 5))
        for entry in [
            LedgerEntry.opened(opened), .childFinal(number: 9, consumed: 1),
            .released(slot: 0, total: 101), .leaseForgotten(slot: 77), .lease(lease),
        ] {
            var book = LeaseBook()
            let first = book.replay(.lease(lease))
            let second = book.replay(entry)
            #expect(first && !second, "\(entry)")
        }
    }
}

@Suite struct DelegationBookTests {
    private let issuer = Incarnation(4)

    private func key(_ child: Int64) -> ChildKey {
        ChildKey(lease: LeaseID(incarnation: issuer, number: 1), child: child)
    }

    @Test func isAcceptedOnceInsideTheWindowAndNeverBehindIt() {
        var book = DelegationBook()
        let numbers: [Int64] = [5, 3, 5, 70_000, 3, 4_464, 4_465, 69_999]
        let accepted = numbers.map { number -> Bool in
            if case .accepted = book.accept(key(number), issuer: issuer, amount: NanoUSD(1)) {
                return true
            }
            return false
        }
        #expect(accepted == [true, true, false, true, false, false, true, true])
    }

    @Test func aFinalIsReportedUntilAnAnswerCame() throws {
        var book = DelegationBook()
        guard case .accepted(let first) = book.accept(key(1), issuer: issuer, amount: NanoUSD(9))
        else { throw Refused() }
        book.settle(first.number, cost: NanoUSD(4))
        let twice = book.settle(first.number, cost: NanoUSD(4))
        #expect(twice == nil)
        let finals = book.finalsToReport()
        #expect(finals == [ChildFinal(key: key(1), consumed: NanoUSD(4))])
        #expect(book.finalsToReport() == finals)
        book.finalsReported(finals)
        book.finalsReported(finals)
        #expect(book.finalsToReport().isEmpty)
    }

    @Test func theMemoryOutlivesTheProcess() {
        var book = DelegationBook()
        var log: [LedgerEntry] = []
        for child in Int64(1)...400 {
            if case .accepted(let accepted) = book.accept(
                key(child), issuer: issuer, amount: NanoUSD(1))
            {
                log.append(.accepted(accepted))
            }
        }
        for entries in [log, book.snapshot()] {
            var again = DelegationBook()
            for entry in entries {
                let taken = again.replay(entry)
                #expect(taken)
            }
            #expect(again.openDelegations == book.openDelegations)
            let answer = again.accept(key(400), issuer: issuer, amount: .zero)
            #expect(answer == .repeated)
        }
    }

    @Test func whatNeverCameIsRefusedForGoodAndFinalAtNothing() throws {
        var book = DelegationBook()
        var log: [LedgerEntry] = []
        for child in [Int64(1), 2] {
            guard
                case .accepted(let accepted) = book.accept(
                    key(child), issuer: issuer, amount: NanoUSD(9))
            else { throw Refused() }
            log.append(.accepted(accepted))
            if child == 1 {
                log.append(.delegationSettled(number: accepted.number, cost: 4))
                book.settle(accepted.number, cost: NanoUSD(4))
            }
        }
        // Settled, running, and two that never came: one before and one after the newest.
        let asked = [1, 2, 70_003, 70_002].map { key($0) }
        let entries = book.answer(asked + asked)
        #expect(entries == [.refused(key(70_003)), .refused(key(70_002))])
        #expect(
            book.finalsToReport() == [
                ChildFinal(key: key(1), consumed: NanoUSD(4)),
                ChildFinal(key: key(70_003), consumed: .zero),
                ChildFinal(key: key(70_002), consumed: .zero),
            ])
        for entries in [log + entries, book.snapshot()] {
            var again = DelegationBook()
            for entry in entries {
                let taken = again.replay(entry)
                #expect(taken)
            }
            #expect(again.finals == book.finals)
            let late = again.accept(key(70_002), issuer: issuer, amount: NanoUSD(1))
            #expect(late == .repeated)
            again.finalsReported(again.finalsToReport())
            // Refused before and kept, and asked for all the same; running; too old to be accepted
            // ever again.
            let later = again.answer([key(70_002), key(2), key(3)])
            let final = ChildFinal(key: key(70_002), consumed: .zero)
            #expect(later == [.final(final), .refused(key(3))])
        }
    }

    @Test func aForgottenIssuerIsRefused() {
        var book = DelegationBook()
        for issuer in Int64(1)...65 {
            _ = book.accept(
                ChildKey(lease: LeaseID(incarnation: Incarnation(issuer), number: 1), child: 1),
                issuer: Incarnation(issuer), amount: .zero)
        }
        let old = ChildKey(lease: LeaseID(incarnation: Incarnation(1), number: 1), child: 2)
        let answer = book.accept(old, issuer: Incarnation(1), amount: .zero)
        #expect(answer == .full)
    }
}

@Suite struct SuccessionTests {
    private let place = JournalCircumstances.Place(bootID: "a", device: 1, inode: 2)

    @Test(arguments: [
        (boot: "a", inode: UInt64(2), locked: true, clean: true, adopted: true, release: true),
        (boot: "b", inode: 2, locked: true, clean: true, adopted: true, release: false),
        (boot: "a", inode: 3, locked: true, clean: true, adopted: true, release: false),
        (boot: "a", inode: 2, locked: false, clean: true, adopted: true, release: false),
        (boot: "a", inode: 2, locked: true, clean: false, adopted: true, release: false),
        (boot: "a", inode: 2, locked: true, clean: true, adopted: false, release: false),
    ])
    func onlyAWholeLogInItsPlaceReleases(
        row: (boot: String, inode: UInt64, locked: Bool, clean: Bool, adopted: Bool, release: Bool)
    ) {
        let circumstances = JournalCircumstances(
            written: place,
            found: .init(bootID: row.boot, device: 1, inode: row.inode), isLocked: row.locked,
            isClean: row.clean)
        #expect(circumstances.mayRelease(isAdopted: row.adopted) == row.release)
        #expect(circumstances.mayResume == (row.release || !row.adopted))
    }
}
