import WeirCore
import WeirLedger

/// The store: the books of accounts and incarnations, told apart from the real one only by where
/// the state lies. Its operations are atomic, as scripts are.
struct SimulatedStore {
    private(set) var accounts: [AccountBook?] = Array(repeating: nil, count: AccountTable.count)
    var incarnations = IncarnationBook()
    /// Accounts whose state an operation may have changed, for who checks them.
    private var changed = AccountSet.all

    struct Granted {
        var lease: LeaseID
        var account: Int
        var amount: Int64
        var expiresInMilliseconds: Int64
        var isNew: Bool
    }

    mutating func acquire(
        _ request: LeaseAcquire, account: Int, terms: AccountBook.Terms, isQuiet: Bool
    ) -> (LeaseGrant, Granted?) {
        let refused = LeaseGrant(
            lease: request.lease, status: .unavailable, granted: .zero, expiresInMilliseconds: 0,
            state: nil)
        // A replica states the limit before it asks for anybody.
        open(account, terms)
        accounts[account]?.policyChanged(limit: terms.limit, policyNumber: terms.policyNumber)
        guard !isQuiet, incarnations.mayAcquire(request.lease.incarnation) else {
            return (refused, nil)
        }
        changed.insert(account)
        guard var book = accounts[account] else { return (refused, nil) }
        accounts[account] = nil
        var terms = terms
        terms.missing = incarnations.missing(in: AccountTable.keys[account].period)
        let before = book.granted
        let grant = book.acquire(request, terms: terms)
        let isNew = book.granted != before
        accounts[account] = book
        guard grant.status == .granted else { return (grant, nil) }
        return (
            grant,
            Granted(
                lease: request.lease, account: account, amount: grant.granted.rawValue,
                expiresInMilliseconds: grant.expiresInMilliseconds, isNew: isNew)
        )
    }

    private mutating func open(_ account: Int, _ terms: AccountBook.Terms) {
        guard accounts[account] == nil else { return }
        accounts[account] = AccountBook(
            account: AccountTable.keys[account], limit: terms.limit,
            policyNumber: terms.policyNumber)
    }

    /// What a contended account asks of others than the one that needs it.
    func recalls(of account: Int, for holder: Incarnation) -> [Incarnation: [LeaseID]] {
        var recalls: [Incarnation: [LeaseID]] = [:]
        for (id, lease) in accounts[account]?.leases ?? [:]
        where lease.held > 0 && lease.holder != holder {
            recalls[lease.holder, default: []].append(id)
        }
        return recalls.mapValues { $0.sorted() }
    }

    mutating func release(_ counters: [LeaseCounters], by holder: Incarnation) {
        for counter in counters { merge(counter, by: holder) }
    }

    private mutating func merge(_ counters: LeaseCounters, by holder: Incarnation) {
        guard incarnations.mayReport(leaseOf: counters.lease.incarnation, by: holder),
            let account = AccountTable.index(counters.account)
        else { return }
        // A failover may have lost the account with its grants.
        open(
            account,
            AccountBook.Terms(
                limit: .zero, policyNumber: 0, maxLease: .zero, now: AccountTable.turn))
        accounts[account]?.report(counters, by: holder)
        changed.insert(account)
    }

    mutating func allChanged() { changed = .all }

    mutating func takeChanged() -> AccountSet {
        defer { changed = AccountSet() }
        return changed
    }

    mutating func report(_ report: LedgerReport, by holder: Incarnation) -> ReportResponse {
        for counters in report.leases { merge(counters, by: holder) }
        incarnations.reported(holder, inEpoch: report.epoch)
        incarnations.finalsAcknowledged(report.acknowledgedFinals, by: holder)
        let lost = incarnations.ask(report.openChildren, by: holder)
        var response = ReportResponse(finals: [], recalls: [], unknown: [], states: [])
        response.epoch = incarnations.epoch
        response.writtenOff = lost.isEmpty ? nil : lost
        response.finals = incarnations.finals(for: holder)
        if isPlanted(.finalsAreSaidOnce) {
            incarnations.finalsAcknowledged(response.finals.map(\.key), by: holder)
        }
        let listed = Set(report.leases.map(\.lease))
        let rates = Set(report.leases.lazy.map(\.account).filter(\.isRate))
        for index in accounts.indices {
            // Nobody is asked for what a report does not list of a minute.
            if AccountTable.keys[index].isRate, !rates.contains(AccountTable.keys[index]) {
                continue
            }
            guard
                accounts[index]?.holders[holder] != nil || accounts[index]?.leases.isEmpty == false,
                let book = accounts[index]
            else { continue }
            response.unknown += unknown(book, to: holder, listed, report.highestLease)
            // Without its limit, which a failover lost, there is nothing to say of it.
            if book.policyNumber > 0 { response.states.append(book.state(for: holder)) }
        }
        return response
    }

    /// Also what a predecessor had and no report has brought over yet.
    private func unknown(
        _ book: AccountBook, to holder: Incarnation, _ listed: Set<LeaseID>, _ highest: Int64
    ) -> [UnknownLease] {
        var owners: Set<Incarnation> = []
        for lease in book.leases.values where !lease.isClosed { owners.insert(lease.holder) }
        return owners.sorted().filter { incarnations.mayReport(leaseOf: $0, by: holder) }
            .flatMap {
                book.unknown(to: $0, listed: listed, highest: $0 == holder ? highest : .max)
            }
    }

    /// What was written off in each account.
    mutating func writeOff(_ incarnation: Incarnation) -> [Int64] {
        incarnations.writeOff(incarnation)
        allChanged()
        return accounts.indices.map { accounts[$0]?.writeOff(incarnation) ?? 0 }
    }
}
