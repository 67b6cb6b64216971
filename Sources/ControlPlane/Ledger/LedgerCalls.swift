import WeirCore
import WeirLedger
import WeirMeshProtocol

/// What the scripts of accounts are given, and what their answers mean. Pure.
enum LedgerCalls {
    typealias Call = (keys: [String], arguments: [String])

    /// `mayObserve`: the policy in force has users whose limits do not hold. `missing`: for how
    /// many holders `maxLease` is withheld.
    static func acquire(
        _ request: LeaseAcquire, policyNumber: Int64, mayObserve: Bool, missing: Int
    ) -> Call {
        let need = min(max(1, request.need.rawValue), LedgerLimits.amountMax)
        let want = min(max(need, request.want.rawValue), LedgerLimits.amountMax)
        let period = request.account.period
        let arguments: [Int64] = [
            request.lease.incarnation.rawValue, request.lease.number, need, want,
            max(0, request.closedBelow), max(request.policyNumber, policyNumber),
            period.beginning.milliseconds, period.end?.milliseconds ?? 0,
            request.account.leaseMilliseconds, LedgerLimits.nextPeriodMilliseconds,
            Int64(StoreLimits.leasesPerHolderMax),
            keepMilliseconds(request.account),
            StoreLimits.recallMilliseconds, Int64(StoreLimits.recalledHoldersMax),
            mayObserve && request.observes == true ? LedgerLimits.amountMax : -1,
            Int64(missing),
        ]
        return (
            StoreKeys.ledger(request.account, request.lease.incarnation), arguments.map(String.init)
        )
    }

    static func setLimit(
        _ account: SubjectBinding.Account, maxLease: NanoUSD, policyNumber: Int64
    ) -> ScriptCall {
        let limit = min(max(0, account.limit.rawValue), LedgerLimits.amountMax)
        return ScriptCall(
            script: LedgerScripts.setLimit,
            keys: [StoreKeys.limit(account.unit, account.scope, account.period, account.id)],
            arguments: [String(limit), String(policyNumber), String(min(maxLease.rawValue, limit))])
    }

    static func limitInForce(_ reply: RedisReply) throws(RedisError) -> NanoUSD {
        guard let limit = reply.array?.first?.integer else {
            throw .unexpectedReply("set_limit")
        }
        return NanoUSD(limit)
    }

    static func grant(
        _ request: LeaseAcquire, _ reply: RedisReply
    ) throws(RedisError) -> LeaseGrant {
        guard let parts = reply.array, parts.count == 8, let name = parts[0].text,
            let status = LeaseGrant.Status(rawValue: name)
        else { throw .unexpectedReply("acquire") }
        let numbers = parts[1...].compactMap(\.integer)
        guard numbers.count == 7 else { throw .unexpectedReply("acquire") }
        guard status != .unknownAccount else { return refusal(request, status) }
        return LeaseGrant(
            lease: request.lease, status: status, granted: NanoUSD(numbers[0]),
            expiresInMilliseconds: numbers[1],
            state: accountState(
                request.account, limit: numbers[3], consumed: numbers[4], own: numbers[5],
                held: numbers[6]))
    }

    static func refusal(_ request: LeaseAcquire, _ status: LeaseGrant.Status) -> LeaseGrant {
        LeaseGrant(
            lease: request.lease, status: status, granted: .zero, expiresInMilliseconds: 0,
            state: nil)
    }

    static func accountState(
        _ account: AccountKey, limit: Int64, consumed: Int64, own: Int64, held: Int64
    ) -> AccountState {
        AccountState(
            account: account, limit: NanoUSD(limit), consumed: NanoUSD(consumed),
            consumedByOthers: NanoUSD(consumed - own), held: NanoUSD(held),
            resetsAtMilliseconds: account.period.end?.milliseconds)
    }

    /// How long an account is kept after its period.
    private static func keepMilliseconds(_ account: AccountKey) -> Int64 {
        switch account.period.kind {
        case .month, .day: StoreLimits.accountKeepMilliseconds
        case .minute: StoreLimits.minuteAccountKeepMilliseconds
        case .forever: StoreLimits.runAccountKeepMilliseconds
        }
    }

    /// No period of its kind that ends is longer.
    private static func periodMilliseconds(_ account: AccountKey) -> Int64 {
        account.isRate ? 60_000 : 31 * 86_400_000
    }

    static func report(
        _ account: AccountKey, _ incarnation: Incarnation, _ counters: [LeaseCounters],
        by holder: Incarnation, highest: Int64
    ) -> Call {
        let all: [Int64] = [
            incarnation.rawValue, holder.rawValue, incarnation == holder ? highest : -1,
            LedgerLimits.amountMax, keepMilliseconds(account) + periodMilliseconds(account),
        ]
        var arguments = all.map(String.init)
        for entry in counters {
            arguments += [
                String(entry.lease.number), String(entry.consumed.rawValue),
                String(entry.released.rawValue), entry.granted.map { String($0.rawValue) } ?? "",
            ]
        }
        return (StoreKeys.ledger(account, incarnation), arguments)
    }
}
