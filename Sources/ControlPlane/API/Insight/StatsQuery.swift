import ControlPlaneStore
import WeirCore
import WeirMeshProtocol
import WeirPolicy

/// The part of `GET /stats` that is in the records: attempts and costs of a window, by tier and by
/// agent. What happens now gateways know from the reports.
struct StatsQuery {
    private static let windows: ClosedRange<Int64> = 60_000...(24 * 3_600_000)

    let services: ControlPlaneServices

    func answer(_ request: UserRequest) async throws -> JSONValue {
        var query = QueryReader(request)
        let window = query.window("window", default: 3_600_000, in: Self.windows)
        try query.finish()
        guard request.subject.role >= .operator else {
            throw MeshRefusal(
                reason: Reason.forbidden.name, detail: "this needs the role operator")
        }
        let now = try await services.redis.time()
        let from = UnixTime(milliseconds: now.milliseconds - window)
        // A record may be stamped a little ahead of this clock by a sidecar's.
        let filter = RecordFilter(
            from: from, to: UnixTime(milliseconds: now.milliseconds + 60_000))
        let rows = try await services.archive.breakdown(by: [.tier, .agent], where: filter)
        let total = rows.reduce(NanoUSD.zero) { $0 + $1.cost }
        return [
            "window": .string(DurationText.text(milliseconds: window)),
            "from": .string(from.rfc3339), "to": .string(now.rfc3339),
            "source": "records of all sidecars", "total_usd": .string(total.usd),
            "usd_per_hour": .string(Self.perHour(total, window)),
            "by_tier": .array(Self.grouped(rows, "tier", key: 0)),
            "by_agent": .array(Self.grouped(rows, "agent", key: 1)),
        ]
    }

    private static func perHour(_ total: NanoUSD, _ window: Int64) -> String {
        NanoUSD(Int64(clamping: Int128(total.rawValue) * 3_600_000 / Int128(window))).usd
    }

    private static func grouped(_ rows: [UsageRow], _ name: String, key: Int) -> [JSONValue] {
        Dictionary(grouping: rows) { $0.keys[key] }.sorted { $0.key < $1.key }.map { key, rows in
            [
                name: .string(key),
                "attempts": .number(JSONNumber(rows.reduce(0) { $0 + $1.attempts })),
                "failures": .number(JSONNumber(rows.reduce(0) { $0 + $1.failures })),
                "cost_usd": .string(rows.reduce(NanoUSD.zero) { $0 + $1.cost }.usd),
            ]
        }
    }
}
