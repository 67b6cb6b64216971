import WeirCore

// Users' own endpoints: the gateway verifies who asks, and passes the request on to the control
// plane, which keeps what they are about. One message for all of them.

/// What a caller may do beyond the own affairs; each role has those below it. Everybody who is
/// authenticated is a user.
package enum UserRole: String, Sendable, Codable, CaseIterable, Comparable {
    case user
    /// Sees everybody's figures, and tests agents at the mesh's cost.
    case `operator`
    /// Changes other users' accounts.
    case admin

    private var rank: Int {
        switch self {
        case .user: 0
        case .operator: 1
        case .admin: 2
        }
    }

    package static func < (left: UserRole, right: UserRole) -> Bool { left.rank < right.rank }
}

/// The endpoints that the control plane answers for a gateway: `MeshPath.user`.
package enum UserOperation: String, Sendable, CaseIterable {
    /// `GET` and `POST /agents/preferences`: without a body, what is stored.
    case preferences
    /// `POST /budget/update`.
    case budget
    /// `GET /agents/performance/{agent}`.
    case performance
    /// `GET /cost/breakdown`.
    case costBreakdown = "cost-breakdown"
    /// `GET /cost/suggestions`.
    case costSuggestions = "cost-suggestions"
    /// The part of `GET /stats` that is in the records.
    case stats
}

extension MeshPath {
    package static func user(_ operation: UserOperation) -> String {
        "/mesh/v1/user/" + operation.rawValue
    }
}

/// A user's request as the gateway passes it on. The answer is the body of the gateway's own.
package struct UserRequest: Hashable, Sendable, Codable {
    /// Whom the gateway has verified, as the control plane's binding names it.
    package struct Subject: Hashable, Sendable, Codable {
        package var user: String
        package var tenant: String?
        package var tier: String
        /// By name; a name that is no `UserRole` gives nothing.
        package var roles: [String]

        package init(user: String, tenant: String?, tier: String, roles: [String]) {
            self.user = user
            self.tenant = tenant
            self.tier = tier
            self.roles = roles
        }

        package var role: UserRole { roles.highestRole }
    }

    package var subject: Subject
    /// Of the path and of the query, by name, decoded.
    package var parameters: [String: String]
    package var body: JSONValue?

    package init(subject: Subject, parameters: [String: String] = [:], body: JSONValue? = nil) {
        self.subject = subject
        self.parameters = parameters
        self.body = body
    }
}

extension [String] {
    /// The strongest of these roles; names that are none count for nothing.
    package var highestRole: UserRole { compactMap(UserRole.init(rawValue:)).max() ?? .user }
}

/// What became of a message to the control plane that somebody waits for.
package enum MeshOutcome<Answer: Sendable>: Sendable {
    case answered(Answer)
    /// The caller's fault: a reason with a status of 400 to 499.
    case refused(MeshRefusal)
    /// The control plane is away, or cannot serve this now; whether it was done is not known.
    case unavailable
}
