import Testing
import WeirCore
import WeirLedger

/// Accounts of a minute at a holder: rates over the whole mesh.
@Suite struct LeaseMinuteTests {
    private static let second: UInt64 = 1_000_000_000
    private static let start = 1_000 * second
    private static let minute = UnixTime(CivilDate(year: 2026, month: 3, day: 10))

    /// A holder of one user's requests per minute, and a store that grants what it says. The minute
    /// begins with the test.
    private final class Holder {
        var book = LeaseBook()
        var log: [LedgerEntry] = []
        var now = LeaseMinuteTests.start
        var terms = AccountTerms(
            key: AccountKey(
                unit: .requests, scope: .user, period: Period(.minute, at: minute), id: "ann"),
            limit: NanoUSD(100), maxLease: NanoUSD(10), policyNumber: 1)

        /// Of each grant.
        var share: Int64 = 10

        init() { log.append(book.begin(Incarnation(1), mayRelease: false)) }

        var wall: UnixTime {
            let passed = Int64((now - LeaseMinuteTests.start) / 1_000_000)
            return UnixTime(milliseconds: LeaseMinuteTests.minute.milliseconds + passed)
        }

        func reserve(_ amount: Int64 = 1) throws -> ReserveOutcome {
            let known = book.payer(for: [terms], now: now)
            return book.reserve(
                try #require(known), amount: NanoUSD(amount), least: .zero, now: now)
        }

        func take() throws {
            guard case .reserved(let reservation) = try reserve(),
                let spent = book.spend(reservation)
            else {
                Issue.record("nothing is left of the lease")
                return
            }
            log.append(.spent(spent))
        }

        /// The accounts that it asks leases of; each gets one until the end of its minute.
        @discardableResult
        func granted() -> [AccountKey] {
            let (request, entries, _) = book.takeDemands(now: now)
            log += entries
            let grants = request.acquire.map { acquire in
                let end = acquire.account.period.end?.milliseconds ?? 0
                return LeaseGrant(
                    lease: acquire.lease, status: .granted, granted: NanoUSD(share),
                    expiresInMilliseconds: end - wall.milliseconds,
                    state: AccountState(
                        account: acquire.account, limit: NanoUSD(100), consumed: .zero,
                        consumedByOthers: .zero, held: NanoUSD(share), resetsAtMilliseconds: end))
            }
            log += book.apply(LeasesResponse(grants: grants), to: request, sentAt: now, now: now)
            return request.acquire.map(\.account)
        }

        func refuse(_ status: LeaseGrant.Status) {
            let (request, _, _) = book.takeDemands(now: now)
            let grants = request.acquire.map {
                LeaseGrant(
                    lease: $0.lease, status: status, granted: .zero, expiresInMilliseconds: 0,
                    state: nil)
            }
            _ = book.apply(LeasesResponse(grants: grants), to: request, sentAt: now, now: now)
        }
    }

    private static func replayed(_ log: [LedgerEntry]) -> LeaseBook {
        var book = LeaseBook()
        for entry in log where !book.replay(entry) { Issue.record("\(entry) does not replay") }
        return book
    }

    private func next(_ holder: Holder) throws -> AccountKey {
        let end = try #require(holder.terms.key.period.end)
        var key = holder.terms.key
        key.period = Period(.minute, at: end)
        return key
    }

    @Test func `a lease of a minute admits to its last moment and not beyond`() throws {
        let holder = Holder()
        #expect(try holder.reserve() == .needsLease)
        #expect(holder.granted() == [holder.terms.key])
        holder.now = Self.start + 60 * Self.second - 1
        try holder.take()
        holder.now += 1
        #expect(try holder.reserve() == .periodOver(holder.terms.key))
    }

    /// The store's clock is ahead of this machine's.
    @Test func `a minute that the store calls over is over`() throws {
        let holder = Holder()
        #expect(try holder.reserve() == .needsLease)
        holder.refuse(.wrongPeriod)
        #expect(try holder.reserve() == .periodOver(holder.terms.key))
    }

    @Test func `what is spent of a minute makes no report, what is given back does`() throws {
        let holder = Holder()
        _ = try holder.reserve()
        holder.granted()
        try holder.take()
        #expect(holder.book.makeReport().leases.isEmpty && holder.book.unreportedCount == 0)
        // Most of the limit is left: what lies idle stays until somebody needs it.
        holder.now += 5 * Self.second
        #expect(holder.book.maintain(now: holder.now).isEmpty)
        let lease = LeaseID(incarnation: Incarnation(1), number: 1)
        #expect(holder.book.recall([lease], now: holder.now).count == 1)
        let told = holder.book.takeDemands(now: holder.now).request.release
        #expect(told.map(\.consumed) == [NanoUSD(1)] && told.map(\.released) == [NanoUSD(9)])
        #expect(holder.book.makeReport().leases.map(\.lease) == [lease])
    }

    @Test func `a minute that is over is forgotten without a word, but for what is open`() throws {
        let holder = Holder()
        _ = try holder.reserve()
        holder.granted()
        guard case .reserved(let reservation) = try holder.reserve(),
            let opened = holder.book.open(reservation, as: .use)
        else {
            Issue.record("nothing is left of the lease")
            return
        }
        holder.log.append(.opened(opened))
        holder.now += 61 * Self.second
        #expect(holder.book.maintain(now: holder.now).isEmpty, "nobody can use it any more")
        #expect(holder.book.endMinutes(wall: holder.wall).isEmpty, "a clock may be wrong")
        holder.now += 2 * Self.second
        #expect(holder.book.endMinutes(wall: holder.wall).isEmpty, "a use is open")
        holder.book.endUse(reservation, consumed: NanoUSD(1))
        holder.log.append(.useEnded(number: reservation.number, consumed: 1))
        #expect(holder.book.endMinutes(wall: holder.wall) == [.leaseForgotten(slot: 0)])
        holder.log.append(.leaseForgotten(slot: 0))
        #expect(holder.book.makeReport().leases.isEmpty)
        #expect(holder.book.position(of: holder.terms.key) == nil)
        _ = Self.replayed(holder.log)
    }

    @Test func `nothing is asked of a minute that is over`() throws {
        let holder = Holder()
        #expect(try holder.reserve() == .needsLease)
        let lost = holder.book.takeDemands(now: holder.now).request
        #expect(lost.acquire.count == 1)
        holder.book.requestFailed(lost)
        holder.now += 63 * Self.second
        #expect(holder.book.hasDemand)
        _ = holder.book.endMinutes(wall: holder.wall)
        #expect(!holder.book.hasDemand)
    }

    @Test func `whoever is active has a lease of the next minute before it begins`() throws {
        let holder = Holder()
        holder.share = 40
        _ = try holder.reserve()
        holder.granted()
        holder.now += 45 * Self.second
        try holder.take()
        holder.book.askAhead(wall: holder.wall, now: holder.now)
        #expect(holder.granted().isEmpty, "it is early")
        var asked: [AccountKey] = []
        for _ in 0..<14 where asked.isEmpty {
            holder.now += Self.second
            try holder.take()
            holder.book.askAhead(wall: holder.wall, now: holder.now)
            asked = holder.granted().filter { $0 != holder.terms.key }
        }
        #expect(asked == [try next(holder)])
        #expect(holder.now < Self.start + 59 * Self.second)
        // It does not lie idle before it can be used, and serves without an exchange.
        holder.now = Self.start + 60 * Self.second
        #expect(holder.book.maintain(now: holder.now).isEmpty)
        holder.terms.key = try next(holder)
        try holder.take()
        #expect(!holder.book.hasQueuedDemand)
    }

    @Test func `whoever went away leaves nothing aside in the next minute`() throws {
        let holder = Holder()
        _ = try holder.reserve()
        holder.granted()
        try holder.take()
        for _ in 0..<59 {
            holder.now += Self.second
            holder.book.askAhead(wall: holder.wall, now: holder.now)
            #expect(holder.granted().isEmpty)
        }
    }

    /// Rule 6, of what has no record.
    @Test func `a use that a crash cut off is used up whole, once`() throws {
        let holder = Holder()
        _ = try holder.reserve()
        holder.granted()
        guard case .reserved(let reservation) = try holder.reserve(7),
            let opened = holder.book.open(reservation, as: .use)
        else {
            Issue.record("nothing is left of the lease")
            return
        }
        holder.log.append(.opened(opened))
        var again = Self.replayed(holder.log)
        again.replayed()
        let ends = again.endCrashedUses()
        #expect(ends == [.useEnded(number: reservation.number, consumed: 7)])
        let more = again.endCrashedUses()
        let isEndedAgain = again.endUse(reservation, consumed: .zero)
        #expect(more.isEmpty && !isEndedAgain)
        #expect(Self.replayed(holder.log + ends).snapshot() == again.snapshot())
    }
}
