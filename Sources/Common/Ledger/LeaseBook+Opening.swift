import WeirCore

extension LeaseBook {
    /// What a caller who is being looked up will need first, to be asked for in the same message:
    /// leases of accounts that the caller is likely to have and of which nothing is held or asked
    /// for here. How much a request will need is not known yet, so the least is asked for. Where
    /// money is ample the store gives the holder's whole share (decision 18), and where it is
    /// not, nobody goes without it for the sake of a guess.
    ///
    /// The answer is taken as that of any `LeasesRequest`; an account that does not exist is
    /// refused like one.
    package mutating func takeOpening(
        _ accounts: [AccountTerms], now: UInt64
    ) -> (request: LeasesRequest, entries: [LedgerEntry]) {
        var request = LeasesRequest(acquire: [], release: [])
        var entries: [LedgerEntry] = []
        guard let incarnation, !mustReportFirst else { return (request, entries) }
        for terms in accounts.prefix(LedgerLimits.accountsPerReservationMax) {
            guard let account = intern(terms.key, now: now), isUntouched(account, now: now) else {
                continue
            }
            let slot = Int(account)
            if self.accounts[slot].limit == 0 {
                // The limit itself comes with the binding: a guess must not look like a change.
                self.accounts[slot].maxLease = terms.maxLease.rawValue
                self.accounts[slot].policyNumber = terms.policyNumber
            }
            self.accounts[slot].needMin = 1
            ask(account, now: now, &entries)
            self.accounts[slot].pending.isUnderWay = true
            request.acquire.append(acquire(for: account, incarnation: incarnation))
        }
        return (request, entries)
    }

    private func isUntouched(_ account: UInt32, now: UInt64) -> Bool {
        let row = accounts[Int(account)]
        return row.firstLease == noSlot && row.pending.number == 0 && !row.isQueued
            && row.deniedUntil <= now
    }
}
