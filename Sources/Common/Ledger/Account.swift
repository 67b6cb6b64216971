import WeirCore

/// Which account: whose money, which stretch of time, counted in what. The amounts of an account in
/// requests or tokens use the same integer type as money: one request is one unit, and so is one
/// token.
package struct AccountKey: Hashable, Sendable {
    package enum Scope: String, Sendable, Codable, CaseIterable {
        case user, tenant, tier, run
        /// One API key with a budget of its own, inside its user's.
        case key
        /// What requests with a tag cost, whoever makes them.
        case tag
        /// What a user may spend while there is no control plane, beside the user's own account.
        case standby
        /// The mesh's own account: what operators' tests of agents cost.
        case mesh
    }

    package enum Unit: String, Sendable, Codable, CaseIterable { case usd, requests, tokens }

    package var unit: Unit
    package var scope: Scope
    package var period: Period
    package var id: String

    package init(unit: Unit, scope: Scope, period: Period, id: String) {
        self.unit = unit
        self.scope = scope
        self.period = period
        self.id = id
    }

    /// It limits a rate and not a sum: nobody asks about it when its minute is over.
    package var isRate: Bool { period.kind == .minute }
}

extension AccountKey {
    /// How long a lease of it admits without being asked about again, within its period.
    package var leaseMilliseconds: Int64 {
        scope == .standby ? LedgerLimits.standbyMilliseconds : LedgerLimits.leaseMilliseconds
    }
}

extension AccountKey: CustomStringConvertible {
    /// "usd/user/2026-11/alice": the name in Redis, in messages and in the journal. The id comes
    /// last, because it alone may hold a slash.
    package var description: String {
        "\(unit.rawValue)/\(scope.rawValue)/\(period)/\(id)"
    }

    package init?(_ text: some StringProtocol) {
        // By bytes: an id may begin with a mark that would join the slash before it to one
        // character.
        let parts = text.utf8.split(
            separator: UInt8(ascii: "/"), maxSplits: 3, omittingEmptySubsequences: false
        ).map { String(decoding: $0, as: UTF8.self) }
        guard parts.count == 4, let unit = Unit(rawValue: parts[0]),
            let scope = Scope(rawValue: parts[1]), let period = Period(parts[2]),
            !parts[3].isEmpty
        else { return nil }
        self.init(unit: unit, scope: scope, period: period, id: parts[3])
    }
}

extension AccountKey: Codable {
    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let key = AccountKey(try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "not an account: unit/scope/period/id is needed")
        }
        self = key
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

/// One life of a sidecar process: a number that the store hands out once.
package struct Incarnation: Hashable, Sendable, Comparable, Codable, CustomStringConvertible {
    package let rawValue: Int64

    package init(_ rawValue: Int64) { self.rawValue = rawValue }

    package static func < (left: Incarnation, right: Incarnation) -> Bool {
        left.rawValue < right.rawValue
    }

    package var description: String { String(rawValue) }

    package init(from decoder: any Decoder) throws {
        rawValue = try decoder.singleValueContainer().decode(Int64.self)
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(rawValue)
    }
}

/// (incarnation, n), chosen by the holder, so that asking twice grants once. Written "12.7".
package struct LeaseID: Hashable, Sendable, Comparable {
    package var incarnation: Incarnation
    package var number: Int64

    package init(incarnation: Incarnation, number: Int64) {
        self.incarnation = incarnation
        self.number = number
    }

    package static func < (left: LeaseID, right: LeaseID) -> Bool {
        (left.incarnation, left.number) < (right.incarnation, right.number)
    }
}

extension LeaseID: CustomStringConvertible, Codable {
    package var description: String { "\(incarnation).\(number)" }

    package init?(_ text: some StringProtocol) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 2, let incarnation = Int64(parts[0]), let number = Int64(parts[1]),
            incarnation >= 0, number >= 0
        else { return nil }
        self.init(incarnation: Incarnation(incarnation), number: number)
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let id = LeaseID(try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "not a lease: incarnation.number is needed")
        }
        self = id
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

/// A delegation's name: the parent's lease and a number that the parent never uses twice in one
/// incarnation.
package struct ChildKey: Hashable, Sendable, Codable {
    package var lease: LeaseID
    package var child: Int64

    package init(lease: LeaseID, child: Int64) {
        self.lease = lease
        self.child = child
    }

    /// The life that gave the delegation: a child is only ever paid from its issuer's own leases.
    package var issuer: Incarnation { lease.incarnation }
}

/// How the cost of an attempt is known.
package enum CostSource: UInt8, Sendable, CaseIterable {
    /// Nothing was due: no byte went upstream.
    case none = 0
    case reported = 1
    case estimated = 2
    /// The worst case, because no usage came.
    case ceiling = 3

    package var name: String {
        switch self {
        case .none: "none"
        case .reported: "reported"
        case .estimated: "estimated"
        case .ceiling: "ceiling"
        }
    }

    package init?(name: some StringProtocol) {
        guard let match = CostSource.allCases.first(where: { $0.name == name }) else { return nil }
        self = match
    }
}
