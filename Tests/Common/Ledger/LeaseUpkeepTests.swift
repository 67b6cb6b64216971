import Testing
import WeirCore
import WeirLedger

/// What a holder does each second for accounts that somebody uses, or does not any more.
@Suite struct LeaseUpkeepTests {
    private static let second: UInt64 = 1_000_000_000
    private static let start = 1_000 * second
    private static let march = UnixTime(CivilDate(year: 2026, month: 3, day: 10))

    /// A holder of one user's account with a limit of 10,000, and a store that grants what it says.
    private final class Holder {
        var book = LeaseBook()
        var now = LeaseUpkeepTests.start
        let terms = AccountTerms(
            key: AccountKey(
                unit: .usd, scope: .user, period: Period(.month, at: march), id: "ann"),
            limit: NanoUSD(10_000), maxLease: NanoUSD(2_000), policyNumber: 1)

        /// Has used 200 of a lease of 1,000 and is told what is spent and set aside in all.
        init(consumed: Int64, held: Int64) throws {
            _ = book.begin(Incarnation(1), mayRelease: false)
            #expect(try reserve() == .needsLease)
            grant(1_000)
            try use()
            tell(consumed: consumed, held: held)
        }

        func reserve() throws -> ReserveOutcome {
            let known = book.payer(for: [terms], now: now)
            let payer = try #require(known)
            return book.reserve(payer, amount: NanoUSD(200), least: .zero, now: now)
        }

        func use() throws {
            guard case .reserved(let reservation) = try reserve() else {
                Issue.record("there is no money for it")
                return
            }
            book.cancel(reservation)
        }

        func grant(_ amount: Int64) {
            let (request, _, _) = book.takeDemands(now: now)
            let grants = request.acquire.map {
                LeaseGrant(
                    lease: $0.lease, status: .granted, granted: NanoUSD(amount),
                    expiresInMilliseconds: 60_000, state: nil)
            }
            _ = book.apply(LeasesResponse(grants: grants), to: request, sentAt: now, now: now)
        }

        func tell(consumed: Int64, held: Int64) {
            let state = AccountState(
                account: terms.key, limit: NanoUSD(10_000), consumed: NanoUSD(consumed),
                consumedByOthers: NanoUSD(consumed), held: NanoUSD(held),
                resetsAtMilliseconds: nil)
            let report = book.makeReport()
            _ = book.apply(
                ReportResponse(finals: [], recalls: [], unknown: [], states: [state]), to: report,
                now: now)
        }

        /// Whether it asks for something ahead.
        func asks() -> Bool {
            book.askAhead(wall: LeaseUpkeepTests.march, now: now)
            return book.hasQueuedDemand
        }

        /// How many leases give something back.
        func maintain() -> Int { book.maintain(now: now).count }

        func recall() -> [LedgerEntry] {
            book.recall([LeaseID(incarnation: Incarnation(1), number: 1)], now: now)
        }
    }

    @Test func `idle money stays where most of the limit is left`() throws {
        let holder = try Holder(consumed: 3_000, held: 2_000)
        holder.now += 50 * Self.second
        #expect(holder.maintain() == 0)
        holder.now += 11 * Self.second
        #expect(holder.maintain() == 1)
    }

    @Test func `idle money goes back where half of the limit is spent or set aside`() throws {
        let holder = try Holder(consumed: 3_001, held: 2_000)
        holder.now += 2 * Self.second
        #expect(holder.maintain() == 0)
        holder.now += Self.second
        #expect(holder.maintain() == 1)
    }

    @Test func `a lease in use is replaced before it ends`() throws {
        let holder = try Holder(consumed: 0, held: 1_000)
        holder.now += 45 * Self.second
        #expect(!holder.asks(), "it serves for a while yet")
        holder.now += 5 * Self.second
        #expect(holder.asks())
        holder.grant(1_000)
        #expect(!holder.asks(), "once")
        holder.now += 9 * Self.second
        #expect(holder.maintain() == 1, "what ends goes back")
        try holder.use()
        #expect(!holder.book.hasQueuedDemand, "without an exchange")
    }

    @Test func `what nobody uses is not replaced`() throws {
        let holder = try Holder(consumed: 0, held: 1_000)
        holder.now += 50 * Self.second
        #expect(holder.asks())
        holder.grant(1_000)
        // The first request was the only one.
        holder.now += 50 * Self.second
        #expect(!holder.asks())
        #expect(holder.maintain() == 2)
    }

    /// Otherwise the holder would take it from whoever waits for it.
    @Test func `what others wait for is not asked for ahead and does not stay`() throws {
        let holder = try Holder(consumed: 0, held: 1_000)
        let outcome = try holder.reserve()
        guard case .reserved(let reservation) = outcome else {
            Issue.record("\(outcome)")
            return
        }
        #expect(holder.recall().count == 1)
        let first = holder.book.takeDemands(now: holder.now)
        #expect(first.request.release.count == 1)
        // What was set aside comes free a moment later: it goes the same way at once.
        holder.now += Self.second
        holder.book.cancel(reservation)
        #expect(holder.book.hasQueuedDemand)
        let (request, entries, _) = holder.book.takeDemands(now: holder.now)
        #expect(request.release.map(\.released) == [NanoUSD(1_000)])
        #expect(entries.count == 1)
        #expect(!holder.asks())
    }

    @Test func `what comes free long after a recall stays`() throws {
        let holder = try Holder(consumed: 0, held: 1_000)
        guard case .reserved(let reservation) = try holder.reserve() else {
            Issue.record("there is no money for it")
            return
        }
        _ = holder.recall()
        _ = holder.book.takeDemands(now: holder.now)
        holder.now += 3 * Self.second
        holder.book.cancel(reservation)
        let demands = holder.book.takeDemands(now: holder.now)
        #expect(demands.entries.isEmpty)
        try holder.use()
    }

    @Test(arguments: [true, false])
    func `what an earlier life spent and closed is counted once`(_ isForgotten: Bool) throws {
        let holder = try Holder(consumed: 0, held: 1_000)
        for _ in 0..<5 {
            guard case .reserved(let reservation) = try holder.reserve() else {
                Issue.record("there is no money for it")
                return
            }
            let opened = holder.book.open(reservation, as: .attempt)
            #expect(opened?.amount == 200)
            let isSettled = holder.book.settle(reservation, cost: NanoUSD(200))
            #expect(isSettled)
        }
        _ = holder.book.begin(Incarnation(2), mayRelease: true)
        let report = holder.book.makeReport()
        #expect(report.leases.map(\.consumed) == [NanoUSD(1_000)])
        // The store has forgotten the lease with the life before, or takes it over now.
        let state = AccountState(
            account: holder.terms.key, limit: NanoUSD(10_000), consumed: NanoUSD(1_000),
            consumedByOthers: NanoUSD(isForgotten ? 1_000 : 0), held: .zero,
            resetsAtMilliseconds: nil)
        _ = holder.book.apply(
            ReportResponse(finals: [], recalls: [], unknown: [], states: [state]), to: report,
            now: holder.now)
        #expect(holder.book.position(of: holder.terms.key)?.remaining == NanoUSD(9_000))
    }
}
