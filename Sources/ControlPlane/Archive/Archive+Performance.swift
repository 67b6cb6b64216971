import WeirCore

/// Which attempts a performance history is of: an agent's, of one model or tier where named.
package struct PerformanceFilter: Hashable, Sendable {
    package var agent: String
    package var model: String?
    package var tier: String?

    package init(agent: String, model: String? = nil, tier: String? = nil) {
        self.agent = agent
        self.model = model
        self.tier = tier
    }
}

/// Tokens of many attempts.
package struct TokenSums: Hashable, Sendable {
    package var input: Int64 = 0
    package var cachedInput: Int64 = 0
    package var cacheWrite: Int64 = 0
    package var output: Int64 = 0
    package var reasoning: Int64 = 0
    package init() {}

    package static func += (left: inout TokenSums, right: TokenSums) {
        left.input += right.input
        left.cachedInput += right.cachedInput
        left.cacheWrite += right.cacheWrite
        left.output += right.output
        left.reasoning += right.reasoning
    }
}

/// What became of an agent's attempts. Attempts, not users' requests: a retry is one of its own,
/// and so is one that was refused before it reached the agent (`outcomes` tells them apart).
package struct PerformanceSummary: Hashable, Sendable {
    package var attempts: Int64 = 0
    /// Answered whole with 2xx.
    package var succeeded: Int64 = 0
    /// Attempts by the name of their reason (`Reason.name`); the counts add up to `attempts`.
    package var outcomes: [String: Int64] = [:]
    package var cost = NanoUSD.zero
    package var tokens = TokenSums()
    /// Of what succeeded, from the request's start to the answer's end.
    package var latencies = LatencyHistogram()

    package init() {}

    /// 0 to 1; `nil` without attempts.
    package var successRate: Double? {
        attempts > 0 ? Double(succeeded) / Double(attempts) : nil
    }

    /// Rounded up; `nil` without attempts.
    package var costPerAttempt: NanoUSD? {
        guard attempts > 0 else { return nil }
        return cost > .zero ? NanoUSD((cost.rawValue - 1) / attempts + 1) : .zero
    }

    package mutating func add(_ other: PerformanceSummary) {
        attempts += other.attempts
        succeeded += other.succeeded
        outcomes.merge(other.outcomes, uniquingKeysWith: +)
        cost += other.cost
        tokens += other.tokens
        latencies.add(other.latencies)
    }
}

/// An agent's history.
package struct AgentPerformance: Hashable, Sendable {
    package struct Hour: Hashable, Sendable {
        /// When the hour begins.
        package var start: UnixTime
        package var summary: PerformanceSummary
    }

    package var totals = PerformanceSummary()
    /// In their order; an hour without attempts is not among them.
    package var hours: [Hour] = []
}

extension Archive {
    /// What the records say about an agent in [from, to), widened to whole hours: totals with
    /// success rate, cost per attempt and percentiles (`latencies.percentile(permille: 950)`, at
    /// most 1.6 % off), and the same for each hour, for a trend. It is kept in the transaction that
    /// stores the records, so it counts each exactly once and never lags behind them.
    package func performance(
        of filter: PerformanceFilter, from: UnixTime, to: UnixTime
    ) async throws(ArchiveError) -> AgentPerformance {
        let conditions = filter.conditions(from: from, to: to)
        let rowsMax = StoreLimits.performanceRowsMax
        let parameters = conditions.parameters + [.integer(Int64(rowsMax) + 1)]
        let sql = conditions.sql
        let (outcomes, latencies) = try await read { database throws(ArchiveError) in
            (
                try database.query(ArchiveSQL.performance(where: sql), parameters),
                try database.query(ArchiveSQL.latencies(where: sql), parameters)
            )
        }
        guard outcomes.count <= rowsMax, latencies.count <= rowsMax else {
            throw .tooManyRows(max: rowsMax)
        }
        return Self.performance(outcomes, latencies)
    }

    private static func performance(
        _ outcomes: [[SQLValue]], _ latencies: [[SQLValue]]
    ) -> AgentPerformance {
        var hours: [Int64: PerformanceSummary] = [:]
        for row in outcomes {
            guard let hour = row.first?.integer, let reason = row.dropFirst().first?.text else {
                continue
            }
            let sums = row.dropFirst(2).compactMap(\.integer)
            guard sums.count == ArchiveSQL.performanceSums.count else { continue }
            var summary = PerformanceSummary()
            (summary.attempts, summary.succeeded) = (sums[0], sums[1])
            summary.outcomes = [reason: sums[0]]
            summary.cost = NanoUSD(sums[2])
            summary.tokens = TokenSums(sums[3...])
            hours[hour, default: PerformanceSummary()].add(summary)
        }
        for row in latencies {
            let numbers = row.compactMap(\.integer)
            guard numbers.count == 3 else { continue }
            hours[numbers[0]]?.latencies.add(bucket: Int(numbers[1]), count: numbers[2])
        }
        var performance = AgentPerformance()
        for (hour, summary) in hours.sorted(by: { $0.key < $1.key }) {
            performance.totals.add(summary)
            performance.hours.append(
                AgentPerformance.Hour(start: UnixTime(milliseconds: hour), summary: summary))
        }
        return performance
    }
}

extension TokenSums {
    /// Input, cached input, cache write, output, reasoning.
    init(_ sums: ArraySlice<Int64>) {
        let sums = Array(sums)
        precondition(sums.count == 5, "five sums of tokens")
        (input, cachedInput, cacheWrite) = (sums[0], sums[1], sums[2])
        (output, reasoning) = (sums[3], sums[4])
    }
}

extension PerformanceFilter {
    fileprivate func conditions(from: UnixTime, to: UnixTime) -> SQLConditions {
        var conditions = SQLConditions()
        conditions.add("agent = ?", .text(SQLText.storable(agent)))
        conditions.add("hour >= ?", .integer(HourlyRollup.hour(of: from)))
        conditions.add("hour < ?", .integer(to.milliseconds))
        if let model { conditions.add("model = ?", .text(SQLText.storable(model))) }
        if let tier { conditions.add("tier = ?", .text(SQLText.storable(tier))) }
        return conditions
    }
}
