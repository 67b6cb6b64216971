import Synchronization
import WeirCore
import WeirLedger
import WeirMeshProtocol

// The holder's calls: a gateway for its users, a standalone sidecar for its local allowance.

extension SidecarLedger {
    /// Interns the accounts of a subject once; keep it for as long as its terms and periods hold.
    /// `nil`: more accounts than one reservation carries, or accounts in different units.
    /// `observes`: the accounts' limits are decided about and do not hold.
    package func payer(for accounts: [AccountTerms], observes: Bool = false) -> Payer? {
        state.withLock { $0.book.payer(for: accounts, observes: observes, now: Self.bootTime()) }
    }

    /// The account whose limit would refuse an amount that is reserved and not opened yet.
    package func accountBeyond(_ payer: Payer, for amount: NanoUSD) -> AccountKey? {
        state.withLock { $0.book.accountBeyond(payer, for: amount) }
    }

    /// Sets a worst case aside on all accounts of the payer, or on none. `least` is what the
    /// attempt costs at least once bytes went upstream: the worst case for a fixed price,
    /// otherwise zero or the input's part.
    ///
    /// With `wake`, an outcome that waiting can change (`needsLease`, `contended`) keeps it and
    /// calls it once, from any thread, when one of the accounts changed: reserve again then.
    /// `waiter` gives up waiting.
    package func reserve(
        _ payer: Payer, worstCase: NanoUSD, least: NanoUSD, waiter: inout UInt64?,
        wake: (@Sendable () -> Void)?
    ) -> ReserveOutcome {
        let now = Self.bootTime()
        let (outcome, demand) = state.withLock {
            state -> (ReserveOutcome, (@Sendable () -> Void)?) in
            guard state.mayOpen() else { return (.journalFull, nil) }
            let outcome = state.book.reserve(payer, amount: worstCase, least: least, now: now)
            switch outcome {
            case .needsLease, .contended:
                if let wake { waiter = state.wait(for: payer, wake) }
            case .reserved, .exhausted, .periodOver, .journalFull: break
            }
            return (outcome, state.demandToSay())
        }
        demand?()
        return outcome
    }

    /// The same for whoever does not wait.
    package func reserve(
        _ payer: Payer, worstCase: NanoUSD, least: NanoUSD
    ) -> ReserveOutcome {
        var waiter: UInt64?
        return reserve(payer, worstCase: worstCase, least: least, waiter: &waiter, wake: nil)
    }

    /// Says that a user is served here of whom something may be spent without a control plane; the
    /// payer's last account says how much.
    package func keepStandby(_ payer: Payer) {
        let now = Self.bootTime()
        let demand = state.withLock { state in
            state.book.keepStandby(payer, now: now)
            return state.demandToSay()
        }
        demand?()
    }

    /// Without a control plane, once `reserve` finds nothing; `nil`: this is used up, too.
    package func reserveStandby(
        _ payer: Payer, worstCase: NanoUSD, least: NanoUSD
    ) -> Reservation? {
        let now = Self.bootTime()
        return state.withLock { state in
            guard state.mayOpen() else { return nil }
            return state.book.reserveStandby(payer, amount: worstCase, least: least, now: now)
        }
    }

    /// `true`: its `wake` was not called and will not be.
    @discardableResult
    package func stopWaiting(_ waiter: UInt64) -> Bool {
        state.withLock { state in
            guard let gone = state.waiters.removeValue(forKey: waiter) else { return false }
            state.book.stopWaiting(gone.accounts)
            return true
        }
    }

    /// Turns a reservation into a child: journaled when this returns, so the delegation may go to
    /// its audience, the life that is asked for the final if no answer brings it. `nil`: the log is
    /// full, or there is no such reservation; it is still to be cancelled.
    package func delegate(_ reservation: Reservation, audience: Incarnation) -> ChildKey? {
        state.withLock { state in
            guard state.makeRoom(64), state.deferred.isEmpty,
                let opened = state.book.open(reservation, as: .child, audience: audience)
            else { return nil }
            state.journal.append(.opened(opened))
            return state.book.key(of: reservation)
        }
    }

    /// Turns a reservation into an own attempt: journaled when this returns, so the first byte may
    /// go upstream. The key is what the record says that it was paid by, with child 0.
    package func open(_ reservation: Reservation) -> ChildKey? {
        state.withLock { $0.open(reservation) }
    }

    /// `reserve` and `open` in one, for an attempt that nobody waits for. With `.reserved` comes
    /// the key of the record; without one nothing is set aside.
    package func openAttempt(
        _ payer: Payer, worstCase: NanoUSD, least: NanoUSD
    ) -> (ReserveOutcome, paidBy: ChildKey?) {
        let now = Self.bootTime()
        let (outcome, key, demand) = state.withLock {
            state -> (ReserveOutcome, ChildKey?, (@Sendable () -> Void)?) in
            guard state.mayOpen() else { return (.journalFull, nil, nil) }
            let outcome = state.book.reserve(payer, amount: worstCase, least: least, now: now)
            var key: ChildKey?
            if case .reserved(let reservation) = outcome {
                key = state.open(reservation)
                if key == nil { state.book.cancel(reservation) }
            }
            return (outcome, key, state.demandToSay())
        }
        demand?()
        return (outcome, key)
    }

    /// Nothing went upstream: the money is free again.
    package func cancel(_ reservation: Reservation) {
        let calls = state.withLock { state -> [@Sendable () -> Void] in
            if !state.book.cancel(reservation), let key = state.book.key(of: reservation) {
                _ = state.end(.child(key, consumed: .zero))
            }
            return state.callsToMake()
        }
        for call in calls { call() }
    }

    /// What a child cost, once and for all. Saying it twice changes nothing.
    package func childFinal(_ key: ChildKey, consumed: NanoUSD) {
        let calls = state.withLock { state -> [@Sendable () -> Void] in
            _ = state.end(.child(key, consumed: consumed))
            return state.callsToMake()
        }
        for call in calls { call() }
    }

    /// The call of a child ended, and no settlement said what it cost. The child stays outstanding,
    /// and reports ask for its final.
    package func childLost(_ key: ChildKey) {
        state.withLock { $0.book.childLost(key) }
    }

    /// Ends an own attempt with its record. Sequence, incarnation and names are filled in here.
    @discardableResult
    package func settle(
        _ reservation: Reservation, record: AttemptRecord, names: RecordNames
    ) -> NanoUSD {
        let calls = state.withLock { state -> [@Sendable () -> Void] in
            state.end(reservation, record, names)
            return state.callsToMake()
        }
        for call in calls { call() }
        return record.cost
    }

    /// Consumes a reservation of accounts counted in requests, without a record (rule 14). `false`:
    /// the log is full.
    package func spend(_ reservation: Reservation) -> Bool {
        state.withLock { state in
            guard state.makeRoom(64), state.deferred.isEmpty,
                let spent = state.book.spend(reservation)
            else { return false }
            state.journal.append(.spent(spent))
            return true
        }
    }

    /// What a call may use of something that is no money, until `endUse`: journaled when this
    /// returns, and used up whole if the process dies before its end. `false`: the log is full, or
    /// there is no such reservation; it is still to be cancelled.
    package func beginUse(_ reservation: Reservation) -> Bool {
        state.withLock { state in
            guard state.makeRoom(64), state.deferred.isEmpty,
                let opened = state.book.open(reservation, as: .use)
            else { return false }
            state.journal.append(.opened(opened))
            return true
        }
    }

    /// What a call really used; `nil`: nobody can tell, so all of it. Saying it twice changes
    /// nothing.
    package func endUse(_ reservation: Reservation, used: NanoUSD?) {
        let calls = state.withLock { state -> [@Sendable () -> Void] in
            guard let used = used ?? state.book.amount(of: reservation) else { return [] }
            _ = state.end(.use(reservation, consumed: used))
            return state.callsToMake()
        }
        for call in calls { call() }
    }

    /// Standalone: the allowance that stands in for an account's budget. Once for each account;
    /// what a restart finds in the log is what is left of it.
    package func grantLocally(_ account: AccountTerms, amount: NanoUSD) {
        state.withLock { state in
            guard
                let entry = state.book.grantLocally(account, amount: amount, now: Self.bootTime())
            else { return }
            _ = state.commit([entry])
        }
    }

    /// `nil` until the store has said what others spent.
    package func position(of account: AccountKey) -> BudgetPosition? {
        state.withLock { $0.book.position(of: account) }
    }

    package func budgetRemaining(of account: AccountKey) -> NanoUSD? {
        position(of: account)?.remaining
    }
}

extension SidecarLedger.State {
    fileprivate mutating func open(_ reservation: Reservation) -> ChildKey? {
        guard makeRoom(64), deferred.isEmpty,
            let opened = book.open(reservation, as: .attempt),
            let key = book.key(of: reservation)
        else { return nil }
        journal.append(opened)
        return ChildKey(lease: key.lease, child: 0)
    }

    mutating func wait(for payer: Payer, _ wake: @escaping @Sendable () -> Void) -> UInt64? {
        guard waiters.count < LedgerLimits.waitersMax else { return nil }
        let number = nextWaiter
        nextWaiter += 1
        waiters[number] = SidecarLedger.Waiter(accounts: book.startWaiting(payer), wake: wake)
        return number
    }

    /// Those whose accounts changed, each once.
    mutating func takeWakes() -> [@Sendable () -> Void] {
        guard book.hasWakes else { return [] }
        let changed = book.takeWakes()
        var wakes: [@Sendable () -> Void] = []
        for (number, waiter) in waiters where waiter.accounts.contains(where: changed.contains) {
            waiters.removeValue(forKey: number)
            book.stopWaiting(waiter.accounts)
            wakes.append(waiter.wake)
        }
        return wakes
    }

    /// Whoever waited for an account that changed, and the uplink where there is something to say.
    mutating func callsToMake() -> [@Sendable () -> Void] {
        guard book.hasWakes || book.hasQueuedDemand else { return [] }
        return takeWakes() + (demandToSay().map { [$0] } ?? [])
    }

    /// The uplink is woken once for each time that it comes to take demands.
    mutating func demandToSay() -> (@Sendable () -> Void)? {
        guard !isDemandSaid, book.hasQueuedDemand, let onDemand else { return nil }
        isDemandSaid = true
        return onDemand
    }
}
