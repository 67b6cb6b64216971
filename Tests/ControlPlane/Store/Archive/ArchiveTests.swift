import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import ControlPlaneStore

@Suite(.timeLimit(.minutes(1))) struct ArchiveTests {
    private static let holder = Incarnation(7)
    private static let names: [UInt32: String] = [
        1: "ann", 2: "free", 3: "finbert", 4: "finbert-base", 5: "bob", 6: "news_analysis",
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

    @Test func recordsAreStoredOnceAndUpToTheFirstGap() async throws {
        let folder = try TemporaryFolder()
        let archive = try Archive(path: folder.database)
        #expect(try await archive.hasRecords() == false)
        let first = block((1...3).map { record($0, cost: 10) })
        #expect(try await archive.store([first]) == [Self.holder: 3])
        #expect(try await archive.store([first]) == [Self.holder: 3])
        let late = block((6...8).map { record($0, cost: 10) })
        #expect(try await archive.store([late]) == [Self.holder: 3])
        let missing = block((4...5).map { record($0, cost: 10) })
        #expect(try await archive.store([missing]) == [Self.holder: 8])
        #expect(try await archive.storedThrough(Self.holder) == 8)
        let all = try await archive.usage(
            by: [], from: UnixTime(seconds: 0), to: UnixTime(milliseconds: .max))
        #expect(all.map(\.attempts) == [8] && all.map(\.cost) == [NanoUSD(80)])
        #expect(try await archive.hasRecords())
    }

    @Test func anotherRecordUnderAStoredNumberRefusesAll() async throws {
        let folder = try TemporaryFolder()
        let archive = try Archive(path: folder.database)
        _ = try await archive.store([block([record(1, cost: 10)])])
        await #expect(throws: ArchiveError.conflict(incarnation: 7, sequence: 1)) {
            try await archive.store([block([record(1, cost: 11), record(2, cost: 5)])])
        }
        #expect(try await archive.storedThrough(Self.holder) == 1)
        #expect(try await archive.store([block([record(2, cost: 5)])]) == [Self.holder: 2])
    }

    @Test func whatWasStoredIsThereAfterARestart() async throws {
        let folder = try TemporaryFolder()
        let written = record(1, cost: 123)
        _ = try await Archive(path: folder.database).store([block([written])])
        let again = try Archive(path: folder.database)
        #expect(try await again.storedThrough(Self.holder) == 1)
        let records = try await again.records(
            from: UnixTime(seconds: 0), to: UnixTime(milliseconds: .max), limit: 10)
        #expect(records.map(\.record) == [written])
        #expect(records.first?.subject == "ann" && records.first?.model == "finbert-base")
        #expect(records.first?.tenant == "")
    }

    @Test func usageIsSummedByAnything() async throws {
        let folder = try TemporaryFolder()
        let archive = try Archive(path: folder.database)
        _ = try await archive.store([
            block([
                record(1, cost: 10), record(2, cost: 20, subject: 5),
                record(3, cost: 30, day: 1), record(4, cost: 0, day: 1, reason: .upstreamError),
            ])
        ])
        let from = UnixTime(seconds: 1_790_000_000)
        let to = UnixTime(seconds: 1_790_000_000 + 2 * 86_400)
        let days = try await archive.usage(by: [.day, .user], from: from, to: to)
        #expect(
            days.map(\.keys) == [
                ["2026-09-21", "ann"], ["2026-09-21", "bob"], ["2026-09-22", "ann"],
            ])
        #expect(days.map(\.cost) == [NanoUSD(10), NanoUSD(20), NanoUSD(30)])
        #expect(days.map(\.failures) == [0, 0, 1] && days.map(\.outputTokens) == [5, 5, 10])
        let ann = try await archive.usage(by: [.agent], from: from, to: to, user: "ann")
        #expect(ann.map(\.cost) == [NanoUSD(40)] && ann.map(\.keys) == [["finbert"]])
        let none = try await archive.usage(by: [], from: to, to: to)
        #expect(none.isEmpty)
        for dimension in UsageDimension.allCases {
            let rows = try await archive.usage(by: [dimension], from: from, to: to)
            #expect(rows.reduce(0) { $0 + $1.cost.rawValue } == 60, "\(dimension)")
        }
        let latencies = try await archive.latencies(
            ofAgent: "finbert", from: from, to: to, limit: 10)
        #expect(latencies.sorted() == [100, 200, 300, 400])
    }

    @Test func reconcilingSumsByPayerAndAccount() async throws {
        let folder = try TemporaryFolder()
        let archive = try Archive(path: folder.database)
        _ = try await archive.store([
            block([
                record(1, cost: 10, child: 1), record(2, cost: 20, child: 2),
                record(3, cost: 5, subject: 5, child: 2),
            ])
        ])
        let lease = LeaseID(incarnation: Incarnation(3), number: 9)
        let sums = try await archive.sumsByPayer(after: nil, limit: 10)
        #expect(
            sums.map(\.payer.child) == [1, 2] && sums.map(\.cost) == [NanoUSD(10), NanoUSD(25)])
        let rest = try await archive.sumsByPayer(
            after: ChildKey(lease: lease, child: 1), limit: 10)
        #expect(rest.map(\.payer.child) == [2])
        #expect(try await archive.sum(paidBy: lease) == NanoUSD(35))
        let month = Period(.month, at: UnixTime(seconds: 1_790_000_000))
        let users = try await archive.sums(of: .user, period: month, limit: 10)
        #expect(
            users.map(\.id) == ["ann", "bob"] && users.map(\.cost) == [NanoUSD(30), NanoUSD(5)])
    }

    @Test func afterAnErrorTheArchiveGoesOn() async throws {
        #expect(throws: ArchiveError.self) { try Archive(path: "/nowhere/archive.db") }
        let folder = try TemporaryFolder()
        let archive = try Archive(path: folder.database)
        var bad = record(1, cost: 1)
        bad.sequence = .max
        let unstorable = block([bad])
        await #expect(throws: ArchiveError.self) { try await archive.store([unstorable]) }
        #expect(try await archive.store([block([record(1, cost: 1)])]) == [Self.holder: 1])
    }
}
