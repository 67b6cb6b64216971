import NIOHTTP1
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import ControlPlaneServer

@Suite("The messages of the mesh over HTTP/2", .timeLimit(.minutes(1)))
struct MeshMessagesTests {
    private static let alice = SubjectRequest(
        claims: SubjectRequest.Claims(subject: "alice", tier: "free", tenant: nil, roles: []),
        apiKeyHash: nil)

    @Test func onlyGatewaysAreToldOfOthers() async throws {
        try await TestControlPlane.run { server in
            let gateway = try await server.joined(agent: nil, instance: "gw-1")
            let sidecar = try await server.joined()
            func ask(_ peer: JoinedSidecar) async throws -> MeshConnection.Answer {
                try await peer.connection.send(
                    "GET", MeshPath.state, session: peer.response.session)
            }
            let state = try await ask(gateway).decode(MeshState.self)
            #expect(state.members.map(\.role) == [.gateway, .agent])
            #expect(state.omitted == 0)
            #expect(try await ask(sidecar).status == 403)
        }
    }

    @Test func aGatewayLeasesSpendsAndSettles() async throws {
        try await TestControlPlane.run { server in
            let policy = try await server.put(try SamplePolicy.documents())
            let number = try #require(policy.body["version"]?["number"]?.int64)
            let gateway = try await server.joined(agent: nil, instance: "gw-1")
            let binding = try await gateway.post(MeshPath.subject, Self.alice)
                .decode(SubjectBinding.self)
            #expect(binding.tier == "free")
            let money = try #require(
                binding.accounts.first { $0.unit == .usd && $0.scope == .user })
            #expect(money.limit == NanoUSD(usd: "5"))

            let now = try await server.now()
            let account = money.key(at: now)
            let lease = LeaseID(incarnation: gateway.response.incarnation, number: 1)
            let granted = try await gateway.post(
                MeshPath.leases,
                LeasesRequest(
                    acquire: [
                        LeaseAcquire(
                            lease: lease, account: account, need: NanoUSD(1_000),
                            want: NanoUSD(100_000_000), closedBelow: 0, policyNumber: number)
                    ], release: [])
            ).decode(LeasesResponse.self)
            let grant = try #require(granted.grants.first)
            #expect(grant.status == .granted)
            #expect(grant.granted > .zero)

            let shown = try await server.account(account)
            #expect(shown["held"]?.string == grant.granted.usd)
            #expect(shown["limit"] == "5.000000")

            let counters = LeaseCounters(
                lease: lease, account: account, consumed: NanoUSD(7_000),
                released: grant.granted - NanoUSD(7_000))
            let report = Report(
                highestLease: 1, leases: [counters], childFinals: [], acknowledgedFinals: [],
                health: JoinedSidecar.health)
            let answer = try await gateway.post(MeshPath.report, report)
                .decode(ReportResponse.self)
            #expect(answer.states.first?.consumed == NanoUSD(7_000))
            let after = try await server.account(account)
            #expect(after["consumed"] == "0.000007")
            #expect(after["held"] == "0.000000")
        }
    }

    @Test func finalsOfChildrenReachTheirParent() async throws {
        try await TestControlPlane.run { server in
            let gateway = try await server.joined(agent: nil, instance: "gw-1")
            let sidecar = try await server.joined()
            let final = ChildFinal(
                key: ChildKey(
                    lease: LeaseID(incarnation: gateway.response.incarnation, number: 1), child: 4),
                consumed: NanoUSD(120_000))
            #expect(try await sidecar.report([final]).status == 200)
            let answer = try await gateway.report().decode(ReportResponse.self)
            #expect(answer.finals == [final])
        }
    }

    @Test func recordsAreStoredOnceAndSummed() async throws {
        try await TestControlPlane.run { server in
            let sidecar = try await server.joined()
            let block = Self.block(of: sidecar.response.incarnation, count: 3)
            var writer = ByteWriter()
            block.append(to: &writer)
            for _ in 0..<2 {
                let answer = try await sidecar.connection.send(
                    "POST", MeshPath.records, writer.bytes, session: sidecar.response.session)
                #expect(try answer.decode(RecordsResponse.self).storedThrough == 3)
            }
            let usage = try await server.send(
                .GET, "/v1/usage?by=agent,user&from=2026-11-22&to=2026-11-22")
            #expect(usage.body["total_usd"] == "0.000360")
            let row = try #require(usage.body["usage"]?.array?.first)
            #expect(row["agent"] == "finbert")
            #expect(row["user"] == "alice")
            #expect(row["attempts"]?.int64 == 3)
            #expect(row["input_tokens"]?.int64 == 30)
            let garbage = try await sidecar.connection.send(
                "POST", MeshPath.records, [1, 2, 3], session: sidecar.response.session)
            #expect(garbage.status == 400)
        }
    }

    private static func block(of incarnation: Incarnation, count: UInt64) -> RecordBlock {
        let records = (1...count).map { sequence in
            var record = AttemptRecord()
            record.sequence = sequence
            record.incarnation = incarnation
            record.startedAt = UnixTime(CivilDate(year: 2026, month: 11, day: 22))
            record.cost = NanoUSD(120_000)
            record.tokens.input = 10
            record.subject = 1
            record.agent = 2
            return record
        }
        return RecordBlock(
            incarnation: incarnation, names: [1: "alice", 2: "finbert"], records: records)
    }

    @Test func anAnswerIsKeptForItsKey() async throws {
        try await TestControlPlane.run { server in
            let gateway = try await server.joined(agent: nil)
            let claim = IdempotencyRequest.Action.claim(milliseconds: 60_000)
            var request = IdempotencyRequest(
                user: "alice", key: "k", bodyHash: "aa", claim: "1", action: claim)
            func ask() async throws -> IdempotencyResponse {
                try await gateway.post(MeshPath.idempotency, request)
                    .decode(IdempotencyResponse.self)
            }
            #expect(try await ask().state == .new)
            #expect(try await ask().state == .new, "the same attempt, whose answer got lost")
            request.claim = "2"
            #expect(try await ask().state == .inFlight)
            let answer = StoredAnswer(status: 200, contentType: "application/json", body: "{}")
            request.action = .complete(answer)
            _ = try await ask()
            request.action = claim
            #expect(try await ask() == IdempotencyResponse(state: .stored, answer: answer))
            request.bodyHash = "bb"
            #expect(try await ask().state == .mismatch)
        }
    }

    @Test func joinsAreLookedAt() async throws {
        try await TestControlPlane.run { server in
            let connection = try await server.connect()
            var request = JoinRequest(
                credential: "wrong", role: .agent, agent: "finbert", endpoint: "127.0.0.1:9001",
                instance: "test-1", predecessor: nil)
            func status() async throws -> (Int, String) {
                let answer = try await connection.send(
                    "POST", MeshPath.join, try JSON.encode(request))
                return (answer.status, try answer.refusal().reason)
            }
            #expect(try await status() == (401, "unauthenticated"))
            request.credential = TestControlPlane.join
            request.endpoint = "nowhere"
            #expect(try await status() == (422, "invalid"))
            request.endpoint = "127.0.0.1:9001"
            request.agent = nil
            #expect(try await status() == (422, "invalid"))
            request.agent = "finbert"
            request.protocolVersions = [99]
            #expect(try await status() == (505, "version"))
            let garbage = try await connection.send("POST", MeshPath.join, Array("{".utf8))
            #expect(garbage.status == 400)
            #expect(try garbage.refusal().reason == "malformed")
        }
    }

    @Test func withoutASessionNothingIsSaid() async throws {
        try await TestControlPlane.run { server in
            let connection = try await server.connect()
            let sidecar = try await server.joined()
            let session = sidecar.response.session
            for path in [
                MeshPath.ack, MeshPath.leases, MeshPath.report, MeshPath.records,
                MeshPath.subject, MeshPath.idempotency,
            ] {
                for token in [nil, "", String(session.dropLast()), TestControlPlane.join] {
                    let answer = try await connection.send(
                        "POST", path, Array("{}".utf8), session: token)
                    #expect(answer.status == 401)
                }
                let wrong = try await connection.send("GET", path, session: session)
                #expect(wrong.status == 405)
            }
            // Only gateways speak for users.
            #expect(try await sidecar.post(MeshPath.subject, Self.alice).status == 403)
            let large = try await connection.send(
                "POST", MeshPath.report,
                [UInt8](repeating: 32, count: ServerLimits.meshBodyBytesMax + 1), session: session)
            #expect(large.status == 413)
            let unknown = try await connection.send("POST", "/mesh/v1/nothing", session: session)
            #expect(unknown.status == 404)
        }
    }
}

extension TestControlPlane {
    func account(_ key: AccountKey) async throws -> JSONValue {
        try await send(.GET, "/v1/accounts?account=\(key)").body
    }

    /// The store's time, out of what the store says about a sidecar.
    func now() async throws -> UnixTime {
        let usage = try await send(.GET, "/v1/usage")
        let day = try #require(usage.body["to"]?.string.flatMap { Period($0) })
        return UnixTime(day.start)
    }
}
