import ControlPlaneStore
import HTTPTypes
import Hummingbird
import WeirCore
import WeirLedger
import WeirPolicy

/// `GET /v1/ledger/reconciliation`: every account of a month beside its records, page by page.
struct ReconciliationAPI: Sendable {
    let services: ControlPlaneServices

    func addRoutes(to table: RouteTable) {
        table.add("/v1/ledger/reconciliation", [.get: page])
    }

    private func page(_ request: Request, _ context: ServerContext) async throws -> Response {
        let now = try await services.redis.time()
        let period = try Self.period(request.query("period"), now: now)
        var place = Reconciliation.Place.records(.user, after: "")
        if let cursor = request.query("cursor") {
            guard let decoded = Reconciliation.Place(cursor: cursor) else {
                throw APIProblem.parameter("cursor", "is not the next of a page")
            }
            place = decoded
        }
        guard let active = services.hub.active else {
            throw APIProblem.unavailable("There is no policy yet, so there are no budgets.")
        }
        let page = try await Reconciliation(
            ledger: services.ledger().store, archive: services.archive,
            policies: services.policies, budgets: Array(active.policy.budgets.values),
            period: period
        ).page(at: place)
        return .json(Self.json(page, period: period, now: now))
    }

    /// A month of which the accounts are still kept.
    private static func period(_ text: String?, now: UnixTime) throws -> Period {
        guard let text else { return Period(.month, at: now) }
        guard let period = Period(text), period.kind == .month, let end = period.end else {
            throw APIProblem.parameter("period", "a month is needed: YYYY-MM")
        }
        guard end.milliseconds + StoreLimits.accountKeepMilliseconds > now.milliseconds,
            period.beginning <= now
        else {
            throw APIProblem.parameter(
                "period", "must not lie ahead, nor have ended more than 100 days ago")
        }
        return period
    }

    private static func json(_ page: Reconciliation.Page, period: Period, now: UnixTime)
        -> JSONValue
    {
        let all = page.comparisons
        var body: JSONObject = [
            "period": .string(period.description), "at": .string(now.rfc3339Milliseconds),
            "accounts": .array(all.map(\.json)),
            "not_named_by_records": .number(JSONNumber(page.unnamed)),
            "omitted": .number(JSONNumber(page.omitted)),
        ]
        body["next"] = page.next.map { .string($0.cursor) }
        return .object(body)
    }
}

extension Reconciliation.Place {
    var cursor: String {
        switch self {
        case .records(let scope, let id): Base64URL.encode(Array("\(scope.rawValue)/\(id)".utf8))
        case .ledger: Base64URL.encode(Array("ledger".utf8))
        }
    }

    init?(cursor: String) {
        guard cursor.utf8.count <= 4 * StoreLimits.nameBytesMax,
            let bytes = Base64URL.decode(cursor),
            let text = String(validating: bytes, as: UTF8.self)
        else { return nil }
        if text == "ledger" {
            self = .ledger
            return
        }
        let parts = text.utf8.split(
            separator: UInt8(ascii: "/"), maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2,
            let scope = AccountKey.Scope(rawValue: String(decoding: parts[0], as: UTF8.self)),
            [.user, .tenant, .tier, .tag].contains(scope)
        else { return nil }
        self = .records(scope, after: String(decoding: parts[1], as: UTF8.self))
    }
}
