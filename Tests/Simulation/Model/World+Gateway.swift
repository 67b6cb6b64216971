import WeirCore
import WeirLedger

/// What gateways do, in the order in which `SidecarLedger` does it: the change in memory, the
/// entry, and only then the word to others. Between the steps the process may die.
extension World {
    // MARK: Requests

    func request(_ gateway: Int) throws {
        let user = random.below(AccountTable.userCount)
        if random.chance(200) { try takeRequest(gateway, user) }
        if random.chance(200) { try useTokens(gateway, user) }
        let isFixed = random.chance(500)
        let amount = 1 + random.below(random.chance(50) ? Int64(4_000) : 400)
        let payer: Payer
        var accounts = accounts(AccountTable.paying(user), at: wall(of: gateway))
        (payer, accounts) = self.payer(gateway, accounts)
        let least = NanoUSD(isFixed ? amount : 0)
        var outcome = ReserveOutcome.needsLease
        // With or without a store: nothing must go wrong where a gateway errs about it.
        if !hasStandby || !random.chance(300) {
            outcome = gateways[gateway].book.reserve(
                payer, amount: NanoUSD(amount), least: least, now: bootTime(gateway))
        }
        if hasStandby, let (reservation, paying) = standby(gateway, user, outcome, amount, least) {
            outcome = .reserved(reservation)
            accounts = paying
        }
        askSoon(gateway)
        // Where a failover lost that a successor had taken leases over, what was spent of them
        // counts twice until they are taken over again.
        if case .exhausted(let key, _) = outcome, counts[.storeFailover] == 0 {
            try truth.checkExhausted(key, amount, policies)
        }
        guard case .reserved(let reservation) = outcome else { return }
        try checkLease(gateway, reservation)
        try step()
        if random.chance(100) {
            gateways[gateway].book.cancel(reservation)
            return
        }
        let agent = random.below(agents.count)
        let audience = agents[agent].incarnation
        guard let key = gateways[gateway].book.key(of: reservation),
            let opened = gateways[gateway].book.open(
                reservation, as: .child, audience: audience)
        else { throw Violation("a reservation cannot be opened") }
        let delegation = Message.delegation(
            gateway: gateway, agent: agent, key, audience: audience, amount: amount)
        if isPlanted(.sentBeforeJournaled) {
            try truth.opened(key, accounts, amount: amount, least: isFixed ? amount : 0)
            send(delegation)
            try step()
            gateways[gateway].log.commit(.opened(opened))
            return
        }
        gateways[gateway].log.commit(.opened(opened))
        try truth.opened(key, accounts, amount: amount, least: isFixed ? amount : 0)
        try step()
        send(delegation)
        if random.chance(30) { gateways[gateway].book.childLost(key) }
    }

    /// What may be spent without a control plane.
    private func standby(
        _ gateway: Int, _ user: Int, _ outcome: ReserveOutcome, _ amount: Int64, _ least: NanoUSD
    ) -> (Reservation, [Int])? {
        let scopes = AccountTable.paying(user) + [AccountTable.standby(user)]
        let (payer, accounts) = payer(gateway, accounts(scopes, at: wall(of: gateway)))
        gateways[gateway].book.keepStandby(payer, now: bootTime(gateway))
        switch outcome {
        case .contended, .needsLease: break
        case .reserved, .exhausted, .periodOver, .journalFull: return nil
        }
        guard
            let reservation = gateways[gateway].book.reserveStandby(
                payer, amount: NanoUSD(amount), least: least, now: bootTime(gateway))
        else { return nil }
        hit(.spentOnStandby)
        return (reservation, accounts)
    }

    /// Rule 14: counted at the first hop, at once and without a record; by the day and the minute.
    private func takeRequest(_ gateway: Int, _ user: Int) throws {
        let scopes = [AccountTable.requests(user), AccountTable.requestsPerMinute(user)]
        guard let (reservation, accounts) = try reserve(gateway, scopes, 1, least: 1) else {
            return
        }
        try step()
        guard let spent = gateways[gateway].book.spend(reservation) else {
            throw Violation("a counted request cannot be spent")
        }
        gateways[gateway].log.commit(.spent(spent))
        for account in accounts { truth.spent(account, 1) }
        try step()
    }

    /// The tokens of a call: set aside for as long as it takes, then what it used.
    private func useTokens(_ gateway: Int, _ user: Int) throws {
        let amount = 1 + random.below(random.chance(50) ? Int64(3_000) : 300)
        let scopes = [AccountTable.tokens(user)]
        guard let (reservation, accounts) = try reserve(gateway, scopes, amount, least: 0),
            let account = accounts.first
        else { return }
        try step()
        guard let opened = gateways[gateway].book.open(reservation, as: .use) else {
            throw Violation("a use cannot be opened")
        }
        gateways[gateway].log.commit(.opened(opened))
        truth.useBegan(account, amount)
        gateways[gateway].uses[reservation] = SimulatedGateway.Use(account: account, amount: amount)
        try step()
        schedule(
            .useEnds(gateway: gateway, life: gateways[gateway].life, reservation), in: 3_000)
    }

    func endUse(_ gateway: Int, _ reservation: Reservation) throws {
        guard let use = gateways[gateway].uses.removeValue(forKey: reservation) else { return }
        let used = random.below(use.amount + 1)
        truth.useEnded(use.account, amount: use.amount, used: used)
        gateways[gateway].usesUnused[use.account, default: 0] += use.amount - used
        gateways[gateway].log.commit(.useEnded(number: reservation.number, consumed: used))
        gateways[gateway].book.endUse(reservation, consumed: NanoUSD(used))
        try step()
        askSoon(gateway)
    }

    /// Where the store's clock is ahead, of the minute that it is in.
    private func reserve(
        _ gateway: Int, _ scopes: [Int], _ amount: Int64, least: Int64
    ) throws -> (Reservation, accounts: [Int])? {
        var accounts = accounts(scopes, at: wall(of: gateway))
        guard !accounts.isEmpty else { return nil }
        for _ in 0..<3 {
            let (payer, _) = payer(gateway, accounts)
            let outcome = gateways[gateway].book.reserve(
                payer, amount: NanoUSD(amount), least: NanoUSD(least), now: bootTime(gateway))
            askSoon(gateway)
            switch outcome {
            case .reserved(let reservation):
                try checkLease(gateway, reservation)
                return (reservation, accounts)
            case .exhausted(let key, _):
                guard counts[.storeFailover] == 0 else { return nil }
                try truth.checkExhausted(key, amount, policies)
                return nil
            case .periodOver(let key):
                hit(.minuteOver)
                guard let over = accounts.firstIndex(where: { AccountTable.keys[$0] == key }),
                    let end = key.period.end,
                    let next = AccountTable.index(
                        AccountKey(
                            unit: key.unit, scope: key.scope, period: Period(.minute, at: end),
                            id: key.id))
                else { return nil }
                accounts[over] = next
            case .contended, .needsLease, .journalFull: return nil
            }
        }
        return nil
    }

    private func wall(of gateway: Int) -> UnixTime { wall(offset: gateways[gateway].wallOffset) }

    private func accounts(_ scopes: [Int], at time: UnixTime) -> [Int] {
        scopes.compactMap { scope in
            AccountTable.period(scope: scope, at: time).map {
                AccountTable.index(scope: scope, period: $0)
            }
        }
    }

    /// Interned once for some accounts and a policy version, as gateways do.
    private func payer(_ gateway: Int, _ accounts: [Int]) -> (Payer, [Int]) {
        if let known = gateways[gateway].payers[accounts] { return (known, accounts) }
        let number = gateways[gateway].policy
        let policy = policies[number - 1]
        let terms = accounts.map { account in
            let scope = AccountTable.scope(of: account)
            return AccountTerms(
                key: AccountTable.keys[account], limit: NanoUSD(policy.limits[scope]),
                maxLease: NanoUSD(policy.maxLease(scope)), policyNumber: Int64(number))
        }
        guard let payer = gateways[gateway].book.payer(for: terms, now: bootTime(gateway)) else {
            preconditionFailure("three accounts of one unit make a payer")
        }
        gateways[gateway].payers[accounts] = payer
        return (payer, accounts)
    }

    /// Rule 4: the store counts a lease's time from before its answer, and nobody uses it longer.
    private func checkLease(_ gateway: Int, _ reservation: Reservation) throws {
        // The last one's lease vouches for the others where it is for a time without the store.
        guard let lease = gateways[gateway].book.lastLease(of: reservation) else { return }
        guard now <= truth.expiries[lease] ?? .max else {
            throw Violation("lease \(lease) admits after its end")
        }
    }

    // MARK: Asking

    func askSoon(_ gateway: Int) {
        guard !gateways[gateway].isAskScheduled else { return }
        let waits = gateways[gateway].asked != nil
        guard waits || gateways[gateway].book.hasDemand else { return }
        gateways[gateway].isAskScheduled = true
        schedule(.ask(gateway: gateway), in: waits ? 600 : 3)
    }

    func ask(_ gateway: Int) throws {
        if let asked = gateways[gateway].asked {
            guard now - gateways[gateway].askedAt > 500 * Self.millisecond else {
                return askSoon(gateway)
            }
            gateways[gateway].book.requestFailed(asked)
            gateways[gateway].asked = nil
        }
        let sentAt = bootTime(gateway)
        let (request, entries, _) = gateways[gateway].book.takeDemands(now: sentAt)
        try commit(gateway, entries)
        if !request.acquire.isEmpty || !request.release.isEmpty {
            gateways[gateway].asked = request
            gateways[gateway].askedAt = now
            send(
                .acquire(
                    gateway: gateway, life: gateways[gateway].life, request,
                    by: gateways[gateway].incarnation, sentAt: sentAt))
            // Asleep while the answer waits: it is old when it is read.
            if !isCalm, random.chance(3) {
                let length = 58 * Self.second + random.milliseconds(10_000)
                pause(gateway, length)
                queue.push(.timePasses(until: now + length), at: now + 50 * Self.millisecond)
            }
        }
        askSoon(gateway)
    }

    func granted(
        _ gateway: Int, _ response: LeasesResponse, to request: LeasesRequest, sentAt: UInt64
    ) throws {
        // A late answer to a request that was given up is no answer to the one under way.
        if gateways[gateway].asked == request { gateways[gateway].asked = nil }
        let entries = gateways[gateway].book.apply(
            response, to: request, sentAt: sentAt, now: bootTime(gateway))
        try commit(gateway, entries)
        if response.grants.contains(where: { $0.status == .contended }) {
            scheduleReport(ofGateway: gateway, soon: true)
        }
        askSoon(gateway)
    }

    // MARK: Reporting

    func report(_ gateway: Int) throws {
        let time = wall(of: gateway)
        let boot = bootTime(gateway)
        gateways[gateway].book.askAhead(wall: time, now: boot)
        let entries =
            gateways[gateway].book.endMinutes(wall: time)
            + gateways[gateway].book.maintain(now: boot)
        try commit(gateway, entries)
        let report = gateways[gateway].book.makeReport()
        send(
            .report(
                gateway: gateway, life: gateways[gateway].life, report,
                by: gateways[gateway].incarnation, sentAt: now))
        try step()
        if random.chance(200) { gateways[gateway].log.sync() }
        if random.chance(20) {
            hit(.journalCompacted)
            gateways[gateway].log.compact(gateways[gateway].snapshot())
        }
        askSoon(gateway)
    }

    func reported(_ gateway: Int, _ response: ReportResponse, to report: LedgerReport) throws {
        for key in response.writtenOff ?? [] where gateways[gateway].book.isOpenChild(key) {
            truth.writtenOffWhole(key)
        }
        for final in response.finals where gateways[gateway].book.isOpenChild(final.key) {
            truth.final(final)
        }
        let entries = gateways[gateway].book.apply(response, to: report, now: bootTime(gateway))
        try commit(gateway, entries)
        if !response.finals.isEmpty || !response.unknown.isEmpty {
            scheduleReport(ofGateway: gateway, soon: true)
        }
        askSoon(gateway)
    }

    func recalled(_ gateway: Int, _ leases: [LeaseID]) throws {
        hit(.recall)
        let now = bootTime(gateway)
        try commit(gateway, gateways[gateway].book.recall(leases, now: now))
        askSoon(gateway)
    }

    func takeFinal(_ gateway: Int, _ final: ChildFinal) throws {
        guard let entry = gateways[gateway].book.finalEntry(final) else { return }
        truth.final(final)
        gateways[gateway].log.commit(entry)
        gateways[gateway].book.childFinal(final.key, consumed: final.consumed)
        try step()
    }
}
