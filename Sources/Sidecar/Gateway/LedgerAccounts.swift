import SidecarCore
import Synchronization
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// One caller's accounts in this process's ledger.
package struct LedgerAccounts: CallerLedger {
    private let ledger: SidecarLedger
    private let money: [AccountTerms]
    /// By the day and by the minute.
    private let requests: [AccountTerms]
    private let tokens: [AccountTerms]
    /// What may be spent without a control plane; `nil` where the tier lets nothing be.
    private let standby: AccountTerms?
    private let isControlPlaneLost: @Sendable () -> Bool
    private let observes: Bool
    private let tier: String
    private let warnAtPercent: [Int]
    private let watch: BudgetWatch?
    package let observed = ObservedRefusals()
    private let clock: any GatewayClock
    private let isControlPlaneReachable: @Sendable () -> Bool

    package init(
        ledger: SidecarLedger, binding: SubjectBinding, snapshot: GatewaySnapshot,
        clock: any GatewayClock, watch: BudgetWatch? = nil,
        isControlPlaneReachable: @escaping @Sendable () -> Bool,
        isControlPlaneLost: @escaping @Sendable () -> Bool = { false }
    ) {
        self.ledger = ledger
        self.watch = watch
        self.clock = clock
        self.isControlPlaneReachable = isControlPlaneReachable
        self.isControlPlaneLost = isControlPlaneLost
        let now = clock.now
        let tier = snapshot.policy.tiers[binding.tier]
        observes = tier?.observe ?? false
        self.tier = binding.tier
        warnAtPercent = tier?.warnAtPercent ?? []
        let terms = binding.accounts.map { Self.terms(of: $0, tier, snapshot, at: now) }
        money = terms.filter { $0.key.unit == .usd }
        requests = terms.filter { $0.key.unit == .requests }
        tokens = terms.filter { $0.key.unit == .tokens }
        standby = binding.standby.map { account in
            AccountTerms(
                key: account.key(at: now), limit: account.limit, maxLease: account.limit,
                policyNumber: snapshot.version.number)
        }
    }

    /// Those that the bearer of a token has by the tier which it claims, before anybody has said
    /// who that is: the control plane's binding may name another tier, and more accounts.
    package static func likely(
        of request: SubjectRequest, snapshot: GatewaySnapshot?, at now: UnixTime
    ) -> [AccountTerms] {
        guard let claims = request.claims, let snapshot, let name = claims.tier,
            let tier = snapshot.policy.tiers[name]
        else { return [] }
        var accounts = [
            SubjectBinding.Account(
                unit: .usd, scope: .user, period: .month, id: claims.subject,
                limit: tier.monthlyBudget)
        ]
        if let requests = tier.dailyRequests {
            accounts.append(
                SubjectBinding.Account(
                    unit: .requests, scope: .user, period: .day, id: claims.subject,
                    limit: NanoUSD(requests)))
        }
        if let requests = tier.requestsPerMinute {
            accounts.append(
                SubjectBinding.Account(
                    unit: .requests, scope: .user, period: .minute, id: claims.subject,
                    limit: NanoUSD(requests)))
        }
        return accounts.map { terms(of: $0, tier, snapshot, at: now) }
    }

    private static func terms(
        of account: SubjectBinding.Account, _ tier: TierPolicy?, _ snapshot: GatewaySnapshot,
        at now: UnixTime
    ) -> AccountTerms {
        AccountTerms(
            key: account.key(at: now), limit: account.limit, maxLease: maxLease(account, tier),
            policyNumber: snapshot.version.number)
    }

    private static func maxLease(_ account: SubjectBinding.Account, _ tier: TierPolicy?) -> NanoUSD
    {
        switch account.unit {
        case .requests, .tokens: account.countedMaxLease
        case .usd:
            tier?.maxLease(limit: account.limit) ?? NanoUSD(account.limit.rawValue / 20)
        }
    }

    // MARK: CallerLedger

    package func takeRequest() async throws(LedgerRefusal) {
        guard !requests.isEmpty else { return }
        let one = NanoUSD(1)
        let reservation: Reservation
        do throws(LedgerRefusal) {
            reservation = try await reserve(requests, one, least: one)
        } catch {
            // What the tier lets be spent without a control plane is bounded by its amount.
            guard isOnStandby, error.reason == .controlPlaneLost else { throw error }
            return
        }
        guard ledger.spend(reservation) else {
            ledger.cancel(reservation)
            throw LedgerRefusal(reason: .overloaded, account: nil)
        }
    }

    package func delegate(
        _ bound: CallBound, to audience: Incarnation
    ) async throws(LedgerRefusal) -> PaidCall {
        guard bound.tokens > 0, !tokens.isEmpty else {
            return PaidCall(key: try await delegateMoney(bound, to: audience))
        }
        let use: Reservation
        do throws(LedgerRefusal) {
            use = try await reserve(tokens, NanoUSD(bound.tokens), least: .zero)
        } catch {
            // As for requests: what is spent without a control plane is bounded by its amount.
            guard isOnStandby, error.reason == .controlPlaneLost else { throw error }
            return PaidCall(key: try await delegateMoney(bound, to: audience))
        }
        guard ledger.beginUse(use) else {
            ledger.cancel(use)
            throw LedgerRefusal(reason: .overloaded, account: nil)
        }
        do throws(LedgerRefusal) {
            return PaidCall(key: try await delegateMoney(bound, to: audience), tokens: use)
        } catch {
            ledger.endUse(use, used: .zero)
            throw error
        }
    }

    private func delegateMoney(
        _ bound: CallBound, to audience: Incarnation
    ) async throws(LedgerRefusal) -> ChildKey {
        let reservation = try await reserveMoney(bound.amount, least: bound.least)
        guard let key = ledger.delegate(reservation, audience: audience) else {
            ledger.cancel(reservation)
            throw LedgerRefusal(reason: .overloaded, account: nil)
        }
        return key
    }

    package func callFinal(_ call: PaidCall, consumed: NanoUSD, tokens: Int64?) {
        ledger.childFinal(call.key, consumed: consumed)
        if let use = call.tokens { ledger.endUse(use, used: tokens.map { NanoUSD($0) }) }
        guard let watch, !warnAtPercent.isEmpty else { return }
        for (account, position) in positions {
            watch.look(
                at: account, spentPercent: position.spentPercent, shares: warnAtPercent,
                tier: tier)
        }
    }

    package func callLost(_ call: PaidCall) {
        ledger.childLost(call.key)
        if let use = call.tokens { ledger.endUse(use, used: nil) }
    }

    /// Of the account with the least left; `nil` until the store has said what others spent.
    package var balance: Balance? {
        let known = positions
        guard let (account, position) = known.min(by: { $0.1.remaining < $1.1.remaining }) else {
            return nil
        }
        var balance = Balance(
            limit: position.limit, remaining: position.remaining, resetsAt: account.period.end)
        balance.beyond = known.map(\.1.beyond).max() ?? .zero
        if let first = warnAtPercent.first {
            balance.warnings = known.map {
                BudgetWarning(account: $0.0, spentPercent: $0.1.spentPercent)
            }.filter { $0.spentPercent >= first }
        }
        if let terms = requests.first(where: { !$0.key.isRate }),
            let position = ledger.position(of: terms.key)
        {
            balance.requestsLimit = position.limit.rawValue
            balance.requestsRemaining = position.remaining.rawValue
            balance.requestsResetAt = terms.key.period.end
        }
        return balance
    }

    /// Of the accounts of money of which the store has said what others spent.
    private var positions: [(AccountKey, BudgetPosition)] {
        money.compactMap { terms in ledger.position(of: terms.key).map { (terms.key, $0) } }
    }

    // MARK: Without a control plane

    private var isOnStandby: Bool { standby != nil && isControlPlaneLost() }

    private func reserveMoney(
        _ amount: NanoUSD, least: NanoUSD
    ) async throws(LedgerRefusal) -> Reservation {
        guard let standby, let payer = ledger.payer(for: money + [standby]) else {
            return try await reserve(money, amount, least: least)
        }
        ledger.keepStandby(payer)
        do throws(LedgerRefusal) {
            return try await reserve(money, amount, least: least)
        } catch {
            guard isOnStandby, error.reason == .controlPlaneLost,
                let reservation = ledger.reserveStandby(payer, worstCase: amount, least: least)
            else { throw error }
            return reservation
        }
    }

    // MARK: Waiting

    private func payer(for accounts: [AccountTerms]) throws(LedgerRefusal) -> Payer {
        guard let payer = ledger.payer(for: accounts, observes: observes) else {
            throw LedgerRefusal(reason: .overloaded, account: accounts.first?.key)
        }
        return payer
    }

    /// Reserves, or waits for a lease that is on its way and for money that is set aside (rule 9).
    private func reserve(
        _ accounts: [AccountTerms], _ amount: NanoUSD, least: NanoUSD
    ) async throws(LedgerRefusal) -> Reservation {
        var accounts = accounts
        var payer = try payer(for: accounts)
        var minutesAhead = 0
        let began = clock.nowNanoseconds
        var contendedFrom: UInt64?
        while true {
            let wake = Wake()
            var waiter: UInt64?
            let outcome = ledger.reserve(
                payer, worstCase: amount, least: least, waiter: &waiter, wake: wake.call)
            var end = began + GatewayLimits.leaseNanoseconds
            let refusal: LedgerRefusal
            switch outcome {
            case .reserved(let reservation):
                if observes, let account = ledger.accountBeyond(payer, for: amount) {
                    observed.note(account.exhaustedReason)
                }
                return reservation
            case .exhausted(let account, let resetsAt):
                throw LedgerRefusal(
                    reason: account.exhaustedReason, account: account,
                    resetsAt: resetsAt ?? account.period.end, limit: accounts.limit(of: account),
                    needed: amount)
            case .journalFull: throw LedgerRefusal(reason: .overloaded, account: nil)
            case .contended(let account, _):
                // From here on: the store's answer may have taken a while itself.
                let from = contendedFrom ?? clock.nowNanoseconds
                contendedFrom = from
                end = min(end, from + GatewayLimits.contendedNanoseconds)
                refusal = LedgerRefusal(
                    reason: account?.contendedReason ?? .budgetContended, account: account,
                    limit: account.flatMap { accounts.limit(of: $0) })
            case .needsLease:
                let reason: Reason =
                    isControlPlaneReachable() ? .budgetContended : .controlPlaneLost
                refusal = LedgerRefusal(reason: reason, account: accounts.first?.key)
            case .periodOver(let account):
                // The store's clock is ahead of this one, or the minute ended while this waited.
                minutesAhead += 1
                guard minutesAhead <= GatewayLimits.minutesAheadMax else {
                    throw LedgerRefusal(
                        reason: account.contendedReason, account: account,
                        limit: accounts.limit(of: account))
                }
                accounts = accounts.map { $0.following(account) }
                payer = try self.payer(for: accounts)
                continue
            }
            if isOnStandby {
                if let waiter { ledger.stopWaiting(waiter) }
                throw LedgerRefusal(reason: .controlPlaneLost, account: refusal.account)
            }
            // Without a place among the waiters, waiting would be for nothing.
            guard let waiter else { throw refusal }
            let woken = await wake.wait(until: end, clock)
            ledger.stopWaiting(waiter)
            guard woken else { throw refusal }
        }
    }
}

extension AccountTerms {
    /// The same of the next minute, if it is of this account.
    fileprivate func following(_ account: AccountKey) -> AccountTerms {
        guard key == account, let end = account.period.end else { return self }
        var next = self
        next.key.period = Period(account.period.kind, at: end)
        return next
    }
}

extension [AccountTerms] {
    fileprivate func limit(of account: AccountKey) -> NanoUSD? {
        first { $0.key == account }?.limit
    }
}

extension AccountKey {
    fileprivate var exhaustedReason: Reason {
        isRate ? .rateLimited : unit == .usd ? .budgetExhausted : .quotaExhausted
    }

    /// Set aside elsewhere: of a rate it comes back, or its minute ends, very soon.
    fileprivate var contendedReason: Reason { isRate ? .rateLimited : .budgetContended }
}
