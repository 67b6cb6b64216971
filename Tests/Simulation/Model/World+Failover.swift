import WeirCore
import WeirLedger

/// A replica of the store that lags behind: what it lacks is lost when it takes over.
struct LaggingReplica {
    var store: SimulatedStore
    var policySeen: [Int]
    /// What the primary granted since.
    var grants: [SimulatedStore.Granted] = []
}

/// The epoch that a failover begins: nothing is granted until everybody who lived then has reported
/// again, or the time for it is over; from then on `maxLease` is withheld for each who has not
/// (rule 12).
struct Epoch {
    /// The real store's `epochQuietMilliseconds`.
    static let quiet: UInt64 = 15 * World.second

    var began: UInt64 = 0
    var awaited: Set<Incarnation> = []
    /// Grants that were lost and that no report has put back: since the last failover, and those
    /// whose money may have been granted again.
    var lost: [SimulatedStore.Granted] = []
    var late: [SimulatedStore.Granted] = []

    func isQuiet(at now: UInt64, _ store: SimulatedStore) -> Bool {
        now < began + Self.quiet && !awaited.isDisjoint(with: store.incarnations.missing)
    }
}

/// Store failovers in which acknowledged writes are lost.
extension World {
    /// Only some histories have them: an account that lost grants is checked within bounds, where
    /// all others are checked to the n$.
    func replicaLags() {
        guard hasFailovers, lagging == nil else { return }
        lagging = LaggingReplica(store: store, policySeen: truth.policySeen)
        schedule(.failover, in: 2_000)
    }

    /// Joins and adoptions wait until replicas have them; in a history they are not lost, for a
    /// life that nobody knows could not even be asked.
    func failOver() {
        guard let replica = lagging else { return }
        lagging = nil
        guard !isCalm, !replica.store.incarnations.isBehind(store.incarnations) else { return }
        let gone = replica.grants + putBack(missingIn: replica)
        let number = store.incarnations.epoch
        hit(.storeFailover)
        hit(.grantLost, gone.count)
        truth.lost(gone, to: replica, instead: store)
        store = replica.store
        store.incarnations.epochBegins(after: number, at: storeTime)
        store.allChanged()
        epoch.began = now
        epoch.awaited = Set(gateways.map(\.incarnation))
        epoch.lost += gone
    }

    /// What an earlier failover had lost and reports had put back, and is lost once more.
    private func putBack(missingIn replica: LaggingReplica) -> [SimulatedStore.Granted] {
        let granted = Set(replica.grants.map(\.lease))
        return store.accounts.indices.flatMap { account in
            let known = replica.store.accounts[account]?.leases ?? [:]
            return (store.accounts[account]?.leases ?? [:])
                .filter { known[$0.key] == nil && !granted.contains($0.key) }
                .sorted { $0.key < $1.key }
                .map { id, lease in
                    SimulatedStore.Granted(
                        lease: id, account: account, amount: lease.granted,
                        expiresInMilliseconds: 0, isNew: false)
                }
        }
    }

    /// A report puts back what its holder was granted. One of before the failover may say less than
    /// what it is that is put back.
    func heard(_ holder: Incarnation, _ report: LedgerReport, sentAt: UInt64) {
        guard sentAt > epoch.began, !epoch.lost.isEmpty || !epoch.late.isEmpty else { return }
        let listed = Set(report.leases.map(\.lease))
        let putBack = (epoch.lost + epoch.late).filter {
            // Below the watermark it is closed, and whoever says otherwise says it late.
            let owner = store.accounts[$0.account]?.holders[$0.lease.incarnation]
            return listed.contains($0.lease) && $0.lease.number >= owner?.closedBelow ?? 0
                && store.incarnations.mayReport(leaseOf: $0.lease.incarnation, by: holder)
        }
        for grant in putBack where store.accounts[grant.account]?.leases[grant.lease] == nil {
            truth.fail("\(grant.lease) was reported and is not put back")
        }
        hit(.grantPutBack, putBack.count)
        let found = Set(putBack.map(\.lease))
        epoch.lost.removeAll { found.contains($0.lease) }
        epoch.late.removeAll { found.contains($0.lease) }
    }

    /// From the first grant of an epoch on, money that a lost grant gave may be given again, as far
    /// as it is not withheld: what its holder still puts back is beyond the limit, and shown as
    /// that.
    func grantsBegin() {
        guard !epoch.lost.isEmpty || !epoch.late.isEmpty else { return }
        epoch.late += epoch.lost
        epoch.lost = []
        for (share, amount) in forgotten() {
            let scope = AccountTable.scope(of: share.account)
            let isRate = AccountTable.isRate(scope: scope)
            let withheld = policies.lazy.map { $0.maxLease(scope) }.min() ?? 0
            truth.mayExceed(share, by: isRate ? amount : amount - withheld)
        }
    }

    /// What was lost and not put back of those who have not said in this epoch what they have. Of
    /// minutes nobody says it.
    private func forgotten() -> [Truth.Share: Int64] {
        var forgotten: [Truth.Share: Int64] = [:]
        for grant in epoch.lost + epoch.late {
            let holder = store.incarnations.newestLife(of: grant.lease.incarnation)
            let isRate = AccountTable.keys[grant.account].isRate
            guard isRate || store.incarnations.missing.contains(holder) else { continue }
            forgotten[Truth.Share(account: grant.account, holder: holder), default: 0] +=
                grant.amount
        }
        return forgotten
    }

    /// A grant leaves so much of the limit that silent holders can put back what they have.
    func leavesWhatIsWithheld(_ grant: SimulatedStore.Granted, _ terms: AccountBook.Terms) {
        guard !epoch.late.isEmpty, let book = store.accounts[grant.account],
            !book.account.isRate
        else { return }
        let due = forgotten().filter { $0.key.account == grant.account }.values
            .reduce(0) { $0 + min($1, terms.maxLease.rawValue) }
        guard due > 0 else { return }
        hit(.grantedBesideTheSilent)
        if book.committed + due > book.limit {
            truth.fail("\(grant.lease) is granted from what a silent holder may have")
        }
    }

    /// From here on nothing is withheld for it.
    func hasSaidAll(_ holder: Incarnation) {
        guard let gateway = gateways.firstIndex(where: { $0.incarnation == holder }) else { return }
        for grant in epoch.lost + epoch.late
        where !AccountTable.keys[grant.account].isRate
            && store.incarnations.newestLife(of: grant.lease.incarnation) == holder
        {
            guard gateways[gateway].book.knows(grant.lease),
                store.accounts[grant.account]?.leases[grant.lease] == nil
            else { continue }
            truth.fail("\(grant.lease) is open, and its holder has said all")
        }
    }
}
