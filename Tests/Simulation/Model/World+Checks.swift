import WeirCore
import WeirLedger

extension World {
    /// After every event.
    func check() throws {
        if let found = truth.found { throw found }
        for account in store.takeChanged().union(truth.takeChanged()) {
            guard let book = store.accounts[account] else { continue }
            // Every admitted request is covered by money that is set aside or counted, and that is
            // within some limit.
            let covered = book.committed + truth.lost[account]
            if truth.exposure[account] > covered {
                throw Violation(
                    "\(book.account): \(truth.exposure[account]) spent or running, "
                        + "\(covered) set aside")
            }
            let limit = highestLimits[AccountTable.scope(of: account)]
            if book.committed - book.overrun > limit + truth.beyond[account] {
                throw Violation("\(book.account): \(book.committed) set aside, never \(limit)")
            }
            // Nothing is counted twice.
            let known = truth.recorded[account] + truth.writtenOff[account]
            if book.consumed > known {
                throw Violation("\(book.account): \(book.consumed) charged, \(known) recorded")
            }
            if book.overrun > truth.writtenOff[account] + truth.lost[account] {
                throw Violation("\(book.account): \(book.overrun) beyond its leases")
            }
        }
        for gateway in gateways.indices where gateways[gateway].isTouched {
            gateways[gateway].isTouched = false
            // Rule 3, at the holder.
            if let lease = gateways[gateway].book.overdrawnLease() {
                throw Violation("lease \(lease) is overdrawn")
            }
        }
    }

    /// No faults and no new requests any more: everything comes to rest, to the n$.
    func settleDown() throws {
        isCalm = true
        partitionedUntil = partitionedUntil.map { _ in 0 }
        for gateway in gateways.indices {
            // What it would do when it goes on is scheduled for then.
            if gateways[gateway].pausedUntil > now { scheduleReport(ofGateway: gateway) }
            gateways[gateway].isReportScheduled = false
            gateways[gateway].isAskScheduled = false
            gateways[gateway].pausedUntil = 0
            if gateways[gateway].isDown { try restartGateway(gateway) }
        }
        for agent in agents.indices where agents[agent].isDown { try restartAgent(agent) }
        for orphan in orphans.sorted() { writeOff(orphan) }
        try run(milliseconds: 4_000)
        for gateway in gateways.indices {
            for key in gateways[gateway].book.openChildren() {
                gateways[gateway].book.childLost(key)
            }
        }
        // Leases of a next period may wait for its first moments.
        let untilTurn = AccountTable.turn.milliseconds - wall().milliseconds
        try run(milliseconds: UInt64(max(12_000, untilTurn + 12_000)))
        try checkAtRest()
        try checkIdle()
        if counts[.storeFailover] == 0 { try probeRecall() }
    }

    private func run(milliseconds: UInt64) throws {
        let end = now + milliseconds * Self.millisecond
        while let next = queue.pop() {
            guard next.at <= end else {
                queue.push(next.event, at: next.at)
                break
            }
            now = max(now, next.at)
            try handle(next.event)
            try check()
        }
        now = max(now, end)
    }

    private func checkAtRest() throws {
        for (index, gateway) in gateways.enumerated() where counts[.storeFailover] == 0 {
            // Leases of lives that were written off count as spent, whatever is open of them. What
            // a failover lost of finals may be in nobody's memory any more.
            for key in gateway.book.openChildren() where !orphans.contains(key.issuer) {
                throw Violation("gateway \(index): child \(key) is open for ever")
            }
        }
        for account in store.accounts.indices {
            guard let book = store.accounts[account] else { continue }
            let recorded = truth.recorded[account]
            // What is open for ever is set aside for ever, and covers what it cost.
            let isSaid = counts[.storeFailover] == 0 && !book.account.isRate
            let charged = book.consumed + (isSaid ? 0 : book.held)
            guard charged >= recorded - truth.lost[account] else {
                throw Violation("\(book.account): \(book.consumed) charged, \(recorded) recorded")
            }
            // What was said once, acknowledged, and lost with the store and its holder's memory,
            // waits for an operator.
            guard counts[.storeFailover] == 0 else { continue }
            // What was used of a minute is not said any more when it is over.
            guard !book.account.isRate else { continue }
            if truth.writtenOff[account] == 0, book.consumed != recorded {
                throw Violation("\(book.account): \(book.consumed) is not \(recorded)")
            }
        }
    }

    /// Promise 2: what nobody uses is back within five seconds where half of the limit or more is
    /// spent or set aside, and within a minute otherwise. What was said once, acknowledged, and
    /// lost with the store and its holder's memory, waits for an operator.
    private func checkIdle() throws {
        guard counts[.storeFailover] == 0 else { return }
        if hasStandby {
            guard random.chance(60) else { return }
            try run(milliseconds: LedgerLimits.standbyNanoseconds / Self.millisecond)
        }
        let early = heldLeases(whereScarce: true)
        guard random.chance(125) || !early.isEmpty else { return }
        // A lease of an account in use may have been replaced a moment ago.
        try run(milliseconds: 4_000)
        let stays = early.intersection(heldLeases(whereScarce: true))
        guard stays.isEmpty else { throw Violation("\(stays.sorted()) are held by nobody") }
        try run(milliseconds: LedgerLimits.ampleIdleNanoseconds / Self.millisecond)
        let late = heldLeases(whereScarce: false)
        guard late.isEmpty else { throw Violation("\(late.sorted()) are held for ever") }
    }

    private func heldLeases(whereScarce: Bool) -> Set<LeaseID> {
        var held: Set<LeaseID> = []
        for case let book? in store.accounts
        // Of a minute the store is not told what is spent and what lies idle, and need not be.
        where !book.account.isRate
            && (!whereScarce || book.consumed + book.held > book.limit / 2)
        {
            for (id, lease) in book.leases where lease.held > 0 {
                // Leases of a next period may wait for its first moments.
                let isStandby = book.account.scope == .standby
                if isStandby || truth.expiries[id] ?? 0 < now + 55 * Self.second {
                    held.insert(id)
                }
            }
        }
        return held
    }

    /// Rule 9: one gateway holds most of what is left and uses none of it; another needs more than
    /// the rest. The recall brings it before it has lain idle for long enough to come by itself.
    private func probeRecall() throws {
        let time = storeTime.milliseconds - AccountTable.turn.milliseconds
        guard abs(time) > 10_000 else { return }
        let scope = AccountTable.requests(AccountTable.userCount - 1)
        let account = AccountTable.index(scope: scope, period: time < 0 ? 0 : 1)
        var policy = policies[policies.count - 1]
        policy.limits[scope] = (store.accounts[account]?.committed ?? 0) + 100
        policies.append(policy)
        replicaPolicies = replicaPolicies.map { _ in policies.count }
        let first = try reserved(0, account, 80, limit: policy.limits[scope])
        gateways[0].book.cancel(first)
        _ = try reserved(1, account, 60, limit: policy.limits[scope])
    }

    private func reserved(
        _ gateway: Int, _ account: Int, _ amount: Int64, limit: Int64
    ) throws -> Reservation {
        let terms = AccountTerms(
            key: AccountTable.keys[account], limit: NanoUSD(limit), maxLease: NanoUSD(limit),
            policyNumber: Int64(policies.count))
        let end = now + 2_400 * Self.millisecond
        while now < end {
            let boot = bootTime(gateway)
            guard let payer = gateways[gateway].book.payer(for: [terms], now: boot) else { break }
            let outcome = gateways[gateway].book.reserve(
                payer, amount: NanoUSD(amount), least: .zero, now: boot)
            if case .reserved(let reservation) = outcome { return reservation }
            askSoon(gateway)
            try run(milliseconds: 20)
        }
        throw Violation("\(amount) of \(AccountTable.keys[account]) is not to be had")
    }
}
