import PrivatePostgreSQL
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import ControlPlaneStore

/// What is PostgreSQL's own: being away, pools, several replicas, passwords.
@Suite(.timeLimit(.minutes(2))) struct PostgreSQLTests {
    private static let holder = Incarnation(7)

    private func block(_ sequences: ClosedRange<UInt64>) -> RecordBlock {
        let records = sequences.map { sequence in
            var record = AttemptRecord()
            record.sequence = sequence
            record.incarnation = Self.holder
            record.startedAt = UnixTime(seconds: 1_790_000_000)
            record.cost = NanoUSD(1)
            return record
        }
        return RecordBlock(incarnation: Self.holder, names: [:], records: records)
    }

    private func archive(_ url: String, connections: Int = 4) throws -> Archive {
        let settings = try #require(PostgreSQLSettings(url: url, connections: connections))
        return try Archive(at: .postgreSQL(settings))
    }

    private func isUnreachable(_ body: () async throws(ArchiveError) -> Void) async -> Bool {
        do throws(ArchiveError) {
            try await body()
            return false
        } catch {
            if case .unreachable = error { return true }
            return false
        }
    }

    @Test func aServerThatIsAwayIsFoundAgain() async throws {
        let server = try PrivatePostgreSQL()
        let url = server.url(of: try server.makeDatabase())
        server.stop()
        let archive = try archive(url)
        #expect(await isUnreachable { () throws(ArchiveError) in try await archive.check() })
        try server.start()
        try await eventually("the archive answers") { (try? await archive.check()) != nil }
        #expect(try await archive.store([block(1...10)]) == [Self.holder: 10])

        server.stop()
        let late = block(11...20)
        #expect(
            await isUnreachable { () throws(ArchiveError) in _ = try await archive.store([late]) })
        // While the pause lasts nobody waits for it.
        let start = ContinuousClock.now
        #expect(
            await isUnreachable { () throws(ArchiveError) in
                _ = try await archive.storedThrough(Self.holder)
            })
        #expect(ContinuousClock.now - start < .seconds(3))
        try server.start()
        try await eventually("records are stored") {
            (try? await archive.store([late])) == [Self.holder: 20]
        }
        #expect(try await archive.storedThrough(Self.holder) == 20)
    }

    /// What was acknowledged is there after a crash; what was not is stored by telling it again.
    @Test func aCrashLosesNothingThatWasAcknowledged() async throws {
        let server = try PrivatePostgreSQL()
        let archive = try archive(server.url(of: try server.makeDatabase()))
        let stored = try await withThrowingTaskGroup(of: UInt64.self) { group in
            group.addTask {
                var through: UInt64 = 0
                while through < 2_000 {
                    let next = self.block(through + 1...through + 5)
                    guard let answer = try? await archive.store([next]) else { break }
                    through = answer[Self.holder] ?? through
                }
                return through
            }
            try await eventually("some are stored") {
                try await archive.storedThrough(Self.holder) >= 50
            }
            server.stop(.crash)
            return try await group.next() ?? 0
        }
        #expect(stored >= 50 && stored < 2_000)
        try server.start()
        try await eventually("the archive answers") { (try? await archive.check()) != nil }
        #expect(try await archive.storedThrough(Self.holder) >= stored)
        let again = try await archive.store([block(1...stored + 5)])
        #expect(again == [Self.holder: stored + 5])
        let sums = try await archive.breakdown(by: [], where: .everything)
        #expect(sums.map(\.attempts) == [Int64(stored) + 5])
    }

    @Test func aBrokenConnectionIsReplacedAtOnce() async throws {
        let server = try PrivatePostgreSQL.shared.get()
        let database = try server.makeDatabase()
        let archive = try archive(server.url(of: database))
        #expect(try await archive.store([block(1...3)]) == [Self.holder: 3])
        try server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '\(database)'",
            in: "postgres")
        #expect(try await archive.store([block(4...6)]) == [Self.holder: 6])
        #expect(try await archive.storedThrough(Self.holder) == 6)
    }

    @Test func aPoolHasALimitAndGrowsOnlyWhenItMust() async throws {
        let server = try PrivatePostgreSQL.shared.get()
        let database = try server.makeDatabase()
        let archive = try archive(server.url(of: database), connections: 6)
        let count = "SELECT count(*) FROM pg_stat_activity WHERE datname = '\(database)'"
        for sequence: UInt64 in 1...5 { _ = try await archive.store([block(sequence...sequence)]) }
        #expect(try server.sql(count, in: "postgres") == "1")
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<100 {
                group.addTask {
                    _ = try await archive.breakdown(by: [.agent], where: .everything)
                }
                group.addTask { _ = try await archive.store([self.block(1...5)]) }
            }
            try await group.waitForAll()
        }
        let most = try #require(Int(try server.sql(count, in: "postgres")))
        #expect(most > 1 && most <= 6)
    }

    @Test func replicasThatStartAtOnceMigrateOnce() async throws {
        let server = try PrivatePostgreSQL.shared.get()
        let database = try server.makeDatabase()
        let url = server.url(of: database)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask { try await self.archive(url).check() }
            }
            try await group.waitForAll()
        }
        let versions = try server.sql(
            "SELECT version FROM schema_versions ORDER BY version", in: database)
        let known = ArchiveMigration.all.map { String($0.version) }
        #expect(versions.split(separator: "\n").map(String.init) == known)
    }

    @Test func textIsOrderedByItsBytes() async throws {
        let server = try PrivatePostgreSQL.shared.get()
        let archive = try archive(server.url(of: try server.makeDatabase()))
        let names: [UInt32: String] = [1: "b", 2: "B", 3: "a", 4: "Z"]
        var mixed = block(1...4)
        for index in mixed.records.indices { mixed.records[index].subject = UInt32(index + 1) }
        _ = try await archive.store([
            RecordBlock(incarnation: Self.holder, names: names, records: mixed.records)
        ])
        let rows = try await archive.breakdown(by: [.user], where: .everything)
        #expect(rows.map(\.keys) == [["B"], ["Z"], ["a"], ["b"]])
    }

    @Test func passwordsAreNotTold() async throws {
        let server = try PrivatePostgreSQL.shared.get()
        let url = server.url(of: "postgres", password: "wrong-secret")
        let settings = try #require(PostgreSQLSettings(url: url))
        #expect(!"\(settings)".contains("secret") && !"\(settings)".contains("weir:"))
        let archive = try Archive(at: .postgreSQL(settings))
        do {
            try await archive.check()
            Issue.record("the wrong password was taken")
        } catch {
            #expect("\(error)".contains("password authentication failed"))
            #expect(!"\(error)".contains("secret"))
        }
    }

    @Test func encryptionThatIsDemandedIsNotDoneWithout() async throws {
        let server = try PrivatePostgreSQL(port: try PrivateRedis.freePort())
        let database = try server.makeDatabase()
        try await archive(server.url(of: database, query: "sslmode=prefer")).check()
        let demanding = try archive(server.url(of: database, query: "sslmode=require"))
        #expect(await isUnreachable { () throws(ArchiveError) in try await demanding.check() })
    }

    @Test(arguments: [
        "", "mysql://host/db", "postgresql://h/db?nonsense=1",
        "postgresql://h/db\0", "host=h dbname=db",
    ])
    func otherTextsAreNoURLs(text: String) { #expect(PostgreSQLSettings(url: text) == nil) }

    @Test func aPoolHasAtLeastAWriterAndAReader() {
        #expect(PostgreSQLSettings(url: "postgres://h/db", connections: 1) == nil)
        #expect(PostgreSQLSettings(url: "postgres://h/db", connections: 2)?.connections == 2)
        #expect(PostgreSQLSettings(url: "postgres://h/db", connections: 201) == nil)
        #expect(PostgreSQLSettings(url: "postgres://h/db")?.connections == 20)
    }

    @Test func moreJobsThanTheLimitAreRefused() async throws {
        let folder = try TemporaryFolder()
        let path = folder.database
        let pool = DatabasePool(name: "weir-test", size: 1) { () throws(ArchiveError) in
            try SQLite(path: path)
        }
        let held = CountingSignal()
        let tasks = StoreLimits.archiveJobsMax + 10
        let refused = await withTaskGroup(of: Bool.self) { group in
            // One runs, and all others wait for it, as many as may.
            for _ in 0..<tasks {
                group.addTask {
                    do throws(ArchiveError) {
                        try await pool.perform { _ throws(ArchiveError) in held.wait() }
                        return false
                    } catch {
                        return error == .busy
                    }
                }
            }
            var refused = 0
            for await isRefused in group where isRefused {
                refused += 1
                guard refused == 9 else { continue }
                for _ in 0..<tasks { held.signal() }
            }
            return refused
        }
        #expect(refused == 9 || refused == 10)
        pool.close()
    }
}
