import ControlPlaneStore
import WeirCore
import WeirMeshProtocol
import WeirPolicy

/// `GET /agents/performance/{agent}`: what the records of all sidecars say of an agent, in total,
/// by hour, and the later half of the window beside the earlier one.
struct PerformanceQuery {
    private static let hour: Int64 = 3_600_000
    private static let windows = hour...(31 * 24 * hour)

    let services: ControlPlaneServices

    func answer(_ request: UserRequest) async throws -> JSONValue {
        var query = QueryReader(request)
        let agent = query.text("agent") ?? ""
        let window = query.window("window", default: 24 * Self.hour, in: Self.windows)
        var filter = PerformanceFilter(agent: agent)
        filter.model = query.text("model")
        filter.tier = query.text("tier")
        try query.finish()
        let now = try await services.redis.time()
        let from = UnixTime(milliseconds: now.milliseconds - window)
        let performance = try await services.archive.performance(of: filter, from: from, to: now)
        // What has left the policy still has its history.
        let isKnown = services.hub.active?.policy.agents[agent] != nil
        guard isKnown || performance.totals.attempts > 0 else {
            throw MeshRefusal(
                reason: Reason.unknownAgent.name, detail: "There is no agent \(agent).")
        }
        var object: JSONObject = [
            "agent": .string(agent),
            "window": .string(DurationText.text(milliseconds: window)),
            "from": .string(from.rfc3339), "to": .string(now.rfc3339),
            "source": "records of all sidecars, widened to whole hours",
        ]
        Self.write(performance.totals, to: &object)
        object["tokens"] = Self.tokens(performance.totals.tokens)
        object["trend"] = Self.trend(
            performance, middle: UnixTime(milliseconds: now.milliseconds - window / 2))
        object["hours"] = .array(
            performance.hours.map { hour in
                var object: JSONObject = ["hour": .string(hour.start.rfc3339)]
                Self.write(hour.summary, to: &object)
                return .object(object)
            })
        return .object(object)
    }

    static func write(_ summary: PerformanceSummary, to object: inout JSONObject) {
        object["attempts"] = .number(JSONNumber(summary.attempts))
        object["succeeded"] = .number(JSONNumber(summary.succeeded))
        object["success_rate"] = summary.successRate.map(rounded) ?? .null
        object["outcomes"] = .object(
            summary.outcomes.sorted { $0.key < $1.key }.reduce(into: JSONObject()) {
                $0[$1.key] = .number(JSONNumber($1.value))
            })
        var latency = JSONObject()
        for (name, permille) in [("p50", 500), ("p90", 900), ("p95", 950), ("p99", 990)] {
            latency[name] = milliseconds(summary, permille: Int64(permille))
        }
        object["latency_ms"] = .object(latency)
        object["cost_usd"] = .string(summary.cost.usd)
        object["cost_per_request_usd"] =
            summary.costPerAttempt.map { .string($0.usd) } ?? .null
    }

    private static func milliseconds(
        _ summary: PerformanceSummary, permille: Int64
    ) -> JSONValue {
        summary.latencies.percentile(permille: permille).map { rounded(Double($0) / 1_000) }
            ?? .null
    }

    static func rounded(_ value: Double) -> JSONValue {
        JSONNumber((value * 1_000).rounded() / 1_000).map(JSONValue.number) ?? .null
    }

    private static func tokens(_ tokens: TokenSums) -> JSONValue {
        [
            "input": .number(JSONNumber(tokens.input)),
            "cached_input": .number(JSONNumber(tokens.cachedInput)),
            "cache_write": .number(JSONNumber(tokens.cacheWrite)),
            "output": .number(JSONNumber(tokens.output)),
            "reasoning": .number(JSONNumber(tokens.reasoning)),
        ]
    }

    // MARK: Trend

    /// Hours that began before the middle, and the others. Nothing is said of a half without
    /// attempts.
    private static func trend(_ performance: AgentPerformance, middle: UnixTime) -> JSONValue {
        var earlier = PerformanceSummary()
        var later = PerformanceSummary()
        for hour in performance.hours {
            if hour.start < middle { earlier.add(hour.summary) } else { later.add(hour.summary) }
        }
        var object: JSONObject = ["divided_at": .string(middle.rfc3339)]
        guard earlier.attempts > 0, later.attempts > 0 else {
            object["reason"] = "one half of the window has no attempts"
            return .object(object)
        }
        object["attempts"] = pair(
            .number(JSONNumber(earlier.attempts)), .number(JSONNumber(later.attempts)))
        object["success_rate"] = pair(
            earlier.successRate.map(rounded) ?? .null, later.successRate.map(rounded) ?? .null)
        object["p95_ms"] = pair(
            milliseconds(earlier, permille: 950), milliseconds(later, permille: 950))
        object["cost_per_request_usd"] = pair(
            earlier.costPerAttempt.map { .string($0.usd) } ?? .null,
            later.costPerAttempt.map { .string($0.usd) } ?? .null)
        return .object(object)
    }

    private static func pair(_ earlier: JSONValue, _ later: JSONValue) -> JSONValue {
        ["earlier": earlier, "later": later]
    }
}
