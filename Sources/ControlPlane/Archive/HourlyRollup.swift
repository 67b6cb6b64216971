import WeirCore
import WeirMeshProtocol

/// Sums over the records of one transaction by hour, agent, model and tier: what the performance
/// history keeps of them.
struct HourlyRollup {
    private static let hourMilliseconds: Int64 = 3_600_000

    private struct Group: Hashable, Comparable {
        var hour: Int64
        var agent: String
        var model: String
        var tier: String

        static func < (left: Group, right: Group) -> Bool {
            (left.hour, left.agent, left.model, left.tier)
                < (right.hour, right.agent, right.model, right.tier)
        }

        var values: [SQLValue] { [.integer(hour), .text(agent), .text(model), .text(tier)] }
    }

    private struct Sums {
        /// In the order of `ArchiveSQL.performanceSums`, by the reason's name.
        var byReason: [String: [Int64]] = [:]
        var latencies = LatencyHistogram()
    }

    private var groups: [Group: Sums] = [:]

    /// The beginning of a time's hour, in milliseconds.
    static func hour(of time: UnixTime) -> Int64 {
        time.milliseconds / hourMilliseconds * hourMilliseconds
    }

    mutating func add(_ record: AttemptRecord, _ names: ArchiveNames) {
        let group = Group(
            hour: Self.hour(of: record.startedAt), agent: names.agent, model: names.model,
            tier: names.tier)
        let tokens = record.tokens
        let values =
            [1, record.isSuccess ? 1 : 0, record.cost.rawValue]
            + [
                tokens.input, tokens.cachedInput, tokens.cacheWrite, tokens.output,
                tokens.reasoning,
            ].map(Int64.init)
        var sums = groups[group] ?? Sums()
        let before = sums.byReason[record.reason.name] ?? values.map { _ in 0 }
        sums.byReason[record.reason.name] =
            zip(before, values).map(Self.saturatingSum)
        if record.isSuccess { sums.latencies.add(microseconds: record.latencyMicroseconds) }
        groups[group] = sums
    }

    private static func saturatingSum(_ left: Int64, _ right: Int64) -> Int64 {
        let (sum, overflow) = left.addingReportingOverflow(right)
        return overflow ? .max : sum
    }

    /// Adds the sums to what is stored, always in the same order, so that two writers of the same
    /// hours wait for each other and never in a circle.
    func store(in database: any SQLConnection) throws(ArchiveError) {
        for (group, sums) in groups.sorted(by: { $0.key < $1.key }) {
            for (reason, values) in sums.byReason.sorted(by: { $0.key < $1.key }) {
                try database.execute(
                    ArchiveSQL.addPerformance,
                    group.values + [.text(reason)] + values.map(SQLValue.integer))
            }
            for (bucket, count) in sums.latencies.counts.sorted(by: { $0.key < $1.key }) {
                try database.execute(
                    ArchiveSQL.addLatency,
                    group.values + [.integer(Int64(bucket)), .integer(count)])
            }
        }
    }
}

extension AttemptRecord {
    /// As `ArchiveSQL.succeeded` says it.
    fileprivate var isSuccess: Bool {
        (200...299).contains(status) && (reason == .admitted || flags.contains(.observed))
    }
}
