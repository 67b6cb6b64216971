import WeirCore
import WeirLedger

/// The names of everything in Redis. What one script touches shares a hash tag (`{…}`), so that a
/// cluster keeps it in one slot: an account with its leases, the mesh's incarnations, the policy,
/// one subject.
enum StoreKeys {
    // MARK: Accounts

    /// The account without its period: its limit stands over periods.
    private static func tag(
        _ unit: AccountKey.Unit, _ scope: AccountKey.Scope, _ period: Period.Kind, _ id: String
    ) -> String {
        "weir:{\(unit.rawValue)/\(scope.rawValue)/\(period.rawValue)/\(id)}"
    }

    static func limit(
        _ unit: AccountKey.Unit, _ scope: AccountKey.Scope, _ period: Period.Kind, _ id: String
    ) -> String {
        tag(unit, scope, period, id) + ":limit"
    }

    static func limit(_ key: AccountKey) -> String {
        limit(key.unit, key.scope, key.period.kind, key.id)
    }

    static func account(_ key: AccountKey) -> String {
        tag(key.unit, key.scope, key.period.kind, key.id) + ":\(key.period)"
    }

    /// Keys of accounts of a period, and their leases' and holders' are no such keys.
    static func accounts(_ unit: AccountKey.Unit, in period: Period) -> String {
        "weir:{\(unit.rawValue)/*/\(period.kind.rawValue)/*}:\(period)"
    }

    /// The account that a key of this form is of.
    static func account(ofKey key: String, in period: Period) -> AccountKey? {
        let suffix = "}:\(period)"
        guard key.hasPrefix("weir:{"), key.hasSuffix(suffix) else { return nil }
        let parts = key.dropFirst("weir:{".count).dropLast(suffix.count)
            .split(separator: "/", maxSplits: 3, omittingEmptySubsequences: false)
        guard parts.count == 4, parts[2] == period.kind.rawValue else { return nil }
        return AccountKey("\(parts[0])/\(parts[1])/\(period)/\(parts[3])")
    }

    static func leases(_ key: AccountKey, _ incarnation: Incarnation) -> String {
        account(key) + ":leases:\(incarnation)"
    }

    static func holders(_ key: AccountKey) -> String { account(key) + ":holders" }

    /// What the scripts of one account and one incarnation's leases are given, in their order.
    static func ledger(_ key: AccountKey, _ incarnation: Incarnation) -> [String] {
        [account(key), leases(key, incarnation), holders(key), limit(key)]
    }

    // MARK: The mesh

    static let mesh = "weir:{mesh}:"
    static let epoch = mesh + "epoch"
    /// A set: what the primaries called the histories of their data when they were looked at last.
    static let histories = mesh + "histories"
    static let secret = mesh + "secret"
    static let lastIncarnation = mesh + "last_incarnation"
    /// A sorted set: incarnations by the time of their last report.
    static let live = mesh + "live"
    /// The unbroken time in which somebody was heard: since when, the last report, and the last one
    /// before the silence ahead of it.
    static let hearing = mesh + "hearing"

    /// A set: lives that have not yet said in this epoch what they have.
    static let missing = mesh + "missing"

    static func incarnation(_ incarnation: Incarnation) -> String {
        mesh + "incarnation:\(incarnation)"
    }

    /// The predecessors that an incarnation speaks for.
    static func speaksFor(_ incarnation: Incarnation) -> String {
        mesh + "speaks_for:\(incarnation)"
    }

    /// The accounts in which an incarnation may have open leases.
    static func accounts(_ incarnation: Incarnation) -> String {
        accountsOfLives + "\(incarnation)"
    }
    static let accountsOfLives = mesh + "accounts:"

    /// Finals of children that wait for their parent's acknowledgement.
    static func finals(_ incarnation: Incarnation) -> String { mesh + "finals:\(incarnation)" }

    /// Questions of parents that an incarnation has not been told of.
    static func inquiries(_ incarnation: Incarnation) -> String {
        inquiriesToLives + "\(incarnation)"
    }
    static let inquiriesToLives = mesh + "inquiries:"

    static func joinToken(hash: String) -> String { mesh + "join_token:\(hash)" }

    static let adminLog = mesh + "admin_log"

    // MARK: Policy, subjects, idempotency

    static let policyCurrent = "weir:{policy}:current"
    static let policyBundles = "weir:{policy}:bundles"
    static let policyHistory = "weir:{policy}:history"

    static func subject(_ user: String) -> String { "weir:subject:{\(user)}" }
    static func apiKey(_ id: String) -> String { "weir:api_key:{\(id)}" }
    /// A sorted set: all keys by the time when they were made.
    static let apiKeys = mesh + "api_keys"
    static func apiKeys(of user: String) -> String { "weir:subject:{\(user)}:api_keys" }

    static func idempotency(user: String, key: String) -> String {
        "weir:idempotency:{\(user)}:\(key)"
    }

    // MARK: Channels

    static let policyChannel = "weir:policy"
    static let endpointsChannel = "weir:endpoints"
    static let recallChannel = "weir:recall"
    /// A user's name: what was said about the user is out of date.
    static let subjectChannel = "weir:subject"
}
