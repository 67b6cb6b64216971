import Foundation
import NIOHTTP1
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import ControlPlaneServer
@testable import ControlPlaneStore

@Suite("Holders of money, and those that never come back", .timeLimit(.minutes(1)))
struct HoldersTests {
    private func send(
        _ server: TestControlPlane, _ method: HTTPMethod, _ path: String, _ body: JSONValue? = nil
    ) async throws -> TestControlPlane.Answer {
        try await server.send(
            method, "/v1/ledger/holders" + path, body?.bytes,
            headers: ["content-type": "application/json"])
    }

    /// A gateway that holds $1 of alice's month.
    private func holder(
        _ server: TestControlPlane, instance: String
    ) async throws -> (life: Incarnation, account: AccountKey) {
        let gateway = try await server.joined(agent: nil, instance: instance)
        let binding = try await gateway.bind("alice", tier: "enterprise")
        let money = try #require(binding.accounts.first { $0.unit == .usd })
        let account = money.key(
            at: UnixTime(seconds: Int64(Date().timeIntervalSince1970)))
        let acquire = LeaseAcquire(
            lease: LeaseID(incarnation: gateway.response.incarnation, number: 1),
            account: account, need: NanoUSD(1_000_000_000), want: NanoUSD(1_000_000_000),
            closedBelow: 0, policyNumber: 1)
        let answer = try await gateway.post(
            MeshPath.leases, LeasesRequest(acquire: [acquire], release: [])
        ).decode(LeasesResponse.self)
        try #require(answer.grants.first?.status == .granted)
        return (gateway.response.incarnation, account)
    }

    private func hear(_ server: TestControlPlane, _ life: Incarnation, at time: Int64) async throws
    {
        let redis = try Redis(url: server.redis.url)
        try await redis.command(["ZADD", StoreKeys.live, String(time), life.description])
    }

    private func log(_ server: TestControlPlane) async throws -> [JSONValue] {
        try await server.send(.GET, "/v1/admin-log").body["actions"]?.array ?? []
    }

    @Test func aSilentHolderIsLookedAtWrittenOffAndInTheLog() async throws {
        try await TestControlPlane.run { server in
            _ = try await server.put(try SamplePolicy.documents())
            let lost = try await holder(server, instance: "gateway-1")
            try await hear(server, lost.life, at: 1)
            let list = try await send(server, .GET, "")
            let row = try #require(list.body["holders"]?.array?.first)
            #expect(row["state"] == "silent" && row["instance"] == "gateway-1")
            #expect(row["held_usd"] == "1.000000" && row["accounts_held"] == 1)

            let path = "/\(lost.life)/write-off"
            let dry = try await send(server, .POST, path, ["dry_run": true])
            #expect(dry.status == 200 && dry.body["dry_run"] == true)
            #expect(dry.body["spent_usd"] == "1.000000")
            #expect(
                dry.body["accounts"]?.array == [
                    ["account": .string(lost.account.description), "amount": "1.000000"]
                ])
            // Nothing has happened yet, and nothing is in the log.
            #expect(try await send(server, .GET, "").body["holders"]?.array?.count == 1)
            #expect(try await log(server).isEmpty)

            let noReason = try await send(server, .POST, path, [:])
            #expect(noReason.status == 422)
            #expect(noReason.body["problems"]?.array?.map { $0["path"] } == ["/reason"])
            let done = try await send(server, .POST, path, ["reason": "disk lost"])
            #expect(done.status == 200 && done.body["spent_usd"] == "1.000000")
            #expect(try await send(server, .GET, "").body["holders"] == [])
            let actions = try await log(server)
            #expect(actions.map { $0["action"] } == ["ledger.write_off"])
            #expect(actions.first?["subject"]?.string == "\(lost.life)")
            #expect(actions.first?["reason"] == "disk lost")
            #expect(
                actions.first?["detail"] == "gateway gateway-1: 1.000000 USD of 1 account")
            // Again: it is known, and holds nothing any more.
            let again = try await send(server, .POST, path, ["reason": "again"])
            #expect(again.status == 200 && again.body["spent_usd"] == "0.000000")
            #expect(again.body["state_before"] == "written_off")
        }
    }

    @Test func aLivingHolderIsRefusedUnlessForced() async throws {
        try await TestControlPlane.run { server in
            _ = try await server.put(try SamplePolicy.documents())
            let living = try await holder(server, instance: "gateway-2")
            // On a slow machine, too, it was heard a moment ago.
            try await hear(
                server, living.life,
                at: Int64(Date().timeIntervalSince1970 * 1_000) + 3_600_000)
            let path = "/\(living.life)/write-off"
            for body: JSONValue in [["reason": "a mistake"], ["dry_run": true]] {
                let refused = try await send(server, .POST, path, body)
                #expect(refused.status == 409)
                #expect(refused.body["reason"] == "holder_alive")
                #expect(refused.body["detail"]?.string?.contains("gateway gateway-2") == true)
            }
            #expect(try await log(server).isEmpty)
            let held = try await send(server, .GET, "/\(living.life)")
            #expect(held.body["state"] == "alive" && held.body["held_usd"] == "1.000000")
            let forced = try await send(
                server, .POST, path, ["reason": "stolen", "force": true])
            #expect(forced.status == 200 && forced.body["spent_usd"] == "1.000000")
            #expect(try await send(server, .GET, "/\(living.life)").body["state"] == "written_off")
        }
    }

    @Test func holdersComePageByPageAndQuestionsThatMeanNothingAreRefused() async throws {
        try await TestControlPlane.run { server in
            _ = try await server.put(try SamplePolicy.documents())
            let lives = [
                try await holder(server, instance: "a").life,
                try await holder(server, instance: "b").life,
            ]
            let first = try await send(server, .GET, "?limit=1")
            #expect(first.body["holders"]?.array?.map { $0["instance"] } == ["a"])
            #expect(first.body["next"]?.string == "\(lives[0])")
            let second = try await send(server, .GET, "?limit=1&cursor=\(lives[0])")
            #expect(second.body["holders"]?.array?.map { $0["instance"] } == ["b"])
            #expect(second.body["next"] == nil)
            for query in ["?limit=0", "?limit=501", "?limit=x", "?cursor=x", "?cursor=-1"] {
                #expect(try await send(server, .GET, query).status == 422, "\(query)")
            }
            #expect(try await send(server, .GET, "/7").status == 404)
            #expect(try await send(server, .GET, "/x").status == 404)
            let unknown = try await send(server, .POST, "/7/write-off", ["reason": "gone"])
            #expect(unknown.status == 404)
            let strange = try await send(
                server, .POST, "/\(lives[0])/write-off", ["reason": "x", "colour": "red"])
            #expect(strange.status == 422)
        }
    }
}
