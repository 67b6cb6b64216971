import Foundation
import NIOHTTP1
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import ControlPlaneServer
@testable import ControlPlaneStore

/// Accounts beside records, in a real Redis and a real archive.
@Suite("What is settled and what is recorded", .timeLimit(.minutes(1)))
struct ReconciliationTests {
    private static let names: [UInt32: String] = [
        1: "alice", 2: "enterprise", 3: "gpt4-turbo", 4: "gpt-4-turbo", 5: "news_analysis",
        6: "bob",
    ]

    /// A gateway that spends for alice, and the sidecar of the agent that it calls.
    private struct Spender {
        let server: TestControlPlane
        let gateway: JoinedSidecar
        let sidecar: JoinedSidecar
        let account: AccountKey
        let policyNumber: Int64

        init(_ server: TestControlPlane, account user: String = "alice") async throws {
            self.server = server
            gateway = try await server.joined(agent: nil)
            sidecar = try await server.joined(agent: "gpt4-turbo")
            let binding = try await gateway.bind(user, tier: "enterprise")
            let money = try #require(binding.accounts.first { $0.unit == .usd })
            let now = UnixTime(seconds: Int64(Date().timeIntervalSince1970))
            account = money.key(at: now)
            policyNumber = try #require(
                try await server.send(.GET, "/v1/policy").body["version"]?["number"]?.int64)
        }

        func lease(_ number: Int64) -> LeaseID {
            LeaseID(incarnation: gateway.response.incarnation, number: number)
        }

        /// A lease of which $0.01 is kept, and what it has consumed of that and gives back.
        func spend(lease number: Int64, consumed: Int64, released: Int64) async throws {
            let acquire = LeaseAcquire(
                lease: lease(number), account: account, need: NanoUSD(10_000_000),
                want: NanoUSD(10_000_000), closedBelow: 0, policyNumber: policyNumber)
            let granted = try await gateway.post(
                MeshPath.leases, LeasesRequest(acquire: [acquire], release: [])
            ).decode(LeasesResponse.self)
            let grant = try #require(granted.grants.first)
            try #require(grant.status == .granted)
            let more = grant.granted - acquire.want
            let counters = LeaseCounters(
                lease: lease(number), account: account, consumed: NanoUSD(consumed),
                released: NanoUSD(released) + more)
            let answer = try await gateway.post(
                MeshPath.leases, LeasesRequest(acquire: [], release: [counters]))
            try #require(answer.status == 200)
        }

        func record(
            _ sequence: UInt64, lease number: Int64, child: Int64, cost: Int64, subject: UInt32 = 1
        ) async throws {
            var record = AttemptRecord()
            record.sequence = sequence
            record.incarnation = sidecar.response.incarnation
            record.startedAt = UnixTime(
                milliseconds: Int64(Date().timeIntervalSince1970 * 1_000))
            record.paidBy = ChildKey(lease: lease(number), child: child)
            record.cost = NanoUSD(cost)
            record.source = .reported
            record.status = 200
            (record.subject, record.tier, record.agent) = (subject, 2, 3)
            (record.model, record.requestType) = (4, 5)
            var writer = ByteWriter(capacity: 4_096)
            RecordBlock(
                incarnation: record.incarnation, names: ReconciliationTests.names,
                records: [record]
            ).append(to: &writer)
            let stored = try await sidecar.connection.send(
                "POST", MeshPath.records, writer.bytes, session: sidecar.response.session)
            try #require(stored.status == 200)
        }

        /// The rows of all pages, by account.
        func look() async throws -> [String: JSONValue] {
            var rows: [String: JSONValue] = [:]
            var next: String? = ""
            while let cursor = next {
                let answer = try await server.send(
                    .GET,
                    "/v1/ledger/reconciliation" + (cursor.isEmpty ? "" : "?cursor=" + cursor))
                try #require(answer.status == 200)
                for row in answer.body["accounts"]?.array ?? [] {
                    let name = try #require(row["account"]?.string)
                    #expect(rows.updateValue(row, forKey: name) == nil, "\(name) twice")
                }
                next = answer.body["next"]?.string
            }
            return rows
        }

        func row() async throws -> JSONValue {
            try #require(try await look()[account.description])
        }
    }

    private func run(_ body: @Sendable (Spender) async throws -> Void) async throws {
        try await TestControlPlane.run { server in
            _ = try await server.put(try SamplePolicy.documents())
            try await body(try await Spender(server))
        }
    }

    private func causes(_ row: JSONValue) -> [String] {
        (row["causes"]?.array ?? []).map {
            "\($0["cause"]?.string ?? "") \($0["amount_usd"]?.string ?? "")"
        }
    }

    @Test func whatIsSettledAndRecordedAgreesToTheBillionth() async throws {
        try await run { mesh in
            try await mesh.spend(lease: 1, consumed: 3_000_001, released: 6_999_999)
            try await mesh.spend(lease: 2, consumed: 2, released: 0)
            try await mesh.record(1, lease: 1, child: 1, cost: 3_000_000)
            try await mesh.record(2, lease: 1, child: 2, cost: 1)
            try await mesh.record(3, lease: 2, child: 0, cost: 2)
            let row = try await mesh.row()
            #expect(row["state"] == "agrees" && row["records"] == 3)
            #expect(row["consumed_usd"]?.string == "0.003000003")
            #expect(row["recorded_usd"] == row["consumed_usd"])
            // What is held and not spent is no difference.
            #expect(row["held_usd"]?.string == "0.009999998")
            #expect(row["causes"] == nil)
        }
    }

    @Test func aChildThatIsOpenAndARecordThatIsLateAreNamed() async throws {
        try await run { mesh in
            try await mesh.spend(lease: 1, consumed: 0, released: 0)
            try await mesh.record(1, lease: 1, child: 7, cost: 500)
            let open = try await mesh.row()
            #expect(open["state"] == "differs")
            #expect(open["difference_usd"]?.string == "-0.0000005")
            #expect(causes(open) == ["open_children 0.0000005"])
            let children = open["causes"]?.array?.first?["children"]?.array ?? []
            #expect(children.map { $0["child"] } == [7])
            #expect(children.map { $0["lease"]?.string } == ["\(mesh.lease(1))"])
            // The same child settled, and another one whose record has not come.
            try await mesh.spend(lease: 2, consumed: 40, released: 0)
            let both = try await mesh.row()
            #expect(both["difference_usd"]?.string == "-0.00000046")
            #expect(causes(both) == ["open_children 0.0000005", "not_recorded 0.00000004"])
            try await mesh.record(2, lease: 2, child: 1, cost: 40)
            #expect(causes(try await mesh.row()) == ["open_children 0.0000005"])
        }
    }

    @Test func aChangedRecordAndAChangedAccountAreFound() async throws {
        try await run { mesh in
            try await mesh.spend(lease: 1, consumed: 1_000, released: 9_999_000)
            try await mesh.record(1, lease: 1, child: 1, cost: 1_000)
            #expect(try await mesh.row()["state"] == "agrees")
            let folder = mesh.server.redis.folder
            let database = try SQLite(path: folder + "/data/archive.sqlite3")
            try database.execute("UPDATE records SET cost = 999")
            let record = try await mesh.row()
            #expect(record["state"] == "differs")
            #expect(record["difference_usd"]?.string == "0.000000001")
            try database.execute("UPDATE records SET cost = 1000")
            #expect(try await mesh.row()["state"] == "agrees")

            let redis = try Redis(url: mesh.server.redis.url)
            try await redis.command(
                ["HINCRBY", StoreKeys.account(mesh.account), "consumed", "-5"])
            let account = try await mesh.row()
            #expect(account["difference_usd"]?.string == "-0.000000005")
            #expect(causes(account) == ["contradiction -0.000000005"])
        }
    }

    @Test func whatOnlyTheLedgerOrOnlyTheArchiveKnowsIsFoundToo() async throws {
        try await run { mesh in
            try await mesh.record(1, lease: 1, child: 1, cost: 30, subject: 6)
            try await mesh.spend(lease: 2, consumed: 20, released: 0)
            let rows = try await mesh.look()
            let alice = try #require(rows[mesh.account.description])
            #expect(alice["records"] == 0 && alice["difference_usd"]?.string == "0.00000002")
            var other = mesh.account
            other.id = "bob"
            let bob = try #require(rows[other.description])
            #expect(bob["difference_usd"]?.string == "-0.00000003")
            #expect(causes(bob) == ["unexplained -0.00000003"])
            #expect(rows.count == 2)
        }
    }

    @Test func whatWasWrittenOffIsKnownToBeMore() async throws {
        try await run { mesh in
            try await mesh.spend(lease: 1, consumed: 100, released: 0)
            try await mesh.record(1, lease: 1, child: 1, cost: 100)
            try await mesh.record(2, lease: 1, child: 2, cost: 11)
            #expect(try await mesh.row()["state"] == "differs")
            let redis = try Redis(url: mesh.server.redis.url)
            let ledger = LedgerStore(redis: redis, sessions: try await Sessions.load(from: redis))
            let lost = mesh.gateway.response.incarnation
            // Nobody has heard of it for long.
            try await redis.command(["ZADD", StoreKeys.live, "1", lost.description])
            guard case .done = try await ledger.writeOff(lost) else {
                Issue.record("a silent holder was not written off")
                return
            }
            let row = try await mesh.row()
            #expect(row["written_off_usd"]?.string == "0.0099999")
            #expect(row["state"] == "agrees")
            #expect(row["difference_usd"]?.string == "0.009999889")
        }
    }

    @Test func questionsThatMeanNothingAreRefused() async throws {
        try await run { mesh in
            for query in [
                "period=2026-13", "period=2026-01-01", "period=2020-01", "period=2999-01",
                "period=-", "cursor=x", "cursor=" + Base64URL.encode(Array("key/a".utf8)),
            ] {
                let answer = try await mesh.server.send(
                    .GET, "/v1/ledger/reconciliation?" + query)
                #expect(answer.status == 422, "\(query)")
            }
        }
    }

    @Test(arguments: [
        Reconciliation.Place.ledger, .records(.user, after: ""),
        .records(.tenant, after: "a/b\u{301}"),
        .records(.tier, after: "/"),
    ])
    func aCursorComesBackAsItWas(_ place: Reconciliation.Place) {
        #expect(Reconciliation.Place(cursor: place.cursor) == place)
    }
}
