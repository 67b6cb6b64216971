import ControlPlaneStore
import HTTPTypes
import Hummingbird
import WeirCore
import WeirLedger

/// What was spent: `/v1/usage` sums the records of the archive, `/v1/accounts` shows one account of
/// the ledger beside the records that it paid for.
struct UsageAPI: Sendable {
    private static let dimensionsMax = 4
    private static let dayMilliseconds: Int64 = 86_400_000

    let services: ControlPlaneServices

    func addRoutes(to table: RouteTable) {
        table.add("/v1/usage", [.get: usage])
        table.add("/v1/accounts", [.get: account])
    }

    // MARK: - Usage

    private func usage(_ request: Request, _ context: ServerContext) async throws -> Response {
        let dimensions = try Self.dimensions(request.query("by") ?? UsageDimension.agent.rawValue)
        let now = try await services.redis.time()
        let (from, to) = try Self.days(
            from: request.query("from"), to: request.query("to"), now: now)
        let end = UnixTime(milliseconds: UnixTime(to.start).milliseconds + Self.dayMilliseconds)
        var filter = RecordFilter(
            from: UnixTime(from.start), to: end, subject: request.query("user"))
        filter.tenant = request.query("tenant")
        filter.tag = request.query("tag")
        let rows = try await services.archive.breakdown(by: dimensions, where: filter)
        let total = try await services.archive.total(of: rows, by: dimensions, where: filter)
        return .json([
            "by": .array(dimensions.map { .string($0.rawValue) }),
            "from": .string(from.description), "to": .string(to.description),
            "total_usd": .string(total.cost.usd),
            "usage": .array(rows.map { Self.json($0, dimensions) }),
        ])
    }

    private static func dimensions(_ text: String) throws -> [UsageDimension] {
        let names = text.split(separator: ",", omittingEmptySubsequences: false)
        let dimensions = names.compactMap { UsageDimension(rawValue: String($0)) }
        guard dimensions.count == names.count, Set(dimensions).count == names.count,
            dimensions.count <= dimensionsMax, UsageDimension.fit(dimensions)
        else {
            let known = UsageDimension.allCases.map(\.rawValue).joined(separator: ", ")
            throw APIProblem.parameter(
                "by",
                "up to \(dimensionsMax) different ones of \(known) are needed, with "
                    + "commas; tag and team not together")
        }
        return dimensions
    }

    /// The days asked for; by default the month so far.
    static func days(from: String?, to: String?, now: UnixTime) throws -> (Period, Period) {
        func day(_ name: String, _ text: String?) throws -> Period? {
            guard let text else { return nil }
            guard let period = Period(text), period.kind == .day else {
                throw APIProblem.parameter(name, "a day is needed: YYYY-MM-DD")
            }
            return period
        }
        let last = try day("to", to) ?? Period(.day, at: now)
        let month = Period(.month, at: UnixTime(last.start))
        let first = try day("from", from) ?? Period(.day, at: UnixTime(month.start))
        let length = last.start.daysSinceEpoch - first.start.daysSinceEpoch
        guard (0..<ServerLimits.usageDaysMax).contains(length) else {
            throw APIProblem.parameter(
                "from",
                "must not be after to, nor more than \(ServerLimits.usageDaysMax) days before")
        }
        return (first, last)
    }

    private static func json(_ row: UsageRow, _ dimensions: [UsageDimension]) -> JSONValue {
        var object: JSONObject = [:]
        for (dimension, key) in zip(dimensions, row.keys) {
            object[dimension.rawValue] = .string(key)
        }
        for (name, count) in [
            ("attempts", row.attempts), ("failures", row.failures),
            ("input_tokens", row.tokens.input), ("cached_input_tokens", row.tokens.cachedInput),
            ("cache_write_tokens", row.tokens.cacheWrite), ("output_tokens", row.tokens.output),
            ("reasoning_tokens", row.tokens.reasoning),
        ] {
            object[name] = .number(JSONNumber(count))
        }
        object["cost_usd"] = .string(row.cost.usd)
        var parts: JSONObject = [:]
        for source in CostSource.allCases {
            guard let part = row.costBySource[source], part > .zero else { continue }
            parts[source.name] = .string(part.usd)
        }
        object["cost_by_source_usd"] = .object(parts)
        return .object(object)
    }

    // MARK: - Accounts

    private func account(_ request: Request, _ context: ServerContext) async throws -> Response {
        guard let key = request.query("account").flatMap({ AccountKey($0) }) else {
            throw APIProblem.parameter(
                "account", "unit/scope/period/id is needed, as usd/user/2026-11/alice")
        }
        let states = try await services.ledger().store.states(of: [key])
        guard let state = states.first ?? nil else {
            throw APIProblem.notFound("There is no account \(key) with a limit.")
        }
        var object: JSONObject = [
            "account": .string(key.description), "unit": .string(key.unit.rawValue),
            "limit": amount(state.limit, key), "consumed": amount(state.consumed, key),
            "held": amount(state.held, key),
            // While a policy only observes, or above a limit that was lowered.
            "beyond": amount(max(.zero, state.consumed - state.limit), key),
        ]
        object["resets_at"] = state.resetsAtMilliseconds.map {
            .string(UnixTime(milliseconds: $0).rfc3339)
        }
        if let recorded = try await recorded(key) { object["recorded"] = amount(recorded, key) }
        return .json(.object(object))
    }

    /// Σ records of a user's money account, for reconciling.
    private func recorded(_ key: AccountKey) async throws -> NanoUSD? {
        guard key.unit == .usd, key.scope == .user else { return nil }
        let start = key.period.kind == .forever ? 0 : key.period.beginning.milliseconds
        let rows = try await services.archive.breakdown(
            by: [],
            where: RecordFilter(
                from: UnixTime(milliseconds: start),
                to: key.period.end ?? UnixTime(milliseconds: .max), subject: key.id))
        return rows.reduce(.zero) { $0 + $1.cost }
    }

    /// USD as a decimal string, requests and tokens as a number.
    private func amount(_ amount: NanoUSD, _ key: AccountKey) -> JSONValue {
        switch key.unit {
        case .usd: .string(amount.usd)
        case .requests, .tokens: .number(JSONNumber(amount.rawValue))
        }
    }
}
