import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import ControlPlaneStore

@Suite(.timeLimit(.minutes(1))) struct PerformanceTests {
    private static let holder = Incarnation(7)
    private static let names: [UInt32: String] = [
        1: "ann", 2: "free", 3: "finbert", 4: "base", 5: "large", 6: "pro", 7: "tft",
    ]
    /// 14:00 of a day.
    private static let start = UnixTime(seconds: 1_790_002_800)

    private struct Attempt {
        var minute: Int64 = 0
        var cost: Int64 = 100
        var latency: UInt32 = 1_000
        var status: UInt16 = 200
        var reason = Reason.admitted
        var model: UInt32 = 4
        var tier: UInt32 = 2
        var agent: UInt32 = 3
        var flags: AttemptRecord.Flags = []
    }

    private func block(_ attempts: [Attempt], from first: UInt64 = 1) -> RecordBlock {
        let records = attempts.enumerated().map { index, attempt in
            var record = AttemptRecord()
            record.sequence = first + UInt64(index)
            record.incarnation = Self.holder
            record.startedAt = UnixTime(
                milliseconds: Self.start.milliseconds + attempt.minute * 60_000)
            record.cost = NanoUSD(attempt.cost)
            record.latencyMicroseconds = attempt.latency
            record.status = attempt.status
            record.reason = attempt.reason
            record.tokens.input = 10
            record.tokens.reasoning = 1
            (record.agent, record.model, record.tier) = (attempt.agent, attempt.model, attempt.tier)
            record.flags = attempt.flags
            return record
        }
        return RecordBlock(incarnation: Self.holder, names: Self.names, records: records)
    }

    private func history(
        _ archive: Archive, _ filter: PerformanceFilter = PerformanceFilter(agent: "finbert"),
        fromMinute: Int64 = 0, toMinute: Int64 = 24 * 60
    ) async throws -> AgentPerformance {
        try await archive.performance(
            of: filter,
            from: UnixTime(milliseconds: Self.start.milliseconds + fromMinute * 60_000),
            to: UnixTime(milliseconds: Self.start.milliseconds + toMinute * 60_000))
    }

    @Test(arguments: Driver.allCases)
    func outcomesCostsAndLatenciesAreSummedByHour(on driver: Driver) async throws {
        let database = try TestDatabase(driver)
        let archive = try database.archive()
        let attempts = [
            Attempt(latency: 2_000),
            Attempt(minute: 59, cost: 51, latency: 4_000),
            Attempt(minute: 60, latency: 9_000, status: 502, reason: .upstreamError),
            // The agent says no to the caller: answered, and no success.
            Attempt(minute: 61, status: 404),
            // Observed: it would have been refused, and was served.
            Attempt(minute: 62, latency: 40, reason: .rateLimited, flags: .observed),
            Attempt(minute: 60, cost: 9_999, agent: 7),
        ]
        #expect(try await archive.store([block(attempts)]) == [Self.holder: 6])
        let performance = try await history(archive)
        #expect(
            performance.hours.map(\.start.milliseconds) == [
                Self.start.milliseconds, Self.start.milliseconds + 3_600_000,
            ])
        let (first, second) = (performance.hours[0].summary, performance.hours[1].summary)
        #expect(first.attempts == 2 && first.succeeded == 2 && first.cost == NanoUSD(151))
        #expect(first.costPerAttempt == NanoUSD(76) && first.successRate == 1)
        #expect(
            first.latencies.percentile(permille: 1_000).map { abs(Int($0) - 4_000) <= 62 } == true)
        #expect(second.attempts == 3 && second.succeeded == 1)
        #expect(second.outcomes == ["admitted": 1, "upstream_error": 1, "rate_limited": 1])
        #expect(second.latencies.percentile(permille: 500) == 40)
        let totals = performance.totals
        #expect(totals.attempts == 5 && totals.cost == NanoUSD(451) && totals.successRate == 0.6)
        #expect(totals.tokens.input == 50 && totals.tokens.reasoning == 5)
        #expect(totals.outcomes == ["admitted": 3, "upstream_error": 1, "rate_limited": 1])
        #expect(totals.latencies.total == 3)
        // The same as the records say.
        var filter = RecordFilter.everything
        filter.agent = "finbert"
        let sums = try await archive.breakdown(by: [], where: filter)
        #expect(sums.map(\.cost) == [totals.cost] && sums.map(\.attempts) == [totals.attempts])
        #expect(sums.map(\.failures) == [2])
    }

    @Test(arguments: Driver.allCases)
    func whatIsShippedAgainCountsOnce(on driver: Driver) async throws {
        let database = try TestDatabase(driver)
        let archive = try database.archive()
        // More than one statement holds, so that both of its sizes are seen.
        let all = block((0..<80).map { Attempt(minute: $0 % 2, latency: UInt32($0)) })
        let part = RecordBlock(
            incarnation: all.incarnation, names: all.names, records: Array(all.records[20..<70]))
        #expect(try await archive.store([part]) == [Self.holder: 0])
        #expect(try await history(archive).totals.attempts == 50)
        for _ in 0..<2 {
            #expect(try await archive.store([all]) == [Self.holder: 80])
            let totals = try await history(archive).totals
            #expect(totals.attempts == 80 && totals.latencies.total == 80)
            #expect(totals.cost == NanoUSD(8_000))
        }
        // A message that is refused leaves nothing behind.
        var forged = block([Attempt(), Attempt(cost: 1)], from: 80)
        forged.records.swapAt(0, 1)
        forged.records[0].sequence = 81
        forged.records[1].sequence = 80
        forged.records[1].cost = NanoUSD(2)
        let refused = forged
        await #expect(throws: ArchiveError.conflict(incarnation: 7, sequence: 80)) {
            try await archive.store([refused])
        }
        #expect(try await history(archive).totals.attempts == 80)
    }

    @Test(arguments: Driver.allCases)
    func windowsModelsAndTiers(on driver: Driver) async throws {
        let database = try TestDatabase(driver)
        let archive = try database.archive()
        _ = try await archive.store([
            block([
                Attempt(), Attempt(minute: 60, model: 5), Attempt(minute: 120, tier: 6),
            ])
        ])
        #expect(try await history(archive).hours.count == 3)
        // Widened to whole hours: what began at 14:00 counts from 14:30, too.
        #expect(try await history(archive, fromMinute: 30, toMinute: 61).totals.attempts == 2)
        #expect(try await history(archive, fromMinute: 60, toMinute: 60).totals.attempts == 0)
        let large = PerformanceFilter(agent: "finbert", model: "large")
        #expect(try await history(archive, large).hours.map(\.summary.attempts) == [1])
        let pro = PerformanceFilter(agent: "finbert", tier: "pro")
        #expect(try await history(archive, pro).totals.attempts == 1)
        let nobody = try await history(archive, PerformanceFilter(agent: "nobody"))
        #expect(nobody == AgentPerformance())
        #expect(nobody.totals.successRate == nil && nobody.totals.costPerAttempt == nil)
    }

    /// A database of the first version has records and no sums.
    @Test(arguments: Driver.allCases)
    func anOldDatabaseGetsItsHistory(on driver: Driver) async throws {
        let database = try TestDatabase(driver)
        let attempts = (0..<40).map { number -> Attempt in
            let isFailure = number % 5 == 0
            return Attempt(
                minute: Int64(number) * 7, latency: UInt32(number * number * 97),
                status: isFailure ? 500 : 200, reason: isFailure ? .upstreamError : .admitted)
        }
        let fresh: AgentPerformance
        do {
            let archive = try database.archive()
            _ = try await archive.store([block(attempts)])
            fresh = try await history(archive)
        }
        #expect(fresh.totals.attempts == 40)
        let old = try database.connection()
        for statement in [
            "DROP TABLE performance", "DROP TABLE latencies", "DROP TABLE schema_versions",
            "DROP INDEX records_in_order", "DROP INDEX records_by_agent",
            "DROP INDEX records_by_run", "DROP INDEX records_by_request",
            "DROP TABLE record_tags", "ALTER TABLE records DROP COLUMN tags",
        ] {
            try old.execute(statement)
        }
        let migrated = try database.archive()
        #expect(try await history(migrated) == fresh)
    }
}
