import WeirCore
import WeirLedger

/// The accounts of a history: three users, their tenant and their tier by the month, and each
/// user's requests by the day; each in the period in which the history begins and in the next.
struct AccountTable: Sendable {
    static let userCount = 3
    /// Users, tenant, tier; then users' requests, and what they may spend without a control plane.
    static let scopeCount = userCount * 3 + 2
    static let count = scopeCount * 2
    static let moneyMax: Int64 = 10_000
    static let requestsMax: Int64 = 400

    /// The first moment of the second period.
    static let turn = UnixTime(CivilDate(year: 2026, month: 4, day: 1))
    static let keys: [AccountKey] = (0..<count).map { key(scope: $0 / 2, period: $0 % 2) }
    private static let indices = Dictionary(
        uniqueKeysWithValues: keys.enumerated().map { ($1, $0) })

    static func index(_ key: AccountKey) -> Int? { indices[key] }
    static func index(scope: Int, period: Int) -> Int { scope * 2 + period }
    static func scope(of account: Int) -> Int { account / 2 }
    static func isRequests(scope: Int) -> Bool {
        scope >= requests(0) && scope < requests(userCount)
    }
    static func isStandby(scope: Int) -> Bool { scope >= standby(0) }

    /// The scopes that pay for a user's money.
    static func paying(_ user: Int) -> [Int] { [user, userCount, userCount + 1] }
    static func requests(_ user: Int) -> Int { userCount + 2 + user }
    static func standby(_ user: Int) -> Int { userCount * 2 + 2 + user }

    private static func key(scope: Int, period: Int) -> AccountKey {
        let time = UnixTime(milliseconds: turn.milliseconds + (period == 0 ? -1 : 0))
        if isRequests(scope: scope) {
            return AccountKey(
                unit: .requests, scope: .user, period: Period(.day, at: time),
                id: "user-\(scope - userCount - 2)")
        }
        let names: (AccountKey.Scope, String) =
            isStandby(scope: scope)
            ? (.standby, "user-\(scope - standby(0))")
            : scope < userCount
                ? (.user, "user-\(scope)")
                : scope == userCount ? (.tenant, "acme") : (.tier, "premium")
        return AccountKey(
            unit: .usd, scope: names.0, period: Period(.month, at: time), id: names.1)
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
        limits: (0..<AccountTable.scopeCount).map {
            AccountTable.isRequests(scope: $0)
                ? AccountTable.requestsMax
                : AccountTable.isStandby(scope: $0)
                    ? AccountTable.moneyMax / 10
                    : $0 < AccountTable.userCount
                        ? AccountTable.moneyMax : AccountTable.moneyMax * 2
        })

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
