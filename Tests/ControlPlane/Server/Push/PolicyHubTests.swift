import ControlPlaneStore
import NIOCore
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import ControlPlaneServer

@Suite("Who is told what, without a socket")
struct PolicyHubTests {
    private func active(_ number: Int64) throws -> ActivePolicy {
        let documents = try SamplePolicy.documents()
        return ActivePolicy(
            version: PolicyVersion(epoch: 1, number: number, hash: "\(number)"),
            documents: documents, policy: try PolicyReader.read(documents))
    }

    @Test func aSlowReaderFindsOnlyTheNewest() async throws {
        let hub = PolicyHub()
        let watch = try #require(hub.watch(Incarnation(1)))
        for number in 1...100 { hub.update(try active(Int64(number)), endpoints: []) }
        hub.end(watch)
        var wakes = 0
        for await _ in watch.wakes { wakes += 1 }
        #expect(wakes == 1)
        #expect(hub.line(for: .gateway)?.version.number == 100)
        #expect(hub.watcherCount == 0)
    }

    @Test func aVersionNeverGoesBack() throws {
        let hub = PolicyHub()
        hub.update(try active(2), endpoints: [])
        hub.update(try active(1), endpoints: [])
        #expect(hub.active?.version.number == 2)
    }

    @Test func hopKeysAreForGatewaysAlone() throws {
        let hub = PolicyHub()
        let endpoint = Projection.Endpoint(
            agent: "finbert", incarnation: Incarnation(3), address: "127.0.0.1:1",
            hopKey: HopKey(id: 3, secret: "not-for-agents"))
        hub.update(try active(1), endpoints: [endpoint])
        func text(_ audience: Audience) throws -> String {
            String(buffer: try #require(hub.line(for: audience)).buffer)
        }
        #expect(try text(.gateway).contains("not-for-agents"))
        #expect(try !text(.agent("finbert")).contains("not-for-agents"))
        #expect(try !text(.agent("unknown")).contains("finbert"))
    }

    @Test func recallsReachTheirHolderOnceAndAreBounded() throws {
        let hub = PolicyHub()
        let watch = try #require(hub.watch(Incarnation(1)))
        let other = try #require(hub.watch(Incarnation(2)))
        let leases = (0..<5_000).map { LeaseID(incarnation: Incarnation(1), number: $0) }
        hub.recall(try recall(leases))
        hub.recall(try recall(leases))
        #expect(
            hub.takeNotices(watch).recalls == Array(leases.prefix(MeshLimits.leasesPerMessageMax)))
        #expect(hub.takeNotices(watch).recalls.isEmpty)
        #expect(hub.takeNotices(other).recalls.isEmpty)
    }

    @Test func gatewaysAloneHearOfChangedUsersOnceAndABoundedNumber() throws {
        let hub = PolicyHub()
        let gateway = try #require(hub.watch(Incarnation(1), isGateway: true))
        let sidecar = try #require(hub.watch(Incarnation(2)))
        hub.subjectChanged("ann")
        hub.subjectChanged("ann")
        #expect(hub.takeNotices(gateway).subjects == ["ann"])
        #expect(hub.takeNotices(gateway).subjects.isEmpty)
        #expect(hub.takeNotices(sidecar).subjects.isEmpty)
        for number in 0..<5_000 { hub.subjectChanged("user-\(number)") }
        let many = hub.takeNotices(gateway)
        #expect(many.subjects.count == MeshLimits.subjectsPerLineMax)
        #expect(many.hasMissedSubjects, "whoever is not named has to be asked about, too")
        #expect(!hub.takeNotices(gateway).hasMissedSubjects)
        hub.anySubjectMayHaveChanged()
        #expect(hub.takeNotices(gateway).hasMissedSubjects)
        #expect(!hub.takeNotices(sidecar).hasMissedSubjects)
    }

    private func recall(_ leases: [LeaseID]) throws -> LeaseRecall {
        try JSON.decode(
            LeaseRecall.self,
            from: ["holder": 1, "leases": try JSON.encodeValue(leases)])
    }

    @Test func tooManyWatchersAndAClosedHubAreRefused() throws {
        let hub = PolicyHub(watchersMax: 1)
        let watch = try #require(hub.watch(Incarnation(1)))
        #expect(hub.watch(Incarnation(2)) == nil)
        hub.end(watch)
        #expect(hub.hasRoom)
        hub.close()
        #expect(!hub.hasRoom)
        #expect(hub.watch(Incarnation(2)) == nil)
    }
}
