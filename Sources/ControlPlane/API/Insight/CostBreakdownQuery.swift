import ControlPlaneStore
import WeirCore
import WeirLedger
import WeirMeshProtocol

/// `GET /cost/breakdown`: sums of the records, and what the ledger says of the same month.
struct CostBreakdownQuery {
    private static let dimensionsMax = 4
    private static let everybody = "*"
    private static let dayMilliseconds: Int64 = 86_400_000

    let services: ControlPlaneServices

    func answer(_ request: UserRequest) async throws -> JSONValue {
        let now = try await services.redis.time()
        let isOperator = request.subject.role >= .operator
        var query = QueryReader(request)
        var known: [UsageDimension] = [
            .agent, .model, .type, .day, .provenance, .reason, .tag, .team,
        ]
        if isOperator { known += [.tier, .user, .tenant] }
        let dimensions = query.choices(
            "by", of: known, default: [.agent], max: Self.dimensionsMax)
        if !UsageDimension.fit(dimensions) { query.report("by", "tag and team go alone") }
        let (first, last) = query.days(now: now, max: ServerLimits.usageDaysMax)
        let tenant = query.text("tenant")
        let tag = query.text("tag")
        let isChargeback = tenant != nil || tag != nil && isOperator
        let own = isChargeback ? Self.everybody : request.subject.user
        let user = query.text("user") ?? own
        try query.finish()
        guard isOperator || user == request.subject.user && tenant == nil else {
            throw MeshRefusal(
                reason: Reason.forbidden.name,
                detail: "only the role operator sees the costs of another user or a tenant")
        }
        let subject = user == Self.everybody && isOperator ? nil : user
        let end = UnixTime(milliseconds: UnixTime(last.start).milliseconds + Self.dayMilliseconds)
        var filter = RecordFilter(from: UnixTime(first.start), to: end, subject: subject)
        filter.tenant = tenant
        filter.tag = tag
        let rows = try await services.archive.breakdown(by: dimensions, where: filter)
        let total = try await services.archive.total(of: rows, by: dimensions, where: filter)
        var object: JSONObject = [
            "user": .string(user), "by": .array(dimensions.map { .string($0.rawValue) }),
            "from": .string(first.description), "to": .string(last.description),
            "source": "records of attempts that the control plane has stored",
            "total_usd": .string(total.cost.usd),
            "provenance": Self.amounts(total.costBySource),
            "breakdown": .array(rows.map { Self.json($0, dimensions) }),
        ]
        object["tenant"] = tenant.map { .string($0) }
        object["tag"] = tag.map { .string($0) }
        object["ledger"] = try await account(subject, tenant, tag, in: last).asyncMap {
            try await ledger(of: $0)
        }
        return .object(object)
    }

    /// Whose account shows the same: a user's, a tenant's as a whole, or a tag's.
    private func account(
        _ user: String?, _ tenant: String?, _ tag: String?, in day: Period
    ) -> AccountKey? {
        let month = Period(.month, at: UnixTime(day.start))
        let holders: [(AccountKey.Scope, String)] = [
            (.user, user), (.tenant, tenant), (.tag, tag),
        ].compactMap { scope, id in id.map { (scope, $0) } }
        guard holders.count == 1 else { return nil }
        return AccountKey(unit: .usd, scope: holders[0].0, period: month, id: holders[0].1)
    }

    /// By where the figures come from.
    private static func amounts(_ sums: [CostSource: NanoUSD]) -> JSONValue {
        .object(
            CostSource.allCases.reduce(into: JSONObject()) { object, source in
                if let sum = sums[source], sum > .zero { object[source.name] = .string(sum.usd) }
            })
    }

    private static func json(_ row: UsageRow, _ dimensions: [UsageDimension]) -> JSONValue {
        var object: JSONObject = [:]
        for (dimension, key) in zip(dimensions, row.keys) {
            object[dimension.rawValue] = .string(key)
        }
        object["cost_usd"] = .string(row.cost.usd)
        object["cost_by_source_usd"] = amounts(row.costBySource)
        object["attempts"] = .number(JSONNumber(row.attempts))
        object["failures"] = .number(JSONNumber(row.failures))
        object["input_tokens"] = .number(JSONNumber(row.tokens.input))
        object["output_tokens"] = .number(JSONNumber(row.tokens.output))
        return .object(object)
    }

    /// An account of a month beside the records of the same month. The ledger and the
    /// archive are told of one attempt by two messages, so for a moment one may be ahead; an
    /// attempt that runs over midnight of the last day is of the month of its lease there, and of
    /// the month in which it began here.
    private func ledger(of key: AccountKey) async throws -> JSONValue {
        let month = key.period
        guard let state = try await services.ledger().store.states(of: [key]).first ?? nil else {
            return .null
        }
        var filter = RecordFilter(
            from: UnixTime(month.start), to: month.end ?? UnixTime(milliseconds: .max))
        switch key.scope {
        case .user: filter.subject = key.id
        case .tag: filter.tag = key.id
        case .tenant, .tier, .run, .key, .mesh, .standby: filter.tenant = key.id
        }
        let recorded = try await services.archive.breakdown(by: [], where: filter)
            .reduce(NanoUSD.zero) { $0 + $1.cost }
        let difference = state.consumed - recorded
        return [
            "account": .string(key.description), "limit_usd": .string(state.limit.usd),
            "consumed_usd": .string(state.consumed.usd), "recorded_usd": .string(recorded.usd),
            "not_yet_recorded_usd": .string(max(.zero, difference).usd),
            "not_yet_settled_usd": .string(max(.zero, .zero - difference).usd),
            // Held by gateways: leased, set aside for calls under way, or not given back yet.
            "outstanding_usd": .string(state.held.usd),
        ]
    }
}

extension Optional {
    fileprivate func asyncMap<T>(_ body: (Wrapped) async throws -> T) async rethrows -> T? {
        guard let self else { return nil }
        return try await body(self)
    }
}
