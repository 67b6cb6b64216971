import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import ControlPlaneStore

@Suite(.timeLimit(.minutes(1))) struct JoinTests {
    @Test func incarnationsAreNeverUsedTwice() async throws {
        let mesh = try await LedgerMesh()
        var seen: Set<Incarnation> = []
        for _ in 0..<5 {
            let joined = try await mesh.join()
            #expect(seen.insert(joined.incarnation).inserted)
            #expect(mesh.sessions.incarnation(ofToken: joined.session) == joined.incarnation)
        }
        let epoch = try await mesh.ledger.begin(hasPast: false)
        // Everything is lost; the clock, a number each millisecond, keeps the numbers apart.
        let until = try await mesh.redis.time().milliseconds + 10
        while try await mesh.redis.time().milliseconds < until {}
        try await mesh.redis.command(["FLUSHALL"])
        #expect(try await mesh.ledger.begin(hasPast: false) > epoch)
        #expect(seen.insert(try await mesh.join().incarnation).inserted)
    }

    @Test func aNewEpochOverAnOldMeshIsQuietFirst() async throws {
        let mesh = try await LedgerMesh()
        #expect(try await mesh.ledger.check().isEmpty)
        let other = LedgerStore(redis: mesh.redis, sessions: mesh.sessions)
        try await mesh.redis.command(["FLUSHALL"])
        #expect(try await other.check().count == 1)
    }

    /// The clock of Redis went back by an hour while an epoch was quiet: it is quiet for as long as
    /// it would have been.
    @Test func aNewEpochIsNoLongerQuietForAClockThatGoesBack() async throws {
        let mesh = try await LedgerMesh()
        #expect(try await mesh.ledger.check().isEmpty)
        let silent = try await mesh.join().incarnation
        let ahead = try await mesh.redis.time().milliseconds + 3_600_000
        try await mesh.redis.command([
            "ZADD", StoreKeys.live, String(ahead - 100), silent.description,
        ])
        try await mesh.redis.command([
            "HSET", StoreKeys.epoch, "began", String(ahead), "grants_from",
            String(ahead + StoreLimits.epochQuietMilliseconds), "awaits_from",
            String(ahead - MeshLimits.silentMilliseconds),
        ])
        let again = LedgerStore(redis: mesh.redis, sessions: mesh.sessions)
        _ = try await again.check()
        let from = try await mesh.redis.read("HGET", StoreKeys.epoch, "grants_from").text
        let now = try await mesh.redis.time().milliseconds
        #expect(
            try #require(from.flatMap { Int64($0) }) <= now + StoreLimits.epochQuietMilliseconds)
    }

    @Test func aLostStoreBeginsWithWhatTheArchiveKnows() async throws {
        let mesh = try await LedgerMesh()
        let folder = try TemporaryFolder()
        let archive = try Archive(at: .sqlite(path: folder.database))
        let ledger = LedgerStore(redis: mesh.redis, sessions: mesh.sessions, archive: archive)
        #expect(try await ledger.check().isEmpty)
        let account = try await mesh.account("ann", limit: 100, maxLease: 60)
        var record = AttemptRecord()
        record.sequence = 1
        record.incarnation = Incarnation(9)
        record.startedAt = try await mesh.redis.time()
        record.cost = NanoUSD(70)
        record.subject = 1
        _ = try await archive.store([
            RecordBlock(incarnation: Incarnation(9), names: [1: "ann"], records: [record])
        ])
        try await mesh.redis.command(["FLUSHALL"])

        let again = LedgerStore(redis: mesh.redis, sessions: mesh.sessions, archive: archive)
        #expect(try await again.check().count == 1)
        _ = try await mesh.account("ann", limit: 100, maxLease: 60)
        #expect(try await mesh.ledger.states(of: [account]).first??.consumed == NanoUSD(70))
        // The quiet time is over: the rest of the budget is there, and no more.
        try await mesh.redis.command(["HSET", StoreKeys.epoch, "grants_from", "0"])
        let holder = try await mesh.join().incarnation
        #expect(try await mesh.acquire(1, of: account, by: holder, need: 31).status == .exhausted)
        #expect(try await mesh.acquire(2, of: account, by: holder, need: 30).status == .granted)
    }

    @Test func aSuccessorSpeaksForItsPredecessorOnce() async throws {
        let mesh = try await LedgerMesh()
        let first = try await mesh.join()
        let account = try await mesh.account("ann", limit: 100, maxLease: 60)
        let grant = try await mesh.acquire(1, of: account, by: first.incarnation, need: 30)
        #expect(grant.status == .granted)

        let second = try await mesh.join(after: first)
        #expect(second.adopted == first.incarnation)
        let counters = LedgerMesh.counters(grant.lease, account, consumed: 10, released: 20)
        let answer = try await mesh.ledger.report(
            LedgerMesh.report([counters]), by: second.incarnation)
        #expect(answer.states.map(\.consumedByOthers) == [.zero])
        #expect(answer.states.map(\.consumed) == [NanoUSD(10)])
        // The predecessor is granted nothing any more, and another copy of its journal nothing
        // else.
        let late = try await mesh.acquire(2, of: account, by: first.incarnation, need: 1)
        #expect(late.status == .unavailable)
        #expect(try await mesh.join(after: first).adopted == nil)
        let third = try await mesh.join(after: second)
        #expect(third.adopted == second.incarnation)
    }

    @Test func aLostAnswerToAJoinLosesNoLeases() async throws {
        let mesh = try await LedgerMesh()
        let first = try await mesh.join()
        let account = try await mesh.account("ann", limit: 100, maxLease: 60)
        let grant = try await mesh.acquire(1, of: account, by: first.incarnation, need: 30)
        // The answer to this one never arrives, so its incarnation never speaks.
        let ghost = try await mesh.join(after: first)
        let second = try await mesh.join(after: first)
        #expect(second.adopted == first.incarnation)
        let counters = LedgerMesh.counters(grant.lease, account, consumed: 0, released: 30)
        _ = try await mesh.ledger.report(LedgerMesh.report([counters]), by: second.incarnation)
        #expect(try await mesh.ledger.states(of: [account]).first??.held == .zero)
        let late = try await mesh.acquire(1, of: account, by: ghost.incarnation, need: 1)
        #expect(late.status == .unavailable)
    }

    @Test func aWrongProofAdoptsNothing() async throws {
        let mesh = try await LedgerMesh()
        let first = try await mesh.join()
        var forged = first
        forged.journalSecret = Base64URL.encode([UInt8](repeating: 7, count: 32))
        #expect(try await mesh.join(after: forged).adopted == nil)
        forged.incarnation = Incarnation(1)
        #expect(try await mesh.join(after: forged).adopted == nil)
        #expect(try await mesh.join(after: first).adopted == first.incarnation)
    }

    @Test func aDisownedLeaseOfAPredecessorIsToldToTheSuccessor() async throws {
        let mesh = try await LedgerMesh()
        let first = try await mesh.join()
        let account = try await mesh.account("ann", limit: 100, maxLease: 60)
        // Granted, but the answer did not reach the journal before the crash.
        let grant = try await mesh.acquire(1, of: account, by: first.incarnation, need: 30)
        let second = try await mesh.join(after: first)
        let answer = try await mesh.ledger.report(LedgerMesh.report(), by: second.incarnation)
        #expect(answer.unknown.map(\.lease) == [grant.lease])
    }
}
