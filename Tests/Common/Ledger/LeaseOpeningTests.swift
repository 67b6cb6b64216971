import Testing
import WeirCore
import WeirLedger

private let second: UInt64 = 1_000_000_000
private let march = UnixTime(CivilDate(year: 2026, month: 3, day: 10))

private func terms(
    _ unit: AccountKey.Unit = .usd, limit: Int64 = 10_000, maxLease: Int64 = 1_000
) -> AccountTerms {
    let period = Period(unit == .usd ? .month : .day, at: march)
    return AccountTerms(
        key: AccountKey(unit: unit, scope: .user, period: period, id: "alice"),
        limit: NanoUSD(limit), maxLease: NanoUSD(maxLease), policyNumber: 3)
}

/// What a caller will need is asked for while somebody looks up who it is.
struct LeaseOpeningTests {
    private static func begun() -> LeaseBook {
        var book = LeaseBook()
        _ = book.begin(Incarnation(1), mayRelease: false)
        return book
    }

    private static func grants(
        _ request: LeasesRequest, _ amount: Int64, limit: Int64 = 10_000
    ) -> LeasesResponse {
        LeasesResponse(
            grants: request.acquire.map { acquire in
                LeaseGrant(
                    lease: acquire.lease, status: .granted, granted: NanoUSD(amount),
                    expiresInMilliseconds: 60_000,
                    state: AccountState(
                        account: acquire.account, limit: NanoUSD(limit), consumed: .zero,
                        consumedByOthers: .zero, held: NanoUSD(amount),
                        resetsAtMilliseconds: nil))
            })
    }

    @Test func `one message asks for the least of each account, and what comes of it serves`() {
        var book = Self.begun()
        let (request, entries) = book.takeOpening([terms(), terms(.requests)], now: second)
        #expect(request.acquire.map(\.account) == [terms().key, terms(.requests).key])
        #expect(request.acquire.map(\.need) == [NanoUSD(1), NanoUSD(1)])
        #expect(request.acquire.map(\.policyNumber) == [3, 3])
        #expect(entries.count == 1, "the numbers of leases are set aside before they are said")
        let taken = book.apply(
            Self.grants(request, 1_000), to: request, sentAt: second, now: second)
        #expect(taken.count == 2)
        let payer = book.payer(for: [terms()], now: second)
        guard let payer,
            case .reserved = book.reserve(
                payer, amount: NanoUSD(100), least: .zero, now: 2 * second)
        else {
            Issue.record("the lease that came with the lookup admits nothing")
            return
        }
        let asksAgain = book.hasDemand
        #expect(!asksAgain)
    }

    @Test func `what is held or asked for already is not asked for`() {
        var book = Self.begun()
        let (first, _) = book.takeOpening([terms()], now: second)
        #expect(book.takeOpening([terms()], now: second).request.acquire.isEmpty)
        _ = book.apply(Self.grants(first, 1_000), to: first, sentAt: second, now: second)
        #expect(book.takeOpening([terms()], now: second).request.acquire.isEmpty)
    }

    @Test func `a lookup that failed leaves its acquire to the next message, under its number`() {
        var book = Self.begun()
        let (opening, _) = book.takeOpening([terms()], now: second)
        book.requestFailed(opening)
        let asksAgain = book.hasDemand
        #expect(asksAgain)
        #expect(book.takeDemands(now: second).request.acquire == opening.acquire)
    }

    @Test func `a guess of the limit is no change of it`() {
        var book = Self.begun()
        let (request, _) = book.takeOpening([terms(limit: 10)], now: second)
        _ = book.apply(
            Self.grants(request, 1_000, limit: 20_000), to: request, sentAt: second, now: second)
        _ = book.payer(for: [terms(limit: 20_000)], now: second)
        #expect(book.position(of: terms().key)?.limit == NanoUSD(20_000))
    }

    @Test func `before a life has begun nothing is asked for`() {
        var book = LeaseBook()
        #expect(book.takeOpening([terms()], now: second).request.acquire.isEmpty)
    }
}
