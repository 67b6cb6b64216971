import WeirCore
import WeirLedger

/// What really happened, as nobody in the mesh knows it: what every attempt cost and who pays. The
/// invariants compare the ledger with it.
struct Truth {
    struct Child {
        var accounts: [Int]
        var amount: Int64
        /// What it costs at least as far as its parent knows.
        var least: Int64
        var isAccepted = false
        /// What the agent asked for it; `nil` until it was called.
        var cost: Int64?
        var recorded: Int64?
        var isClosed = false
    }

    private(set) var children: [ChildKey: Child] = [:]
    /// Σ records, by account; of requests, those that were counted.
    private(set) var recorded = [Int64](repeating: 0, count: AccountTable.count)
    /// Σ records and what attempts that run may still cost: what must be covered by leases.
    private(set) var exposure = [Int64](repeating: 0, count: AccountTable.count)
    private var changed = AccountSet()
    /// Σ records and the least that is due for what is open: whoever is refused for good is refused
    /// because of this.
    private(set) var due = [Int64](repeating: 0, count: AccountTable.count)
    /// Counted as spent without a record: written off, or lost with the child's sidecar.
    var writtenOff = [Int64](repeating: 0, count: AccountTable.count)
    /// Leases by what was granted, and until when, at the latest, they admit.
    private(set) var grants: [LeaseID: Int64] = [:]
    private(set) var expiries: [LeaseID: UInt64] = [:]
    /// Granted and then lost with the store: spent of, perhaps, by nobody's knowledge.
    private(set) var lost = [Int64](repeating: 0, count: AccountTable.count)
    /// What late reports may put back beyond the limit.
    private(set) var beyond = [Int64](repeating: 0, count: AccountTable.count)
    private var exceeding: [Share: Int64] = [:]
    /// Found inside of a handler.
    var found: Violation?
    private(set) var served = 0

    // MARK: Grants

    /// Rules 1, 2 and 10, at the moment of the grant.
    mutating func granted(
        _ grant: SimulatedStore.Granted, now: UInt64, time: UnixTime, store: SimulatedStore,
        _ policies: [PolicyVersion]
    ) {
        let lifetime = UInt64(max(0, grant.expiresInMilliseconds)) * World.millisecond
        expiries[grant.lease] = max(expiries[grant.lease] ?? 0, now + lifetime)
        guard grant.isNew, let book = store.accounts[grant.account] else { return }
        if let before = grants[grant.lease] {
            fail("lease \(grant.lease) was granted twice: \(before), \(grant.amount)")
        }
        grants[grant.lease] = grant.amount
        let key = AccountTable.keys[grant.account]
        let limit = newestLimit(grant.account, policies)
        if book.committed > limit {
            fail("\(key): \(book.committed) set aside, the limit is \(limit)")
        }
        if let end = key.period.end, end <= time { fail("\(key): granted after its end") }
    }

    /// The newest policy by which anybody asked for this account.
    private(set) var policySeen = [Int](repeating: 1, count: AccountTable.count)

    /// Whether it is an older one than was seen before.
    mutating func asked(_ account: Int, by policy: Int) -> Bool {
        defer { policySeen[account] = max(policySeen[account], policy) }
        return policy < policySeen[account]
    }

    /// The store forgot grants, what was reported, and which policies it had seen.
    mutating func lost(
        _ gone: [SimulatedStore.Granted], to replica: LaggingReplica,
        instead primary: SimulatedStore
    ) {
        policySeen = replica.policySeen
        for grant in gone {
            let reported = primary.accounts[grant.account]?.leases[grant.lease]?.consumed ?? 0
            lost[grant.account] += grant.amount - reported
            grants[grant.lease] = nil
        }
        for account in primary.accounts.indices {
            let (was, isNow) = (primary.accounts[account], replica.store.accounts[account])
            lost[account] += (was?.consumed ?? 0) - (isNow?.consumed ?? 0)
            // Given back and granted anew: both count until it is said again.
            beyond[account] += (was?.released ?? 0) - (isNow?.released ?? 0)
        }
    }

    /// What one holder has of an account.
    struct Share: Hashable {
        var account: Int
        var holder: Incarnation
    }

    /// More than what is withheld for it may come back.
    mutating func mayExceed(_ share: Share, by amount: Int64) {
        let known = exceeding[share] ?? 0
        guard amount > known else { return }
        exceeding[share] = amount
        beyond[share.account] += amount - known
    }

    private func newestLimit(_ account: Int, _ policies: [PolicyVersion]) -> Int64 {
        policies[policySeen[account] - 1].limits[AccountTable.scope(of: account)]
    }

    // MARK: Children

    mutating func opened(
        _ key: ChildKey, _ accounts: [Int], amount: Int64, least: Int64
    ) throws {
        let child = Child(accounts: accounts, amount: amount, least: least)
        guard children.updateValue(child, forKey: key) == nil else {
            throw Violation("child \(key) was used twice")
        }
        for account in accounts { due[account] += least }
    }

    mutating func accepted(_ key: ChildKey, cost: Int64) throws {
        guard var child = children[key] else { throw Violation("child \(key) was never opened") }
        guard !child.isAccepted else { throw Violation("child \(key) was accepted twice") }
        child.isAccepted = true
        child.cost = cost
        children[key] = child
        for account in child.accounts {
            exposure[account] += child.amount
            changed.insert(account)
        }
        if child.isClosed { throw Violation("child \(key) was final before it was accepted") }
    }

    mutating func recorded(_ key: ChildKey, cost: Int64) throws {
        guard var child = children[key] else { throw Violation("child \(key) was never opened") }
        guard child.recorded == nil else { throw Violation("child \(key) has two records") }
        if let real = child.cost, cost < real {
            throw Violation("child \(key) cost \(real), its record says \(cost)")
        }
        child.recorded = cost
        served += 1
        for account in child.accounts {
            recorded[account] += cost
            due[account] += cost - child.least
            if child.isAccepted { exposure[account] += cost - child.amount }
        }
        children[key] = child
    }

    func isRecorded(_ key: ChildKey) -> Bool { children[key]?.recorded != nil }

    /// The worst case, because the log lost the record: at most so much more is charged.
    mutating func recordedAgain(_ key: ChildKey, cost: Int64) {
        guard let child = children[key] else { return }
        for account in child.accounts { writtenOff[account] += cost }
    }

    /// The parent takes a final.
    mutating func final(_ final: ChildFinal) {
        guard var child = children[final.key], !child.isClosed else { return }
        child.isClosed = true
        if !child.isAccepted {
            for account in child.accounts { due[account] -= child.least }
            child.least = 0
        }
        if child.isAccepted, final.consumed.rawValue < child.recorded ?? child.cost ?? 0 {
            fail("child \(final.key) is final at \(final.consumed), it cost more")
        }
        children[final.key] = child
    }

    /// The parent charges all of it: nobody will ever say what it cost.
    mutating func writtenOffWhole(_ key: ChildKey) {
        guard let child = children[key] else { return }
        for account in child.accounts {
            writtenOff[account] += child.amount
            due[account] += child.amount
        }
    }

    mutating func spent(_ account: Int, _ count: Int64) {
        recorded[account] += count
        exposure[account] += count
        changed.insert(account)
        due[account] += count
    }

    // MARK: Uses

    mutating func useBegan(_ account: Int, _ amount: Int64) {
        exposure[account] += amount
        changed.insert(account)
    }

    /// The log lost their ends: then they are charged whole.
    mutating func usesForgotten(_ unused: [Int: Int64]) {
        for (account, amount) in unused { writtenOff[account] += amount }
    }

    mutating func useEnded(_ account: Int, amount: Int64, used: Int64) {
        exposure[account] += used - amount
        recorded[account] += used
        due[account] += used
        changed.insert(account)
    }

    mutating func takeChanged() -> AccountSet {
        defer { changed = AccountSet() }
        return changed
    }

    // MARK: Refusals

    /// Rule 9: nobody is told 402 while a settlement or a release could still make room.
    func checkExhausted(
        _ key: AccountKey, _ amount: Int64, _ policies: [PolicyVersion]
    ) throws {
        guard let account = AccountTable.index(key) else { return }
        let scope = AccountTable.scope(of: account)
        let limit = policies.lazy.map { $0.limits[scope] }.min() ?? 0
        guard due[account] + writtenOff[account] + amount > limit else {
            throw Violation("402 with room for it: \(key), \(due[account]) due + \(amount)")
        }
    }

    mutating func fail(_ description: String) { found = found ?? Violation(description) }
}
