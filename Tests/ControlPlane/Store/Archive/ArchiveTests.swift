import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import ControlPlaneStore

@Suite(.timeLimit(.minutes(1))) struct ArchiveTests {
    private static let holder = Incarnation(7)
    private static let names: [UInt32: String] = [
        1: "ann", 2: "free", 3: "finbert", 4: "finbert-base", 5: "bob", 6: "news_analysis",
        7: "mesh", 8: "launch,team:a", 9: "team:a,team:b", 10: "launch", 11: "TEAM:a",
    ]

    private func record(
        _ sequence: UInt64, cost: Int64, subject: UInt32 = 1, day: Int64 = 0, child: Int64 = 1,
        reason: Reason = .admitted
    ) -> AttemptRecord {
        var record = AttemptRecord()
        record.sequence = sequence
        record.incarnation = Self.holder
        record.startedAt = UnixTime(seconds: 1_790_000_000 + day * 86_400)
        record.paidBy = ChildKey(
            lease: LeaseID(incarnation: Incarnation(3), number: 9), child: child)
        record.cost = NanoUSD(cost)
        record.tokens.input = 10
        record.tokens.output = 5
        record.latencyMicroseconds = UInt32(sequence) * 100
        record.status = 200
        record.reason = reason
        record.source = .reported
        (record.subject, record.tier, record.agent) = (subject, 2, 3)
        (record.model, record.requestType) = (4, 6)
        return record
    }

    private func block(_ records: [AttemptRecord]) -> RecordBlock {
        RecordBlock(incarnation: Self.holder, names: Self.names, records: records)
    }

    @Test(arguments: Driver.allCases)
    func recordsAreStoredOnceAndUpToTheFirstGap(on driver: Driver) async throws {
        let database = try TestDatabase(driver)
        let archive = try database.archive()
        #expect(try await archive.hasRecords() == false)
        let first = block((1...3).map { record($0, cost: 10) })
        #expect(try await archive.store([first]) == [Self.holder: 3])
        #expect(try await archive.store([first]) == [Self.holder: 3])
        let late = block((6...8).map { record($0, cost: 10) })
        #expect(try await archive.store([late]) == [Self.holder: 3])
        let missing = block((4...5).map { record($0, cost: 10) })
        #expect(try await archive.store([missing]) == [Self.holder: 8])
        #expect(try await archive.storedThrough(Self.holder) == 8)
        let all = try await archive.breakdown(by: [], where: .everything)
        #expect(all.map(\.attempts) == [8] && all.map(\.cost) == [NanoUSD(80)])
        #expect(try await archive.hasRecords())
    }

    @Test(arguments: Driver.allCases)
    func anotherRecordUnderAStoredNumberRefusesAll(on driver: Driver) async throws {
        let database = try TestDatabase(driver)
        let archive = try database.archive()
        _ = try await archive.store([block([record(1, cost: 10)])])
        await #expect(throws: ArchiveError.conflict(incarnation: 7, sequence: 1)) {
            try await archive.store([block([record(1, cost: 11), record(2, cost: 5)])])
        }
        #expect(try await archive.storedThrough(Self.holder) == 1)
        #expect(try await archive.store([block([record(2, cost: 5)])]) == [Self.holder: 2])
    }

    @Test(arguments: Driver.allCases)
    func whatWasStoredIsThereAfterARestart(on driver: Driver) async throws {
        let database = try TestDatabase(driver)
        let written = record(1, cost: 123)
        _ = try await database.archive().store([block([written])])
        let again = try database.archive()
        #expect(try await again.storedThrough(Self.holder) == 1)
        let records = try await again.records(where: .everything, limit: 10)
        #expect(records.map(\.record) == [written])
        #expect(records.first?.subject == "ann" && records.first?.model == "finbert-base")
        #expect(records.first?.tenant == "")
    }

    /// Two control planes get the same blocks, in parts that overlap.
    @Test(arguments: Driver.allCases)
    func twoWritersStoreEachRecordOnce(on driver: Driver) async throws {
        let database = try TestDatabase(driver)
        let archives = [try database.archive(), try database.archive()]
        let records = (1...240).map { record(UInt64($0), cost: Int64($0)) }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (index, archive) in archives.enumerated() {
                group.addTask {
                    for start in stride(from: 0, to: 240, by: 40) {
                        // The second one is half a block behind, and tells the same.
                        let from = max(0, start - index * 20)
                        let part = Array(records[from..<min(240, from + 60)])
                        let stored = try await archive.store([self.block(part)])
                        #expect(stored[Self.holder] ?? 0 >= UInt64(from))
                    }
                    _ = try await archive.store([self.block(Array(records[200...]))])
                }
            }
            try await group.waitForAll()
        }
        #expect(try await archives[0].storedThrough(Self.holder) == 240)
        let sums = try await archives[1].breakdown(by: [], where: .everything)
        #expect(sums.map(\.attempts) == [240] && sums.map(\.cost) == [NanoUSD(240 * 241 / 2)])
        let performance = try await archives[0].performance(
            of: PerformanceFilter(agent: "finbert"), from: UnixTime(seconds: 0),
            to: UnixTime(milliseconds: .max))
        #expect(performance.totals.attempts == 240)
        #expect(performance.totals.cost == NanoUSD(240 * 241 / 2))
        #expect(performance.totals.latencies.total == 240)
    }

    @Test(arguments: Driver.allCases)
    func usageIsSummedByAnything(on driver: Driver) async throws {
        let database = try TestDatabase(driver)
        let archive = try database.archive()
        var estimated = record(3, cost: 30, day: 1)
        estimated.source = .estimated
        _ = try await archive.store([
            block([
                record(1, cost: 10), record(2, cost: 20, subject: 5), estimated,
                record(4, cost: 0, day: 1, reason: .upstreamError),
            ])
        ])
        let from = UnixTime(seconds: 1_790_000_000)
        let to = UnixTime(seconds: 1_790_000_000 + 2 * 86_400)
        let filter = RecordFilter(from: from, to: to)
        let days = try await archive.breakdown(by: [.day, .user], where: filter)
        #expect(
            days.map(\.keys) == [
                ["2026-09-21", "ann"], ["2026-09-21", "bob"], ["2026-09-22", "ann"],
            ])
        #expect(days.map(\.cost) == [NanoUSD(10), NanoUSD(20), NanoUSD(30)])
        #expect(days.map(\.failures) == [0, 0, 1] && days.map(\.tokens.output) == [5, 5, 10])
        let ann = try await archive.breakdown(
            by: [.agent], where: RecordFilter(from: from, to: to, subject: "ann"))
        #expect(ann.map(\.cost) == [NanoUSD(40)] && ann.map(\.keys) == [["finbert"]])
        #expect(ann.first?.costBySource[.reported] == NanoUSD(10))
        #expect(ann.first?.costBySource[.estimated] == NanoUSD(30))
        #expect(ann.first?.costBySource[.ceiling] == .zero)
        let none = try await archive.breakdown(by: [], where: RecordFilter(from: to, to: to))
        #expect(none.isEmpty)
        for dimension in UsageDimension.allCases {
            let rows = try await archive.breakdown(by: [dimension], where: filter)
            #expect(rows.reduce(0) { $0 + $1.cost.rawValue } == 60, "\(dimension)")
        }
    }

    @Test(arguments: Driver.allCases)
    func recordsAreFilteredAndPaged(on driver: Driver) async throws {
        let database = try TestDatabase(driver)
        let archive = try database.archive()
        var one = record(1, cost: 1, reason: .upstreamError)
        one.status = 502
        one.run = Identifier(high: 1, low: 2)
        one.request = Identifier(high: 3, low: 4)
        // Four that began in the same millisecond.
        _ = try await archive.store([
            block([one] + (2...4).map { record($0, cost: 1) }),
            block([record(5, cost: 1, subject: 5, day: 1)]),
        ])
        var pages: [[UInt64]] = []
        var last: Archive.Position?
        repeat {
            let page = try await archive.records(where: .everything, olderThan: last, limit: 2)
            pages.append(page.map(\.record.sequence))
            last = page.last.map { Archive.Position(of: $0.record) }
        } while last != nil
        #expect(pages == [[5, 4], [3, 2], [1], []])

        func sequences(_ change: (inout RecordFilter) -> Void) async throws -> [UInt64] {
            var filter = RecordFilter.everything
            change(&filter)
            return try await archive.records(where: filter, limit: 10).map(\.record.sequence)
        }
        #expect(try await sequences { $0.subject = "bob" } == [5])
        #expect(try await sequences { $0.status = 502 } == [1])
        #expect(try await sequences { $0.reason = .admitted } == [5, 4, 3, 2])
        #expect(try await sequences { $0.run = Identifier(high: 1, low: 2) } == [1])
        #expect(try await sequences { $0.request = Identifier(high: 3, low: 4) } == [1])
        #expect(try await sequences { $0.agent = "finbert' OR 1=1 --" } == [])
        #expect(try await sequences { $0.agent = "finbert" } == [5, 4, 3, 2, 1])
        #expect(try await sequences { $0.tenant = "" } == [5, 4, 3, 2, 1])
        #expect(try await sequences { $0.tier = "pro" } == [])
        #expect(try await sequences { $0.model = "finbert-base" } == [5, 4, 3, 2, 1])
        #expect(try await sequences { $0.requestType = "other" } == [])
        #expect(try await sequences { $0.from = UnixTime(seconds: 1_790_086_400) } == [5])
        #expect(try await sequences { $0.to = UnixTime(seconds: 1_790_086_400) } == [4, 3, 2, 1])
    }

    @Test(arguments: Driver.allCases)
    func aNameWithAZeroByteIsStored(on driver: Driver) async throws {
        let database = try TestDatabase(driver)
        let archive = try database.archive()
        var names = Self.names
        names[1] = "a\0b"
        let odd = RecordBlock(incarnation: Self.holder, names: names, records: [record(1, cost: 7)])
        #expect(try await archive.store([odd]) == [Self.holder: 1])
        var filter = RecordFilter.everything
        filter.subject = "a\0b"
        let found = try await archive.records(where: filter, limit: 1)
        #expect(found.first?.subject == "a\u{FFFD}b")
    }

    @Test(arguments: Driver.allCases)
    func reconcilingSumsByPayerAndAccount(on driver: Driver) async throws {
        let database = try TestDatabase(driver)
        let archive = try database.archive()
        _ = try await archive.store([
            block([
                record(1, cost: 10, child: 1), record(2, cost: 20, child: 2),
                record(3, cost: 5, subject: 5, child: 2),
            ])
        ])
        let lease = LeaseID(incarnation: Incarnation(3), number: 9)
        let sums = try await archive.sums(paidBy: lease, limit: 10)
        #expect(
            sums.map(\.payer.child) == [1, 2] && sums.map(\.cost) == [NanoUSD(10), NanoUSD(25)])
        #expect(try await archive.sums(paidBy: lease, limit: 1).map(\.payer.child) == [1])
        let month = Period(.month, at: UnixTime(seconds: 1_790_000_000))
        let users = try await archive.sums(of: .user, period: month, limit: 10)
        #expect(
            users.map(\.id) == ["ann", "bob"] && users.map(\.cost) == [NanoUSD(30), NanoUSD(5)])
    }

    private func tagged(
        _ sequence: UInt64, cost: Int64, _ tags: UInt32, subject: UInt32 = 1
    ) -> AttemptRecord {
        var record = record(sequence, cost: cost, subject: subject)
        record.tags = tags
        return record
    }

    @Test(arguments: Driver.allCases)
    func costsAreChargedBackByTagAndTeam(on driver: Driver) async throws {
        let database = try TestDatabase(driver)
        let archive = try database.archive()
        let records = [
            tagged(1, cost: 1, 0), tagged(2, cost: 10, 8), tagged(3, cost: 100, 9),
            tagged(4, cost: 1_000, 10, subject: 5), tagged(5, cost: 10_000, 11),
            tagged(6, cost: 100_000, 10, subject: 7),
        ]
        // Twice, as a sidecar that has not heard the answer tells it.
        for _ in 0..<2 { #expect(try await archive.store([block(records)]) == [Self.holder: 6]) }
        func sums(
            _ dimensions: UsageDimension..., tag: String? = nil
        ) async throws -> [String: Int64] {
            var filter = RecordFilter.everything
            filter.tag = tag
            let rows = try await archive.breakdown(by: dimensions, where: filter)
            let total = try await archive.total(of: rows, by: dimensions, where: filter)
            let pairs = rows.map { ($0.keys.joined(separator: "|"), $0.cost.rawValue) }
            return Dictionary(uniqueKeysWithValues: pairs + [("total", total.cost.rawValue)])
        }
        #expect(
            try await sums(.tag) == [
                "": 1, "launch": 101_010, "team:a": 110, "team:b": 100, "TEAM:a": 10_000,
                "total": 111_111,
            ])
        #expect(
            try await sums(.team) == ["": 111_001, "a": 110, "b": 100, "total": 111_111])
        #expect(try await sums(.user, tag: "team:a") == ["ann": 110, "total": 110])
        #expect(
            try await sums(.tag, .user, tag: "team:a") == [
                "launch|ann": 10, "team:a|ann": 110, "team:b|ann": 100, "total": 110,
            ])
        #expect(try await sums(.agent, tag: "team") == ["total": 0])
        var filter = RecordFilter.everything
        filter.tag = "launch"
        let found = try await archive.records(where: filter, limit: 10)
        #expect(found.map(\.tags) == ["launch", "launch", "launch,team:a"])
        try await checkAccounts(of: archive)
    }

    /// An account of a tag has the records of the tag, but for those that the mesh paid.
    private func checkAccounts(of archive: Archive) async throws {
        let month = Period(.month, at: UnixTime(seconds: 1_790_000_000))
        let sums = try await archive.recorded(
            of: .tag, in: month, .after("launch"), meshUser: "mesh", limit: 10)
        #expect(sums.map(\.id).contains("team:a") && !sums.map(\.id).contains("launch"))
        let these = try await archive.recorded(
            of: .tag, in: month, .these(["launch", "team:a", "nothing"]), meshUser: "mesh",
            limit: 10)
        #expect(these.map(\.id) == ["launch", "team:a"])
        #expect(these.map(\.cost) == [NanoUSD(1_010), NanoUSD(110)])
        #expect(these.map(\.records) == [2, 2])
        let restored = try await archive.sums(of: .tag, period: month, after: "launch", limit: 10)
        #expect(restored.first { $0.id == "team:b" }?.cost == NanoUSD(100))
    }

    /// A lease is spent in one period; what of it runs over midnight is that period's, too.
    @Test(arguments: Driver.allCases)
    func aRecordIsOfThePeriodOfTheLeaseThatPaid(on driver: Driver) async throws {
        let database = try TestDatabase(driver)
        let archive = try database.archive()
        let november = try #require(Period("2026-11"))
        let midnight = try #require(november.end).milliseconds
        func paid(_ sequence: UInt64, lease: Int64, at milliseconds: Int64, subject: UInt32 = 1)
            -> AttemptRecord
        {
            var record = record(sequence, cost: Int64(sequence), subject: subject)
            record.startedAt = UnixTime(milliseconds: milliseconds)
            record.paidBy.lease.number = lease
            return record
        }
        _ = try await archive.store([
            block([
                paid(1, lease: 1, at: midnight - 60_000), paid(2, lease: 1, at: midnight + 500),
                paid(4, lease: 2, at: midnight + 400),
                paid(8, lease: 3, at: midnight - 9 * 86_400_000),
                paid(16, lease: 4, at: midnight - 30 * 86_400_000, subject: 5),
                paid(32, lease: 5, at: midnight - 86_400_000, subject: 7),
            ])
        ])
        func sums(_ scope: AccountKey.Scope, _ period: Period, _ selection: AccountSelection)
            async throws -> [RecordedSum]
        {
            try await archive.recorded(
                of: scope, in: period, selection, meshUser: "mesh", limit: 10)
        }
        #expect(
            try await sums(.user, november, .after("")) == [
                RecordedSum(id: "ann", cost: NanoUSD(11), records: 3),
                RecordedSum(id: "bob", cost: NanoUSD(16), records: 1),
            ])
        #expect(try await sums(.user, november, .after("ann")).map(\.id) == ["bob"])
        #expect(try await sums(.user, november, .these(["bob", "eve"])).map(\.id) == ["bob"])
        let december = Period(.month, at: UnixTime(milliseconds: midnight))
        #expect(try await sums(.user, december, .after("")).map(\.cost) == [NanoUSD(4)])
        // Tests of agents are the mesh's, and nobody's tier pays for them.
        #expect(try await sums(.mesh, november, .after("")).map(\.cost) == [NanoUSD(32)])
        #expect(try await sums(.tier, november, .after("")).map(\.cost) == [NanoUSD(27)])
        #expect(try await sums(.tenant, november, .after("")).isEmpty)
        #expect(try await sums(.key, november, .after("")).isEmpty)
    }

    @Test func aFileThatCannotBeOpenedIsAnErrorAtOnce() {
        #expect(throws: ArchiveError.self) { try Archive(at: .sqlite(path: "/nowhere/archive.db")) }
    }

    @Test(arguments: Driver.allCases)
    func afterAnErrorTheArchiveGoesOn(on driver: Driver) async throws {
        let database = try TestDatabase(driver)
        let archive = try database.archive()
        var bad = record(1, cost: 1)
        bad.sequence = .max
        let unstorable = block([bad])
        await #expect(throws: ArchiveError.self) { try await archive.store([unstorable]) }
        #expect(try await archive.store([block([record(1, cost: 1)])]) == [Self.holder: 1])
    }
}

extension RecordFilter {
    static let everything = RecordFilter(
        from: UnixTime(seconds: 0), to: UnixTime(milliseconds: .max))
}
