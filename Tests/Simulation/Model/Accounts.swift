import WeirCore
import WeirLedger

/// The accounts of a history: three users, their tenant and their tier by the month, each user's
/// requests by the day and by the minute, and each user's tokens by the minute; in the period in
/// which the history begins and in the next, and of minutes in some more.
struct AccountTable: Sendable {
    static let userCount = 3
    /// Users, tenant, tier; users' requests by the day; what they may spend without a control
    /// plane; their requests by the minute; their tokens.
    static let scopeCount = userCount * 5 + 2
    /// Minutes, of which the first ends with the first period.
    static let minuteCount = 4
    static let moneyMax: Int64 = 10_000
    static let requestsMax: Int64 = 400
    static let requestsPerMinuteMax: Int64 = 60
    static let tokensPerMinuteMax: Int64 = 4_000

    /// The first moment of the second period.
    static let turn = UnixTime(CivilDate(year: 2026, month: 4, day: 1))
    private static let places: [(scope: Int, period: Int)] = (0..<scopeCount).flatMap { scope in
        (0..<(isRate(scope: scope) ? minuteCount : 2)).map { (scope, $0) }
    }
    static let count = places.count
    static let keys: [AccountKey] = places.map { key(scope: $0.scope, period: $0.period) }
    private static let indices = Dictionary(
        uniqueKeysWithValues: keys.enumerated().map { ($1, $0) })
    private static let firsts: [Int] = (0..<scopeCount).map { scope in
        places.firstIndex { $0.scope == scope } ?? 0
    }

    static func index(_ key: AccountKey) -> Int? { indices[key] }
    static func index(scope: Int, period: Int) -> Int { firsts[scope] + period }
    static func scope(of account: Int) -> Int { places[account].scope }
    static func isStandby(scope: Int) -> Bool {
        scope >= standby(0) && scope < standby(userCount)
    }
    static func isRate(scope: Int) -> Bool { scope >= requestsPerMinute(0) }

    /// The scopes that pay for a user's money.
    static func paying(_ user: Int) -> [Int] { [user, userCount, userCount + 1] }
    static func requests(_ user: Int) -> Int { userCount + 2 + user }
    static func standby(_ user: Int) -> Int { userCount * 2 + 2 + user }
    static func requestsPerMinute(_ user: Int) -> Int { userCount * 3 + 2 + user }
    static func tokens(_ user: Int) -> Int { userCount * 4 + 2 + user }

    static func limit(scope: Int) -> Int64 {
        switch scope {
        case ..<userCount: moneyMax
        case ..<(userCount + 2): moneyMax * 2
        case ..<standby(0): requestsMax
        case ..<requestsPerMinute(0): moneyMax / 10
        case ..<tokens(0): requestsPerMinuteMax
        default: tokensPerMinuteMax
        }
    }

    /// The period of a scope that a clock is in; `nil` after the last.
    static func period(scope: Int, at time: UnixTime) -> Int? {
        let since = time.milliseconds - turn.milliseconds
        guard isRate(scope: scope) else { return since < 0 ? 0 : 1 }
        let minute = since < 0 ? 0 : Int(since / 60_000) + 1
        return minute < minuteCount ? minute : nil
    }

    private static func key(scope: Int, period: Int) -> AccountKey {
        let before = UnixTime(milliseconds: turn.milliseconds + (period == 0 ? -1 : 0))
        let user = "user-\((scope - userCount - 2) % userCount)"
        if isRate(scope: scope) {
            let minute = UnixTime(seconds: turn.seconds + Int64(period - 1) * 60)
            return AccountKey(
                unit: scope >= tokens(0) ? .tokens : .requests, scope: .user,
                period: Period(.minute, at: minute), id: user)
        }
        if scope >= requests(0), !isStandby(scope: scope) {
            return AccountKey(
                unit: .requests, scope: .user, period: Period(.day, at: before), id: user)
        }
        let names: (AccountKey.Scope, String) =
            isStandby(scope: scope)
            ? (.standby, "user-\(scope - standby(0))")
            : scope < userCount
                ? (.user, "user-\(scope)")
                : scope == userCount ? (.tenant, "acme") : (.tier, "premium")
        return AccountKey(
            unit: .usd, scope: names.0, period: Period(.month, at: before), id: names.1)
    }
}

/// Some of the accounts.
struct AccountSet: Sequence, IteratorProtocol {
    private var bits: UInt64 = 0

    static var all: AccountSet {
        var set = AccountSet()
        set.bits = (1 << UInt64(AccountTable.count)) - 1
        return set
    }

    mutating func insert(_ account: Int) { bits |= 1 << UInt64(account) }

    func union(_ other: AccountSet) -> AccountSet {
        var set = self
        set.bits |= other.bits
        return set
    }

    mutating func next() -> Int? {
        guard bits != 0 else { return nil }
        defer { bits &= bits - 1 }
        return bits.trailingZeroBitCount
    }
}

/// One version of the policy: a limit for each scope.
struct PolicyVersion: Sendable {
    var limits: [Int64]

    static let first = PolicyVersion(
        limits: (0..<AccountTable.scopeCount).map { AccountTable.limit(scope: $0) })

    /// The same with so much less for everybody.
    func divided(by divisor: Int64) -> PolicyVersion {
        PolicyVersion(limits: limits.map { max(1, $0 / divisor) })
    }

    func maxLease(_ scope: Int) -> Int64 {
        if AccountTable.isStandby(scope: scope) { return limits[scope] }
        let kept = scope < AccountTable.userCount ? limits[AccountTable.standby(scope)] : 0
        return max(1, min(limits[scope], limits[scope] / 8 + kept))
    }
}
