import Testing
import WeirCore
import WeirLedger

private let march = UnixTime(CivilDate(year: 2026, month: 3, day: 10))
private let alice = AccountKey(
    unit: .usd, scope: .user, period: Period(.month, at: march), id: "alice")

private func lease(_ incarnation: Int64, _ number: Int64) -> LeaseID {
    LeaseID(incarnation: Incarnation(incarnation), number: number)
}

private func terms(
    limit: Int64 = 1_000, policy: Int64 = 1, maxLease: Int64 = 1_000, now: UnixTime = march
) -> AccountBook.Terms {
    AccountBook.Terms(
        limit: NanoUSD(limit), policyNumber: policy, maxLease: NanoUSD(maxLease), now: now)
}

private func acquire(
    _ id: LeaseID, need: Int64, want: Int64, closedBelow: Int64 = 0, policy: Int64 = 1
) -> LeaseAcquire {
    LeaseAcquire(
        lease: id, account: alice, need: NanoUSD(need), want: NanoUSD(want),
        closedBelow: closedBelow, policyNumber: policy)
}

private func counters(_ id: LeaseID, consumed: Int64, released: Int64) -> LeaseCounters {
    LeaseCounters(
        lease: id, account: alice, consumed: NanoUSD(consumed), released: NanoUSD(released))
}

private func book(limit: Int64 = 1_000) -> AccountBook {
    AccountBook(account: alice, limit: NanoUSD(limit), policyNumber: 1)
}

@Suite struct AccountBookTests {
    @Test func grantsUpToTheLimitAndNotOneMore() {
        var account = book()
        let first = account.acquire(acquire(lease(1, 1), need: 600, want: 600), terms: terms())
        #expect(first.status == .granted && first.granted == NanoUSD(600))
        let second = account.acquire(acquire(lease(2, 1), need: 401, want: 401), terms: terms())
        #expect(second.status == .contended && second.granted == .zero)
        let third = account.acquire(acquire(lease(2, 2), need: 1, want: 900), terms: terms())
        #expect(third.granted == NanoUSD(400))
        #expect(account.committed == 1_000)
    }

    @Test func aRepeatedAcquireGrantsOnce() {
        var account = book()
        let request = acquire(lease(1, 1), need: 100, want: 300)
        let once = account.acquire(request, terms: terms())
        let twice = account.acquire(request, terms: terms())
        #expect(once.granted == NanoUSD(300) && twice.granted == NanoUSD(300))
        #expect(account.granted == 300)
    }

    @Test func belowTheClosedWatermarkAnAcquireIsGone() {
        var account = book()
        _ = account.acquire(acquire(lease(1, 1), need: 100, want: 100), terms: terms())
        account.report(counters(lease(1, 1), consumed: 40, released: 60), by: Incarnation(1))
        // Closed, not yet forgotten; then forgotten.
        let request = acquire(lease(1, 1), need: 100, want: 100)
        #expect(account.acquire(request, terms: terms()).status == .gone)
        _ = account.acquire(
            acquire(lease(1, 2), need: 100, want: 100, closedBelow: 2), terms: terms())
        #expect(account.leases[lease(1, 1)] == nil)
        #expect(account.acquire(request, terms: terms()).status == .gone)
        #expect(account.granted == 200 && account.committed == 140)
        #expect(account.holders[Incarnation(1)]?.consumed == 40)
    }

    @Test func theWatermarkKeepsOpenLeases() {
        var account = book()
        _ = account.acquire(acquire(lease(1, 1), need: 100, want: 100), terms: terms())
        account.raiseWatermark(of: Incarnation(1), to: 9)
        #expect(account.leases[lease(1, 1)] != nil)
    }

    @Test func countersMergeByMaximum() {
        var account = book()
        let id = lease(1, 1)
        _ = account.acquire(acquire(id, need: 100, want: 100), terms: terms())
        account.report(counters(id, consumed: 50, released: 10), by: Incarnation(1))
        account.report(counters(id, consumed: 20, released: 30), by: Incarnation(1))
        account.report(counters(id, consumed: 50, released: 10), by: Incarnation(1))
        #expect(account.consumed == 50 && account.released == 30 && account.held == 20)
        #expect(account.committed == 70)
    }

    @Test func onlyReleasedFreesMoney() {
        var account = book(limit: 100)
        let id = lease(1, 1)
        _ = account.acquire(acquire(id, need: 100, want: 100), terms: terms(limit: 100))
        account.report(counters(id, consumed: 10, released: 0), by: Incarnation(1))
        let other = acquire(lease(2, 1), need: 50, want: 50)
        #expect(account.acquire(other, terms: terms(limit: 100)).status == .contended)
        account.report(counters(id, consumed: 10, released: 90), by: Incarnation(1))
        #expect(account.acquire(other, terms: terms(limit: 100)).status == .granted)
    }

    @Test func exhaustedOnlyWhenTheConsumedLeavesNoRoom() {
        var account = book(limit: 100)
        _ = account.acquire(acquire(lease(1, 1), need: 100, want: 100), terms: terms(limit: 100))
        account.report(counters(lease(1, 1), consumed: 60, released: 0), by: Incarnation(1))
        let small = account.acquire(
            acquire(lease(2, 1), need: 40, want: 40), terms: terms(limit: 100))
        let large = account.acquire(
            acquire(lease(2, 2), need: 41, want: 41), terms: terms(limit: 100))
        #expect(small.status == .contended && large.status == .exhausted)
        #expect(large.state?.consumedByOthers == NanoUSD(60))
    }

    @Test func oneHolderHasAtMostMaxLeaseButAlwaysOneWorstCase() {
        var account = book()
        let first = account.acquire(
            acquire(lease(1, 1), need: 10, want: 500), terms: terms(maxLease: 50))
        #expect(first.granted == NanoUSD(50))
        let second = account.acquire(
            acquire(lease(1, 2), need: 10, want: 10), terms: terms(maxLease: 50))
        #expect(second.status == .contended)
        let large = account.acquire(
            acquire(lease(2, 1), need: 200, want: 500), terms: terms(maxLease: 50))
        #expect(large.granted == NanoUSD(200))
        account.report(counters(lease(1, 1), consumed: 30, released: 0), by: Incarnation(1))
        let third = account.acquire(
            acquire(lease(1, 3), need: 10, want: 500), terms: terms(maxLease: 50))
        #expect(third.granted == NanoUSD(30))
    }

    @Test func anOlderPolicyIsRefusedAndANewerOneMovesTheLimit() {
        var account = book()
        let raised = account.acquire(
            acquire(lease(1, 1), need: 1, want: 1, policy: 3), terms: terms(limit: 500, policy: 3))
        #expect(raised.status == .granted && account.limit == 500 && account.policyNumber == 3)
        let stale = account.acquire(
            acquire(lease(1, 2), need: 1, want: 1, policy: 2), terms: terms(limit: 900, policy: 2))
        #expect(stale.status == .stalePolicy && account.limit == 500)
    }

    @Test func loweringTheLimitTakesNothingBack() {
        var account = book()
        _ = account.acquire(acquire(lease(1, 1), need: 800, want: 800), terms: terms())
        account.override(limit: NanoUSD(500), otherwise: NanoUSD(1_000))
        #expect(account.committed == 800)
        let next = account.acquire(acquire(lease(1, 2), need: 1, want: 1), terms: terms())
        #expect(next.status == .contended)
        // A newer policy does not undo what somebody set.
        account.policyChanged(limit: NanoUSD(2_000), policyNumber: 9)
        #expect(account.limit == 500)
        account.override(limit: nil, otherwise: NanoUSD(2_000))
        #expect(account.limit == 2_000)
    }

    @Test func theStoresTimeDecidesThePeriod() {
        var account = book()
        let april = UnixTime(CivilDate(year: 2026, month: 4, day: 1))
        let late = account.acquire(
            acquire(lease(1, 1), need: 1, want: 1), terms: terms(now: april))
        #expect(late.status == .wrongPeriod)
        let justBefore = UnixTime(milliseconds: april.milliseconds - 5_000)
        let last = account.acquire(
            acquire(lease(1, 2), need: 1, want: 1), terms: terms(now: justBefore))
        #expect(last.status == .granted && last.expiresInMilliseconds == 5_000)
        var next = AccountBook(
            account: AccountKey(
                unit: .usd, scope: .user, period: Period(.month, at: april), id: "alice"),
            limit: NanoUSD(1_000), policyNumber: 1)
        let early = next.acquire(
            acquire(lease(1, 3), need: 1, want: 1), terms: terms(now: justBefore))
        #expect(early.status == .granted)
        let tooEarly = next.acquire(
            acquire(lease(1, 4), need: 1, want: 1), terms: terms(now: march))
        #expect(tooEarly.status == .wrongPeriod)
    }

    @Test func anOverrunIsNotGrantedASecondTime() {
        var account = book(limit: 100)
        _ = account.acquire(acquire(lease(1, 1), need: 50, want: 50), terms: terms(limit: 100))
        account.report(counters(lease(1, 1), consumed: 80, released: 0), by: Incarnation(1))
        #expect(account.overrun == 30 && account.committed == 80 && account.held == 0)
        let rest = account.acquire(
            acquire(lease(2, 1), need: 1, want: 100), terms: terms(limit: 100))
        #expect(rest.granted == NanoUSD(20))
    }

    @Test(arguments: [
        (consumed: Int64(-1), released: Int64(0)), (consumed: 0, released: -1),
        (consumed: 0, released: 101), (consumed: .max, released: 0),
    ])
    func countersThatNoHolderCanHaveChangeNothing(consumed: Int64, released: Int64) {
        var account = book()
        _ = account.acquire(acquire(lease(1, 1), need: 100, want: 100), terms: terms())
        let taken = account.report(
            counters(lease(1, 1), consumed: consumed, released: released), by: Incarnation(1))
        #expect(!taken)
        #expect(account.consumed == 0 && account.released == 0 && account.committed == 100)
    }

    @Test func whatTheHolderDisownsIsListedOnce() {
        var account = book()
        for number in Int64(1)...3 {
            _ = account.acquire(acquire(lease(1, number), need: 10, want: 10), terms: terms())
        }
        let unknown = account.unknown(
            to: Incarnation(1), listed: [lease(1, 1)], highest: 2)
        // The third was asked for after the report was written.
        #expect(unknown.map(\.lease) == [lease(1, 2)])
        account.report(counters(lease(1, 2), consumed: 0, released: 10), by: Incarnation(1))
        #expect(
            account.unknown(to: Incarnation(1), listed: [lease(1, 1)], highest: 2).isEmpty)
    }

    @Test func aSuccessorTakesOverAndTheDeadMoveNothingBack() {
        var account = book()
        let id = lease(1, 1)
        _ = account.acquire(acquire(id, need: 100, want: 100), terms: terms())
        account.report(counters(id, consumed: 20, released: 0), by: Incarnation(2))
        account.report(counters(id, consumed: 30, released: 0), by: Incarnation(1))
        #expect(account.leases[id]?.holder == Incarnation(2))
        #expect(account.holders[Incarnation(2)]?.consumed == 30)
        #expect(account.holders[Incarnation(1)]?.held == 0)
        #expect(account.state(for: Incarnation(2)).consumedByOthers == .zero)
    }
}

@Suite struct IncarnationBookTests {
    @Test func aPredecessorIsAdoptedOnce() {
        var book = IncarnationBook()
        let (first, second, third) = (book.join(), book.join(), book.join())
        let answers = [(first, second), (first, second), (first, third), (second, first)]
            .map { book.adopt($0.0, by: $0.1) }
        #expect(answers == [true, true, false, false])
        #expect(!book.mayAcquire(first) && book.mayAcquire(second))
    }

    @Test func speakingForTheDeadGoesThroughEveryLife() {
        var book = IncarnationBook()
        let lives = (0..<4).map { _ in book.join() }
        let answers = [book.adopt(lives[0], by: lives[1]), book.adopt(lives[1], by: lives[2])]
        #expect(answers == [true, true])
        #expect(book.mayReport(leaseOf: lives[0], by: lives[2]))
        #expect(!book.mayReport(leaseOf: lives[0], by: lives[3]))
        #expect(!book.mayReport(leaseOf: lives[2], by: lives[0]))
    }

    @Test func finalsAreRepeatedUntilAcknowledged() {
        var book = IncarnationBook()
        let (parent, successor) = (book.join(), book.join())
        let key = ChildKey(lease: LeaseID(incarnation: parent, number: 1), child: 7)
        book.finalReported(ChildFinal(key: key, consumed: NanoUSD(5)))
        book.finalReported(ChildFinal(key: key, consumed: NanoUSD(5)))
        #expect(book.finals(for: parent).count == 1)
        #expect(book.finals(for: successor).isEmpty)
        let adopted = book.adopt(parent, by: successor)
        #expect(adopted)
        #expect(book.finals(for: successor) == [ChildFinal(key: key, consumed: NanoUSD(5))])
        book.finalsAcknowledged([key], by: successor)
        #expect(book.finals(for: successor).isEmpty)
    }

    @Test func aParentsQuestionGoesToTheNewestLifeOfItsAudience() {
        var book = IncarnationBook()
        let (parent, other) = (book.join(), book.join())
        let lives = (0..<3).map { _ in book.join() }
        let adopted = [book.adopt(lives[0], by: lives[1]), book.adopt(lives[1], by: lives[2])]
        #expect(adopted == [true, true])
        let children = (1...2).map { number in
            OpenChild(
                key: ChildKey(lease: LeaseID(incarnation: parent, number: 1), child: number),
                audience: lives[0])
        }
        book.ask(children, by: other)
        #expect(book.takeInquiries(for: lives[2]).isEmpty)
        book.finalReported(ChildFinal(key: children[1].key, consumed: NanoUSD(5)))
        book.ask(children, by: parent)
        #expect(book.takeInquiries(for: lives[1]).isEmpty)
        #expect(book.takeInquiries(for: lives[2]) == [children[0]])
        #expect(book.takeInquiries(for: lives[2]).isEmpty)
    }
}
