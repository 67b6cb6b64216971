import Testing
import WeirCore
import WeirLedger

/// What users may spend without a control plane (rule 11): an account of its own, shared by its
/// holders, and money that is kept beside it.
@Suite struct LeaseStandbyTests {
    private static let second: UInt64 = 1_000_000_000
    private static let march = UnixTime(CivilDate(year: 2026, month: 3, day: 10))
    private static let limit: Int64 = 10_000
    private static let allowed: Int64 = 800

    private static func terms(
        _ scope: AccountKey.Scope, _ limit: Int64, _ maxLease: Int64
    ) -> AccountTerms {
        AccountTerms(
            key: AccountKey(
                unit: .usd, scope: scope, period: Period(.month, at: march), id: "ann"),
            limit: NanoUSD(limit), maxLease: NanoUSD(maxLease), policyNumber: 1)
    }

    /// The store's side, by the rules that the scripts follow.
    private final class Store {
        var books: [AccountKey: AccountBook] = [:]
        let terms: [AccountTerms]
        var now = LeaseStandbyTests.march

        init(_ terms: [AccountTerms]) {
            self.terms = terms
            for one in terms {
                books[one.key] = AccountBook(account: one.key, limit: one.limit, policyNumber: 1)
            }
        }

        func answer(_ request: LeasesRequest, by holder: Incarnation) -> LeasesResponse {
            for counters in request.release {
                books[counters.account]?.report(counters, by: holder)
            }
            return LeasesResponse(
                grants: request.acquire.map { acquire in
                    let maxLease = terms.first { $0.key == acquire.account }?.maxLease ?? .zero
                    let limit = terms.first { $0.key == acquire.account }?.limit ?? .zero
                    let grant = books[acquire.account]?.acquire(
                        acquire,
                        terms: AccountBook.Terms(
                            limit: limit, policyNumber: 1, maxLease: maxLease, now: now))
                    return grant
                        ?? LeaseGrant(
                            lease: acquire.lease, status: .unknownAccount, granted: .zero,
                            expiresInMilliseconds: 0, state: nil)
                })
        }

        func leases(_ scope: AccountKey.Scope, of holder: Incarnation) -> [LeaseID] {
            books.values.filter { $0.account.scope == scope }.flatMap { book in
                book.leases.filter { $0.value.holder == holder && $0.value.held > 0 }.map(\.key)
            }
        }

        func held(_ scope: AccountKey.Scope) -> Int64 {
            books.values.first { $0.account.scope == scope }?.held ?? 0
        }
    }

    private final class Holder {
        let id: Incarnation
        let store: Store
        var book = LeaseBook()
        var now = 1_000 * LeaseStandbyTests.second

        init(_ number: Int64, _ store: Store) {
            id = Incarnation(number)
            self.store = store
            _ = book.begin(id, mayRelease: false)
        }

        func payer(_ terms: [AccountTerms]) throws -> Payer {
            let payer = book.payer(for: terms, now: now)
            return try #require(payer)
        }

        /// As for each request: says whom it serves, and takes what it needs with the store's help.
        func serve(_ amount: Int64) throws -> Bool {
            book.keepStandby(try payer(store.terms), now: now)
            for _ in 0..<3 {
                let outcome = book.reserve(
                    try payer(Array(store.terms.dropLast())), amount: NanoUSD(amount),
                    least: .zero, now: now)
                if case .reserved(let reservation) = outcome {
                    spend(reservation, amount)
                    talk()
                    return true
                }
                talk()
            }
            return false
        }

        /// Without the store.
        func serveAlone(_ amount: Int64) throws -> Bool {
            let payer = try payer(store.terms)
            guard
                let reservation = book.reserveStandby(
                    payer, amount: NanoUSD(amount), least: .zero, now: now)
            else { return false }
            spend(reservation, amount)
            return true
        }

        private func spend(_ reservation: Reservation, _ amount: Int64) {
            let opened = book.open(reservation, as: .attempt)
            #expect(opened?.amount == amount)
            let isSettled = book.settle(reservation, cost: NanoUSD(amount))
            #expect(isSettled)
        }

        /// Asks, and reports.
        func talk() {
            for _ in 0..<2 {
                let (request, _, _) = book.takeDemands(now: now)
                _ = book.apply(store.answer(request, by: id), to: request, sentAt: now, now: now)
                report()
            }
        }

        private func report() {
            let report = book.makeReport()
            for counters in report.leases {
                store.books[counters.account]?.report(counters, by: id)
            }
            let states = store.books.values.map { $0.state(for: id) }
            _ = book.apply(
                ReportResponse(finals: [], recalls: [], unknown: [], states: states), to: report,
                now: now)
        }

        /// What it does each second, for some time.
        func idle(seconds: Int) {
            for _ in 0..<seconds {
                now += LeaseStandbyTests.second
                store.now = UnixTime(milliseconds: store.now.milliseconds + 1_000)
                book.askAhead(wall: store.now, now: now)
                _ = book.maintain(now: now)
                talk()
            }
        }
    }

    private static var accounts: [AccountTerms] {
        [
            terms(.user, limit, 400 + allowed), terms(.tenant, limit, 400 + allowed),
            terms(.standby, allowed, allowed),
        ]
    }

    @Test func `what is allowed is spent past the time of the leases, and no more`() throws {
        let store = Store(Self.accounts)
        let holder = Holder(1, store)
        #expect(try holder.serve(100))
        holder.idle(seconds: 5)
        // Away for longer than a lease admits.
        holder.now += 3_600 * Self.second
        var served: Int64 = 0
        while try holder.serveAlone(100) { served += 100 }
        #expect(served == Self.allowed)
        #expect(holder.book.overdrawnLease() == nil)
        // What came of it is in every account when the store is back.
        holder.talk()
        for book in store.books.values where book.account.scope != .standby {
            #expect(book.consumed == 100 + Self.allowed)
        }
        #expect(try !holder.serveAlone(1))
    }

    @Test func `it ends with the month`() throws {
        let store = Store(Self.accounts)
        let holder = Holder(1, store)
        #expect(try holder.serve(100))
        holder.idle(seconds: 2)
        holder.now += 20 * 86_400 * Self.second
        #expect(try holder.serveAlone(100))
        holder.now += 2 * 86_400 * Self.second
        #expect(try !holder.serveAlone(100))
    }

    @Test func `holders that serve the same user share it`() throws {
        let store = Store(Self.accounts)
        let holders = [Holder(1, store), Holder(2, store)]
        #expect(try holders[0].serve(100))
        #expect(store.held(.standby) == Self.allowed)
        #expect(try holders[1].serve(100))
        _ = holders[0].book.recall(store.leases(.standby, of: holders[0].id), now: holders[0].now)
        holders[0].talk()
        holders[1].now += 2 * Self.second
        #expect(try holders[1].serve(100))
        for holder in holders { holder.idle(seconds: 3) }
        var served = [Int64](repeating: 0, count: 2)
        for index in holders.indices {
            while try holders[index].serveAlone(50) { served[index] += 50 }
        }
        #expect(served == [Self.allowed / 2, Self.allowed / 2])
    }

    @Test func `it stays while the user is known and goes back later`() throws {
        let store = Store(Self.accounts)
        let holder = Holder(1, store)
        #expect(try holder.serve(100))
        holder.idle(seconds: 120)
        #expect(store.held(.standby) == Self.allowed)
        #expect(store.held(.user) >= Self.allowed)
        #expect(store.held(.tenant) >= Self.allowed)
        holder.idle(seconds: 900)
        #expect(store.held(.standby) == 0)
        #expect(store.held(.user) == 0)
        #expect(store.held(.tenant) == 0)
    }

    @Test func `who needs the last of a limit gets it`() throws {
        let store = Store([
            Self.terms(.user, 1_000, 1_000), Self.terms(.standby, Self.allowed, Self.allowed),
        ])
        let holders = [Holder(1, store), Holder(2, store)]
        #expect(try holders[0].serve(100))
        holders[0].idle(seconds: 70)
        #expect(store.held(.user) >= Self.allowed)
        #expect(try !holders[1].serve(900))
        _ = holders[0].book.recall(store.leases(.user, of: holders[0].id), now: holders[0].now)
        holders[0].talk()
        holders[1].now += 2 * Self.second
        #expect(try holders[1].serve(900))
        // Nothing is left to spend without a control plane, whatever the tier allows.
        #expect(try !holders[0].serveAlone(1))
        #expect(store.books.values.first { $0.account.scope == .user }?.consumed == 1_000)
    }

    @Test func `the same holder spends the last of a limit itself`() throws {
        let store = Store([
            Self.terms(.user, 1_000, 1_000), Self.terms(.standby, Self.allowed, Self.allowed),
        ])
        let holder = Holder(1, store)
        #expect(try holder.serve(100))
        holder.idle(seconds: 70)
        #expect(try holder.serve(900))
    }

    @Test func `what a log tells of is not spent without a control plane`() throws {
        let store = Store(Self.accounts)
        let holder = Holder(1, store)
        #expect(try holder.serve(100))
        holder.idle(seconds: 2)
        var again = LeaseBook()
        for entry in holder.book.snapshot() {
            let isUnderstood = again.replay(entry)
            #expect(isUnderstood)
        }
        again.replayed()
        holder.book = again
        #expect(try !holder.serveAlone(1))
    }
}
