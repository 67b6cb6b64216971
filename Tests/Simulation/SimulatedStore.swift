import WeirCore
import WeirLedger

/// The store: the books of accounts and incarnations, told apart from the real one only by where
/// the state lies. Its operations are atomic, as scripts are.
struct SimulatedStore {
    private(set) var accounts: [AccountKey: AccountBook] = [:]
    var incarnations = IncarnationBook()
    let limit: NanoUSD
    let maxLease: NanoUSD
    /// Leases that were granted, with their amounts: a second grant must be the same one.
    private(set) var grants: [LeaseID: Int64] = [:]
    private(set) var wasGrantedTwice = false

    init(limit: NanoUSD, maxLease: NanoUSD) {
        self.limit = limit
        self.maxLease = maxLease
    }

    func account(_ key: AccountKey) -> AccountBook {
        accounts[key] ?? AccountBook(account: key, limit: limit, policyNumber: 1)
    }

    mutating func acquire(_ request: LeasesRequest, now: UnixTime) -> LeasesResponse {
        for counters in request.release {
            guard let holder = speaker(for: counters.lease.incarnation) else { continue }
            merge(counters, by: holder)
        }
        var response = LeasesResponse(grants: [])
        for acquire in request.acquire {
            guard incarnations.mayAcquire(acquire.lease.incarnation) else { continue }
            var book = account(acquire.account)
            let before = book.granted
            let grant = book.acquire(
                acquire,
                terms: AccountBook.Terms(
                    limit: limit, policyNumber: 1, maxLease: maxLease, now: now))
            if book.granted != before {
                if grants[acquire.lease] != nil { wasGrantedTwice = true }
                grants[acquire.lease] = grant.granted.rawValue
            }
            accounts[acquire.account] = book
            response.grants.append(grant)
        }
        return response
    }

    /// The newest life that speaks for a lease; in the real store the session says who speaks.
    private func speaker(for owner: Incarnation) -> Incarnation? {
        var current = owner
        while let next = incarnations.adoptedBy[current] { current = next }
        return current
    }

    mutating func report(
        _ report: LedgerReport, childFinals: [ChildFinal], by holder: Incarnation
    ) -> ReportResponse {
        for counters in report.leases
        where incarnations.mayReport(leaseOf: counters.lease.incarnation, by: holder) {
            merge(counters, by: holder)
        }
        for final in childFinals { incarnations.finalReported(final) }
        incarnations.finalsAcknowledged(report.acknowledgedFinals, by: holder)
        incarnations.ask(report.openChildren, by: holder)
        let listed = Set(report.leases.map(\.lease))
        var response = ReportResponse(finals: [], recalls: [], unknown: [], states: [])
        response.finals = incarnations.finals(for: holder)
        for (_, book) in accounts.sorted(by: { $0.key.description < $1.key.description }) {
            response.unknown += unknown(book, to: holder, listed, report.highestLease)
            response.states.append(book.state(for: holder))
        }
        return response
    }

    /// Also what a predecessor had and no report has brought over yet.
    private func unknown(
        _ book: AccountBook, to holder: Incarnation, _ listed: Set<LeaseID>, _ highest: Int64
    ) -> [UnknownLease] {
        let owners = Set(book.leases.values.map(\.holder)).sorted()
        return owners.filter { incarnations.mayReport(leaseOf: $0, by: holder) }.flatMap {
            book.unknown(to: $0, listed: listed, highest: $0 == holder ? highest : .max)
        }
    }

    private mutating func merge(_ counters: LeaseCounters, by holder: Incarnation) {
        guard var book = accounts[counters.account] else { return }
        book.report(counters, by: holder)
        accounts[counters.account] = book
    }
}
