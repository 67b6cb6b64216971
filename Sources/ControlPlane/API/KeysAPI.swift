import ControlPlaneStore
import HTTPTypes
import Hummingbird
import WeirCore
import WeirMeshProtocol
import WeirPolicy

/// API keys: `/v1/keys`. A key's text is in the answer that makes it, and nowhere else.
struct KeysAPI: Sendable {
    let services: ControlPlaneServices

    func addRoutes(to table: RouteTable) {
        table.add("/v1/keys", [.get: list, .post: create])
        table.add("/v1/keys/:id", [.get: get, .delete: revoke])
    }

    private func list(_ request: Request, _ context: ServerContext) async throws -> Response {
        let keys = try await services.ledger().subjects.apiKeys(
            of: request.query("user"), limit: StoreLimits.apiKeysListedMax)
        return .json(["keys": .array(keys.map(Self.json))])
    }

    private func get(_ request: Request, _ context: ServerContext) async throws -> Response {
        let id = try context.pathParameter("id")
        guard let key = try await services.ledger().subjects.apiKey(id) else {
            throw APIProblem.notFound("There is no key \(id).")
        }
        return .json(Self.json(key))
    }

    private func create(_ request: Request, _ context: ServerContext) async throws -> Response {
        let body = try await request.json()
        let subjects = try services.ledger().subjects
        guard let active = services.hub.active else {
            throw APIProblem.unavailable("There is no policy yet, so there are no tiers.")
        }
        let now = try await services.redis.time()
        let (terms, author) = try Self.terms(reading: body, policy: active.policy, now: now)
        let made = try await subjects.createAPIKey(terms, by: author)
        guard var object = Self.json(made.key).object else { throw APIProblem.internalError }
        object["key"] = .string(made.text)
        return .json(.object(object), status: .created)
    }

    private func revoke(_ request: Request, _ context: ServerContext) async throws -> Response {
        let id = try context.pathParameter("id")
        let revoked = try await services.ledger().subjects.revokeAPIKey(
            id, by: .administrator(reason: request.query("reason") ?? ""))
        guard let revoked else { throw APIProblem.notFound("There is no key \(id).") }
        return .json(Self.json(revoked))
    }

    private static func tags(_ reader: ObjectReader?) -> [String]? {
        guard let reader, reader.value("tags") != nil else { return nil }
        let names = reader.names("tags", countMax: Tags.countMax)
        guard let tags = Tags(names) else {
            reader.report(
                "tags",
                "must be at most \(Tags.countMax) tags of letters, digits and . _ : / @ -, of at "
                    + "most \(Tags.nameBytesMax) bytes each and \(Tags.textBytesMax) together")
            return nil
        }
        return tags.isEmpty ? nil : tags.names
    }

    private static func terms(
        reading body: JSONValue, policy: Policy, now: UnixTime
    ) throws(Problems) -> (APIKeyTerms, ChangeAuthor) {
        let problems = ProblemList()
        let reader = ObjectReader(body, at: JSONPointer([]), problems)
        let user = reader?.string("user", required: true, bytesMax: StoreLimits.userBytesMax)
        var terms = APIKeyTerms(user: user ?? "")
        terms.tier = reader?.string("tier")
        if let tier = terms.tier, policy.tiers[tier] == nil {
            let known = policy.tiers.keys.sorted().joined(separator: ", ")
            reader?.report("tier", "must be one of \(known)")
        }
        terms.tenant = reader?.string("tenant", bytesMax: StoreLimits.userBytesMax)
        terms.roles = reader?.names("roles", countMax: UserRole.allCases.count) ?? []
        for (index, role) in terms.roles.enumerated() where UserRole(rawValue: role) == nil {
            let known = UserRole.allCases.map(\.rawValue).joined(separator: ", ")
            problems.add(JSONPointer(["roles"]).appending(index), "must be one of \(known)")
        }
        terms.tags = Self.tags(reader)
        terms.monthlyLimit = reader?.money("monthly_limit_usd")
        terms.note = reader?.string("note", bytesMax: StoreLimits.reasonBytesMax) ?? ""
        let seconds = reader?.integer(
            "valid_seconds", in: 1...StoreLimits.apiKeyMillisecondsMax / 1_000)
        terms.expiresAt = seconds.map { UnixTime(milliseconds: now.milliseconds + $0 * 1_000) }
        reader?.finish()
        try problems.throwIfAny()
        return (terms, .administrator(reason: terms.note))
    }

    private static func json(_ key: APIKey) -> JSONValue {
        let terms = key.terms
        var object: JSONObject = [
            "id": .string(key.id), "user": .string(terms.user),
            "roles": .array(terms.roles.map { .string($0) }),
            "created_at": .string(key.createdAt.rfc3339), "created_by": .string(key.createdBy),
        ]
        object["tier"] = terms.tier.map { .string($0) }
        object["tenant"] = terms.tenant.map { .string($0) }
        object["tags"] = terms.tags.map { .array($0.map { .string($0) }) }
        object["monthly_limit_usd"] = terms.monthlyLimit.map { .string($0.usd) }
        object["expires_at"] = terms.expiresAt.map { .string($0.rfc3339) }
        object["revoked_at"] = key.revokedAt.map { .string($0.rfc3339) }
        if !terms.note.isEmpty { object["note"] = .string(terms.note) }
        return .object(object)
    }
}
