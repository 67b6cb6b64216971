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
    private let requests: [AccountTerms]
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

    /// Of requests a twentieth too, and at least one.
    private static func maxLease(_ account: SubjectBinding.Account, _ tier: TierPolicy?) -> NanoUSD
    {
        switch account.unit {
        case .requests: NanoUSD(max(1, account.limit.rawValue / 20))
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
        _ amount: NanoUSD, least: NanoUSD, to audience: Incarnation
    ) async throws(LedgerRefusal) -> ChildKey {
        let reservation = try await reserveMoney(amount, least: least)
        guard let key = ledger.delegate(reservation, audience: audience) else {
            ledger.cancel(reservation)
            throw LedgerRefusal(reason: .overloaded, account: nil)
        }
        return key
    }

    package func childFinal(_ key: ChildKey, consumed: NanoUSD) {
        ledger.childFinal(key, consumed: consumed)
        guard let watch, !warnAtPercent.isEmpty else { return }
        for (account, position) in positions {
            watch.look(
                at: account, spentPercent: position.spentPercent, shares: warnAtPercent,
                tier: tier)
        }
    }

    package func childLost(_ key: ChildKey) { ledger.childLost(key) }

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
        if let terms = requests.first, let position = ledger.position(of: terms.key) {
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

    /// Reserves, or waits for a lease that is on its way and for money that is set aside (rule 9).
    private func reserve(
        _ accounts: [AccountTerms], _ amount: NanoUSD, least: NanoUSD
    ) async throws(LedgerRefusal) -> Reservation {
        guard let payer = ledger.payer(for: accounts, observes: observes) else {
            throw LedgerRefusal(reason: .overloaded, account: accounts.first?.key)
        }
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
                    observed.note(account.unit == .usd ? .budgetExhausted : .quotaExhausted)
                }
                return reservation
            case .exhausted(let account, let resetsAt):
                throw LedgerRefusal(
                    reason: account.unit == .usd ? .budgetExhausted : .quotaExhausted,
                    account: account, resetsAt: resetsAt ?? account.period.end)
            case .journalFull: throw LedgerRefusal(reason: .overloaded, account: nil)
            case .contended(let account, _):
                // From here on: the store's answer may have taken a while itself.
                let from = contendedFrom ?? clock.nowNanoseconds
                contendedFrom = from
                end = min(end, from + GatewayLimits.contendedNanoseconds)
                refusal = LedgerRefusal(reason: .budgetContended, account: account)
            case .needsLease:
                let reason: Reason =
                    isControlPlaneReachable() ? .budgetContended : .controlPlaneLost
                refusal = LedgerRefusal(reason: reason, account: accounts.first?.key)
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
