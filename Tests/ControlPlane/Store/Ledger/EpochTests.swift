import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import ControlPlaneStore

/// Rule 12: what a holder was granted, and Redis may have lost, is not granted to others before it
/// has said what it has.
@Suite("Money that is withheld for silent holders", .timeLimit(.minutes(1))) struct EpochTests {
    /// A mesh that has two holders and enters an epoch in which its data has another history. The
    /// time in which nothing is granted at all is over.
    private struct Failover {
        let mesh: LedgerMesh
        let ann: Incarnation
        let silent: JoinResponse
        let account: AccountKey

        init() async throws {
            mesh = try await LedgerMesh()
            #expect(try await mesh.ledger.check().isEmpty)
            ann = try await mesh.join().incarnation
            silent = try await mesh.join()
            account = try await mesh.account("ann", limit: 100, maxLease: 30)
            try await again()
        }

        /// As after a failover: the history has another name than before.
        func again() async throws {
            try await mesh.redis.command(["DEL", StoreKeys.histories])
            try await mesh.redis.command(["SADD", StoreKeys.histories, "another"])
            let looked = LedgerStore(redis: mesh.redis, sessions: mesh.sessions)
            #expect(try await looked.check().count == 1)
            try await mesh.redis.command(["HSET", StoreKeys.epoch, "grants_from", "0"])
        }

        func epoch() async throws -> Int64 {
            try #require(try await mesh.redis.read("HGET", StoreKeys.epoch, "number").integer)
        }

        /// Says that nothing is open.
        func reports(_ holder: Incarnation, epoch: Int64? = nil) async throws -> ReportResponse {
            try await mesh.ledger.report(LedgerMesh.report(epoch: epoch), by: holder)
        }

        func grants(_ number: Int64, need: Int64) async throws -> LeaseGrant.Status {
            try await mesh.acquire(number, of: account, by: ann, need: need).status
        }

        func withheld() async throws -> [Incarnation] {
            try await mesh.ledger.holders(after: nil, limit: 9).holders
                .filter { $0.missingSince != nil }.map(\.incarnation)
        }
    }

    @Test func whoHasNotReportedIsGrantedNothing() async throws {
        let failover = try await Failover()
        #expect(try await failover.grants(1, need: 1) == .unavailable)
        #expect(try await failover.reports(failover.ann).epoch == failover.epoch())
        #expect(try await failover.grants(1, need: 1) == .granted)
    }

    @Test func maxLeaseIsWithheldUntilTheSilentHolderReports() async throws {
        let failover = try await Failover()
        _ = try await failover.reports(failover.ann)
        #expect(try await failover.withheld() == [failover.silent.incarnation])
        #expect(failover.mesh.ledger.missingHolders == 1)
        #expect(try await failover.grants(1, need: 71) == .contended)
        #expect(try await failover.grants(2, need: 70) == .granted)
        #expect(try await failover.grants(3, need: 1) == .contended)
        _ = try await failover.reports(failover.silent.incarnation)
        #expect(try await failover.withheld() == [])
        #expect(failover.mesh.ledger.missingHolders == 0)
        let grant = try await failover.mesh.acquire(
            1, of: failover.account, by: failover.silent.incarnation, need: 30)
        #expect(grant.status == .granted)
    }

    /// It lists what it had before, and may lack what it was granted since.
    @Test func aReportOfAnotherEpochDoesNotCount() async throws {
        let failover = try await Failover()
        let now = try await failover.epoch()
        for epoch in [0, now - 1] {
            _ = try await failover.reports(failover.ann, epoch: epoch)
            #expect(try await failover.grants(1, need: 1) == .unavailable)
        }
        _ = try await failover.reports(failover.ann, epoch: now)
        #expect(try await failover.grants(1, need: 1) == .granted)
        try await failover.again()
        #expect(try await failover.grants(2, need: 1) == .unavailable)
    }

    @Test func anAdopterHasToReportInItsPlace() async throws {
        let failover = try await Failover()
        _ = try await failover.reports(failover.ann)
        let second = try await failover.mesh.join(after: failover.silent)
        #expect(second.adopted == failover.silent.incarnation)
        #expect(try await failover.withheld() == [second.incarnation])
        #expect(try await failover.grants(1, need: 71) == .contended)
        // That one ends before it has said anything.
        let third = try await failover.mesh.join(after: second)
        #expect(try await failover.withheld() == [third.incarnation])
        _ = try await failover.reports(third.incarnation)
        #expect(try await failover.grants(1, need: 71) == .granted)
    }

    @Test func aWriteOffEndsIt() async throws {
        let failover = try await Failover()
        _ = try await failover.reports(failover.ann)
        try await failover.mesh.isSilent(failover.silent.incarnation)
        #expect(try await failover.mesh.writtenOff(failover.silent.incarnation) == [])
        #expect(try await failover.grants(1, need: 71) == .granted)
    }

    /// Those that were adopted, written off, or said before the silence that they end, have no part
    /// in what was lost; nor have agents' sidecars, which are granted nothing.
    @Test func onlyWhoMayHaveLeasesIsMissed() async throws {
        let mesh = try await LedgerMesh()
        #expect(try await mesh.ledger.check().isEmpty)
        let adopted = try await mesh.join()
        let adopter = try await mesh.join(after: adopted)
        let agent = try await mesh.join(.agent, agent: "a", endpoint: "127.0.0.1:1").incarnation
        let lost = try await mesh.join().incarnation
        #expect(try await mesh.writtenOff(lost, isForced: true) == [])
        let drained = try await mesh.join().incarnation
        let draining = try await mesh.join().incarnation
        for life in [drained, draining] {
            try await SidecarRegistry(redis: mesh.redis).heartbeat(
                SidecarHealth(state: .draining, reasons: [], requestsInFlight: 0, journalBytes: 0),
                by: life)
        }
        try await mesh.isSilent(drained)
        try await mesh.redis.command(["DEL", StoreKeys.histories])
        try await mesh.redis.command(["SADD", StoreKeys.histories, "another"])
        _ = try await LedgerStore(redis: mesh.redis, sessions: mesh.sessions).check()
        let missing = try await mesh.redis.read("SMEMBERS", StoreKeys.missing).texts ?? []
        #expect(Set(missing) == [adopter.incarnation.description, draining.description])
        let account = try await mesh.account("ann", limit: 100, maxLease: 30)
        try await mesh.redis.command(["HSET", StoreKeys.epoch, "grants_from", "0"])
        let grant = try await mesh.acquire(1, of: account, by: agent, need: 1)
        #expect(grant.status == .unavailable)
    }

    @Test func periodsThatBeganLaterAreWhole() throws {
        let now = UnixTime(CivilDate(year: 2026, month: 11, day: 23))
        let day = Period(.day, at: now)
        func mayBeLost(_ period: Period, afterMilliseconds later: Int64) -> Bool {
            IncarnationBook.mayBeLost(
                period, epochBegan: UnixTime(milliseconds: now.milliseconds + later))
        }
        #expect(mayBeLost(day, afterMilliseconds: 0))
        // Leased ahead, by the fastest of clocks.
        #expect(mayBeLost(day, afterMilliseconds: -90_000))
        #expect(!mayBeLost(day, afterMilliseconds: -90_001))
        #expect(mayBeLost(Period(.forever, at: now), afterMilliseconds: -90_001))
    }
}
