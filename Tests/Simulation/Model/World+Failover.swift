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
/// again, or the time for it is over (rule 12).
struct Epoch {
    /// The real store's `epochQuietMilliseconds`.
    static let quiet: UInt64 = 15 * World.second

    var began: UInt64 = 0
    var awaited: Set<Incarnation> = []
    /// Grants that were lost and that no report has put back: since the last failover, and those
    /// whose money may have been granted again.
    var lost: [SimulatedStore.Granted] = []
    var late: [SimulatedStore.Granted] = []

    func isQuiet(at now: UInt64) -> Bool { !awaited.isEmpty && now < began + Self.quiet }
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
        hit(.storeFailover)
        hit(.grantLost, gone.count)
        truth.lost(gone, to: replica, instead: store)
        store = replica.store
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
        epoch.awaited.remove(holder)
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

    /// From the first grant of an epoch on, money that a lost grant gave may be given again: what
    /// its holder still puts back is beyond the limit, and shown as that.
    func grantsBegin() {
        truth.mayExceed(epoch.lost)
        epoch.late += epoch.lost
        epoch.lost = []
    }
}
