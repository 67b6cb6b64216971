import WeirCore
import WeirLedger

/// What one call of the report script is about: the leases of one incarnation in one account.
struct LeaseGroup: Hashable, Sendable {
    var account: AccountKey
    var incarnation: Incarnation
}

/// What holders said last of each account. Reports come every second and list everything (rule 5);
/// most of it is known, because money lies idle at holders whose users may come back, and a call
/// of a script for each would be most of what Redis does. So an account of which a report says what
/// the one before said is passed over, for a few seconds at most: then the holder hears the
/// account's state, and which leases it does not know, all the same.
///
/// Another epoch means that Redis may have lost something: then everything is news, because the
/// epoch waits for holders to have said all that they have (rule 12).
struct ReportMemory: Sendable {
    private struct Said {
        var counters: [LeaseCounters]
        var mergedNanoseconds: UInt64
    }

    private struct Holder {
        var epoch: Int64
        var said: [LeaseGroup: Said] = [:]
    }

    private var holders: [Incarnation: Holder] = [:]
    private var count = 0
    private let accountsMax: Int

    init(accountsMax: Int = StoreLimits.unchangedAccountsMax) { self.accountsMax = accountsMax }

    /// Those that have to be merged now.
    func news(
        in groups: [LeaseGroup: [LeaseCounters]], of holder: Incarnation, epoch: Int64, now: UInt64
    ) -> [LeaseGroup: [LeaseCounters]] {
        guard let known = holders[holder], known.epoch == epoch else { return groups }
        return groups.filter { group, counters in
            guard let said = known.said[group] else { return true }
            return said.counters != counters
                || now &- said.mergedNanoseconds >= StoreLimits.unchangedNanoseconds
        }
    }

    /// After they were merged for good.
    mutating func merged(
        _ groups: [LeaseGroup: [LeaseCounters]], of holder: Incarnation, epoch: Int64, now: UInt64
    ) {
        if count + groups.count > accountsMax {
            holders = [:]
            count = 0
        }
        var known = holders[holder] ?? Holder(epoch: epoch)
        count -= known.said.count
        if known.epoch != epoch { known = Holder(epoch: epoch) }
        for (group, counters) in groups {
            // Of an account without leases there is nothing to remember.
            known.said[group] =
                counters.isEmpty ? nil : Said(counters: counters, mergedNanoseconds: now)
        }
        // Silent for longer: closed, or of a life that is over.
        known.said = known.said.filter {
            now &- $0.value.mergedNanoseconds < 4 * StoreLimits.unchangedNanoseconds
        }
        count += known.said.count
        holders[holder] = known.said.isEmpty ? nil : known
    }
}
