import ControlPlaneStore
import HTTPTypes
import Hummingbird
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// What gateways pass on for users (`UserOperation`): each operation has one handler, whose answer
/// is the body of the gateway's own. Who asks was verified by the gateway, and which role an
/// endpoint needs is the gateway's to say; here is decided whose affairs a caller may touch.
struct UserAPI: Sendable {
    typealias Handler = @Sendable (UserRequest) async throws -> JSONValue

    let services: ControlPlaneServices

    func addRoutes(to table: RouteTable) {
        for operation in UserOperation.allCases {
            let handler = handler(for: operation)
            table.add(
                MeshPath.user(operation),
                [
                    .post: { request, context in
                        try context.mustHaveGateway()
                        let message = try await request.message(UserRequest.self)
                        return .json(try await handler(message))
                    }
                ])
        }
    }

    private func handler(for operation: UserOperation) -> Handler {
        switch operation {
        case .preferences: preferences
        case .budget: budget
        case .performance: PerformanceQuery(services: services).answer
        case .costBreakdown: CostBreakdownQuery(services: services).answer
        case .costSuggestions: CostSuggestionsQuery(services: services).answer
        case .stats: StatsQuery(services: services).answer
        }
    }

    // MARK: - Preferences

    private func preferences(_ request: UserRequest) async throws -> JSONValue {
        let user = request.subject.user
        let subjects = try services.ledger().subjects
        guard let active = services.hub.active else {
            throw APIProblem.unavailable("There is no policy yet, so there are no tiers.")
        }
        let stored = try await subjects.stored(user)
        guard let tier = active.policy.tiers[stored?.tier ?? request.subject.tier] else {
            throw MeshRefusal(reason: "forbidden", detail: "the policy does not have your tier")
        }
        guard let body = request.body else {
            let kept = stored?.preferences ?? Preferences()
            return kept.effective(tier: tier, policy: active.policy).json
        }
        let preferences = try Preferences(reading: body, tier: tier, policy: active.policy)
        try await subjects.setPreferences(preferences, of: user)
        return preferences.json
    }

    // MARK: - Budgets

    /// A user lowers the own limit, below what the policy or an administrator allows; an
    /// administrator sets anybody's.
    private func budget(_ request: UserRequest) async throws -> JSONValue {
        let change = try LimitChange(reading: request.body, namesUser: true)
        let subject = request.subject
        let user = change.user ?? subject.user
        let isAdmin = subject.role >= .admin
        guard isAdmin || user == subject.user else {
            throw MeshRefusal(
                reason: Reason.forbidden.name,
                detail: "only the role admin changes the budget of another user")
        }
        let subjects = try services.ledger().subjects
        guard let stored = try await subjects.stored(user) else {
            throw Problem(path: "/user", message: "nobody has seen this user yet")
        }
        if !isAdmin, let limit = change.limit {
            let ceiling = stored.ceiling ?? .zero
            guard limit <= ceiling else {
                throw MeshRefusal(
                    reason: Reason.forbidden.name,
                    detail: "only the role admin raises a limit above \(ceiling.usd) USD")
            }
        }
        try await subjects.setMonthlyLimit(
            change.limit, of: user, as: isAdmin ? .admin : .user,
            by: ChangeAuthor(name: subject.user, reason: change.reason))
        return try await services.accountView(of: user)
    }
}

/// The body of a change of a monthly limit: `null` takes the limit back.
struct LimitChange {
    var limit: NanoUSD?
    /// `nil`: the caller.
    var user: String?
    var reason: String

    init(reading body: JSONValue?, namesUser: Bool) throws(Problems) {
        let problems = ProblemList()
        let reader = ObjectReader(body ?? .null, at: JSONPointer([]), problems)
        limit = reader?.money("monthly_limit_usd", required: body?["monthly_limit_usd"] != .null)
        user = namesUser ? reader?.string("user", bytesMax: StoreLimits.userBytesMax) : nil
        reason = reader?.string("reason", bytesMax: StoreLimits.reasonBytesMax) ?? ""
        reader?.finish()
        try problems.throwIfAny()
    }
}

extension ControlPlaneServices {
    /// One user's account: the tier, who set which limit, and what is spent of it this month.
    func accountView(of user: String) async throws -> JSONValue {
        guard let stored = try await ledger().subjects.stored(user) else {
            throw APIProblem.notFound("Nobody has seen a user \(user) yet.")
        }
        var object: JSONObject = ["user": .string(stored.user), "tier": .string(stored.tier)]
        object["tenant"] = stored.tenant.map { .string($0) }
        object["bound_by"] = .string(stored.boundBy)
        object["monthly_limit_usd"] = stored.limit.map { .string($0.usd) }
        var limits: JSONObject = [:]
        limits["policy"] = stored.limitByPolicy.map { .string($0.usd) }
        limits["admin"] = stored.limitByAdmin.map { .string($0.usd) }
        limits["user"] = stored.limitByUser.map { .string($0.usd) }
        object["limits_usd"] = .object(limits)
        let month = AccountKey(
            unit: .usd, scope: .user, period: Period(.month, at: try await redis.time()), id: user)
        if let state = try await ledger().store.states(of: [month]).first ?? nil {
            object["spent_usd"] = .string(state.consumed.usd)
            object["set_aside_usd"] = .string(state.held.usd)
            object["resets_at"] = state.resetsAtMilliseconds.map {
                .string(UnixTime(milliseconds: $0).rfc3339)
            }
        }
        object["preferences"] = stored.preferences.map(\.json)
        return .object(object)
    }
}
