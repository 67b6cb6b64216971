import Testing
import WeirCore
import WeirLedger

/// What a holder gives back because others need it, and what it says of many leases.
@Suite struct LeaseRecallTests {
    private static let start: UInt64 = 1_000_000_000_000
    private static let holder = Incarnation(1)

    private static func account(_ user: String) -> AccountKey {
        AccountKey(
            unit: .usd, scope: .user,
            period: Period(.month, at: UnixTime(CivilDate(year: 2026, month: 3, day: 5))),
            id: user)
    }

    /// A holder with a lease of 100 for each user.
    private static func book(users: [String]) throws -> LeaseBook {
        var book = LeaseBook()
        _ = book.begin(holder, mayRelease: false)
        var left = users[...]
        while !left.isEmpty {
            for user in left.prefix(512) {
                _ = book.reserve(
                    try payer(user, &book), amount: NanoUSD(100), least: .zero, now: start)
            }
            left = left.dropFirst(512)
            let (request, _, _) = book.takeDemands(now: start)
            let grants = request.acquire.map {
                LeaseGrant(
                    lease: $0.lease, status: .granted, granted: NanoUSD(100),
                    expiresInMilliseconds: 60_000, state: nil)
            }
            _ = book.apply(
                LeasesResponse(grants: grants), to: request, sentAt: start, now: start)
        }
        return book
    }

    private static func payer(_ user: String, _ book: inout LeaseBook) throws -> Payer {
        let terms = AccountTerms(
            key: account(user), limit: NanoUSD(10_000), maxLease: NanoUSD(1_000), policyNumber: 1)
        let payer = book.payer(for: [terms], now: start)
        return try #require(payer)
    }

    private static func opened(_ amount: Int64, _ book: inout LeaseBook) throws -> ChildKey {
        let outcome = book.reserve(
            try payer("ann", &book), amount: NanoUSD(amount), least: .zero, now: start)
        guard case .reserved(let reservation) = outcome else {
            throw Refused(outcome: outcome)
        }
        let opened = book.open(reservation, as: .child, audience: Incarnation(9))
        try #require(opened != nil)
        return try #require(book.key(of: reservation))
    }

    private struct Refused: Error { let outcome: ReserveOutcome }

    @Test func `a recall gives back what is free and nothing that is set aside`() throws {
        var book = try Self.book(users: ["ann"])
        let child = try Self.opened(30, &book)
        let entries = book.recall(
            [child.lease, LeaseID(incarnation: Self.holder, number: 99)],
            now: Self.start)
        #expect(entries == [.released(slot: 0, total: 70)])
        #expect(book.recall([child.lease], now: Self.start).isEmpty)
        #expect(book.makeReport().leases.map(\.released) == [NanoUSD(70)])
        // What was set aside is spent all the same.
        book.childFinal(child, consumed: NanoUSD(30))
        #expect(book.overdrawnLease() == nil)
    }

    @Test func `the answer to a report recalls, too`() throws {
        var book = try Self.book(users: ["ann"])
        let report = book.makeReport()
        let lease = try #require(report.leases.first?.lease)
        let entries = book.apply(
            ReportResponse(finals: [], recalls: [lease], unknown: [], states: []), to: report,
            now: Self.start)
        #expect(entries == [.released(slot: 0, total: 100)])
    }

    @Test func `a child whose audience is written off costs its whole amount`() throws {
        var book = try Self.book(users: ["ann"])
        let child = try Self.opened(30, &book)
        let report = book.makeReport()
        let response = ReportResponse(
            finals: [], recalls: [], unknown: [], states: [], writtenOff: [child])
        let entries = book.apply(response, to: report, now: Self.start)
        #expect(entries == [.childFinal(number: child.child, consumed: 30)])
        #expect(book.makeReport().leases.map(\.consumed) == [NanoUSD(30)])
        // It is said until the store has no question any more.
        #expect(book.apply(response, to: report, now: Self.start).isEmpty)
    }

    @Test func `more leases than a report carries take turns`() throws {
        let count = LedgerLimits.leasesPerMessageMax + 200
        var book = try Self.book(users: (0..<count).map { "user-\($0)" })
        var listed: Set<LeaseID> = []
        for _ in 0..<2 {
            let report = book.makeReport()
            #expect(report.leases.count == LedgerLimits.leasesPerMessageMax)
            listed.formUnion(report.leases.map(\.lease))
            _ = book.apply(
                ReportResponse(finals: [], recalls: [], unknown: [], states: []), to: report,
                now: Self.start)
        }
        #expect(listed.count == count)
        // What the store does not know comes first.
        let news = try #require(listed.max())
        _ = book.recall([news], now: Self.start)
        #expect(book.makeReport().leases.contains { $0.lease == news && $0.released > .zero })
    }
}
