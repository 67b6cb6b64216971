import ControlPlaneStore
import Foundation
import HTTPTypes
import Hummingbird
import WeirCore
import WeirPolicy

/// Users as the administrator sees them: `/v1/users/{user}`, and the log of what was changed.
struct UsersAPI: Sendable {
    let services: ControlPlaneServices

    func addRoutes(to table: RouteTable) {
        table.add("/v1/users/:user", [.get: get])
        table.add("/v1/users/:user/tier", [.put: setTier])
        table.add("/v1/users/:user/limit", [.put: setLimit])
        table.add("/v1/admin-log", [.get: log])
    }

    private func get(_ request: Request, _ context: ServerContext) async throws -> Response {
        .json(try await services.accountView(of: try context.pathParameter("user")))
    }

    /// Also for a user whom nobody has seen: then tokens find the user bound.
    private func setTier(_ request: Request, _ context: ServerContext) async throws -> Response {
        let user = try context.pathParameter("user")
        let body = try await request.json()
        guard let active = services.hub.active else {
            throw APIProblem.unavailable("There is no policy yet, so there are no tiers.")
        }
        let change = try TierChange(reading: body, policy: active.policy)
        let subjects = try services.ledger().subjects
        // Where nothing is said of it, the tenant stays.
        let tenant =
            body["tenant"] == nil ? try await subjects.stored(user)?.tenant : change.tenant
        try await subjects.setTier(
            change.tier, tenant: tenant, of: user, by: .administrator(reason: change.reason),
            policy: active.policy, policyNumber: active.version.number)
        return .json(try await services.accountView(of: user))
    }

    private func setLimit(_ request: Request, _ context: ServerContext) async throws -> Response {
        let user = try context.pathParameter("user")
        let change = try LimitChange(reading: try await request.json(), namesUser: false)
        let subjects = try services.ledger().subjects
        guard try await subjects.stored(user) != nil else {
            throw APIProblem.notFound("Nobody has seen a user \(user) yet.")
        }
        try await subjects.setMonthlyLimit(
            change.limit, of: user, as: .admin, by: .administrator(reason: change.reason))
        return .json(try await services.accountView(of: user))
    }

    private func log(_ request: Request, _ context: ServerContext) async throws -> Response {
        var limit = ServerLimits.historyEntriesDefault
        if let text = request.query("limit") {
            guard let number = Int(text), (1...ServerLimits.historyEntriesMax).contains(number)
            else {
                throw APIProblem.parameter(
                    "limit", "a number from 1 to \(ServerLimits.historyEntriesMax) is needed")
            }
            limit = number
        }
        let actions = try await services.ledger().subjects.log.newest(limit: limit)
        return .json(["actions": .array(actions.map(Self.json))])
    }

    private static func json(_ action: AdminAction) -> JSONValue {
        [
            "at": .string(action.at.rfc3339), "author": .string(action.author),
            "action": .string(action.action), "subject": .string(action.subject),
            "detail": .string(action.detail), "reason": .string(action.reason),
        ]
    }
}

/// The body of `PUT /v1/users/{user}/tier`.
private struct TierChange {
    var tier: TierPolicy
    var tenant: String?
    var reason: String

    init(reading body: JSONValue, policy: Policy) throws(Problems) {
        let problems = ProblemList()
        let reader = ObjectReader(body, at: JSONPointer([]), problems)
        let name = reader?.string("tier", required: true)
        let found = name.flatMap { policy.tiers[$0] }
        if name != nil, found == nil {
            let known = policy.tiers.keys.sorted().joined(separator: ", ")
            reader?.report("tier", "must be one of \(known)")
        }
        tenant = reader?.string("tenant", bytesMax: StoreLimits.userBytesMax)
        reason = reader?.string("reason", bytesMax: StoreLimits.reasonBytesMax) ?? ""
        reader?.finish()
        try problems.throwIfAny()
        guard let found else { preconditionFailure("no tier and no problem") }
        tier = found
    }
}

extension ChangeAuthor {
    /// Whoever has the administrator's token: there is one.
    static func administrator(reason: String) -> ChangeAuthor {
        ChangeAuthor(name: "admin", reason: reason)
    }
}

extension ServerContext {
    /// A parameter of the path, decoded: names of users hold what they like.
    func pathParameter(_ name: String) throws -> String {
        guard let text = parameters.get(name)?.removingPercentEncoding, !text.isEmpty,
            text.utf8.count <= StoreLimits.nameBytesMax
        else { throw APIProblem.notFound("The path's \(name) cannot be read.") }
        return text
    }
}

extension Request {
    /// A small body, which must be JSON.
    func json() async throws -> JSONValue {
        let bytes = try await bytes(max: ServerLimits.smallBodyBytesMax)
        do {
            return try JSON.parse(bytes)
        } catch {
            throw APIProblem.badRequest("The body is not JSON: \(error).")
        }
    }
}
