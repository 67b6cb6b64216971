import Foundation
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import ControlPlaneServer
@testable import ControlPlaneStore

/// What users and operators are told of the records: each figure is computed by hand here.
@Suite("What the records say, to users", .timeLimit(.minutes(1)))
struct InsightTests {
    private static let names: [UInt32: String] = [
        1: "alice", 2: "bob", 3: "enterprise", 4: "gpt4-turbo", 5: "gpt-4-turbo",
        6: "news_analysis", 7: "finbert", 8: "ProsusAI/finbert", 9: "acme",
        10: "launch,team:search",
    ]
    /// 1,000 tokens in at $10 and 200 out at $30 a million.
    private static let dear = NanoUSD(16_000_000)
    /// The same tokens at $0.05 and $0.25.
    private static let cheap = NanoUSD(100_000)

    private func record(
        _ sequence: UInt64, at time: UnixTime, cost: NanoUSD = dear, subject: UInt32 = 1,
        reason: Reason = .admitted, input: UInt8? = nil
    ) -> AttemptRecord {
        var record = AttemptRecord()
        record.sequence = sequence
        record.startedAt = UnixTime(milliseconds: time.milliseconds + Int64(sequence))
        record.cost = cost
        record.source = reason == .admitted ? .reported : .ceiling
        record.reason = reason
        record.status = reason == .admitted ? 200 : 500
        record.latencyMicroseconds = 850_000
        record.tokens.input = 1_000
        record.tokens.output = 200
        (record.subject, record.tier, record.agent) = (subject, 3, 4)
        (record.model, record.requestType) = (5, 6)
        record.digests = AttemptRecord.Digests(
            input: Digest(words: 0, 0, 0, UInt64(input ?? UInt8(sequence))),
            output: Digest(words: 9, 9, 9, 9))
        return record
    }

    /// Alice: 20 dear attempts of which three have one body, and one that failed. Bob: one.
    private func records(_ incarnation: Incarnation, at time: UnixTime) -> [AttemptRecord] {
        var all = (1...20 as ClosedRange<UInt64>).map {
            record($0, at: time, input: $0 <= 3 ? 200 : nil)
        }
        all.append(
            record(21, at: time, cost: NanoUSD(5_000_000), reason: .upstreamError))
        all.append(record(22, at: time, subject: 2))
        return all.map {
            var record = $0
            record.incarnation = incarnation
            if record.subject == 2 { (record.tenant, record.tags) = (9, 10) }
            if record.sequence == 1 { record.tags = 10 }
            return record
        }
    }

    private struct Asker {
        let gateway: JoinedSidecar

        func ask(
            _ operation: UserOperation, _ parameters: [String: String] = [:],
            user: String = "alice", roles: [String] = [], tier: String = "enterprise"
        ) async throws -> (status: Int, body: JSONValue) {
            let answer = try await gateway.post(
                MeshPath.user(operation),
                UserRequest(
                    subject: .init(user: user, tenant: nil, tier: tier, roles: roles),
                    parameters: parameters))
            return (answer.status, try answer.decode(JSONValue.self))
        }
    }

    private func run(
        _ body: @Sendable (Asker, UnixTime) async throws -> Void
    ) async throws {
        try await TestControlPlane.run { server in
            _ = try await server.put(try SamplePolicy.documents())
            let gateway = try await server.joined(agent: nil)
            for user in ["alice", "bob", "carol"] {
                _ = try await gateway.bind(user, tier: "enterprise")
            }
            let sidecar = try await server.joined(agent: "gpt4-turbo")
            // A second ago, so that all of them are in the past.
            let now = UnixTime(seconds: Int64(Date().timeIntervalSince1970))
            let time = UnixTime(milliseconds: now.milliseconds - 1_000)
            let incarnation = sidecar.response.incarnation
            let block = RecordBlock(
                incarnation: incarnation, names: Self.names,
                records: records(incarnation, at: time))
            var writer = ByteWriter(capacity: 4_096)
            block.append(to: &writer)
            let stored = try await sidecar.connection.send(
                "POST", MeshPath.records, writer.bytes, session: sidecar.response.session)
            try #require(stored.status == 200)
            try await body(Asker(gateway: gateway), now)
        }
    }

    @Test func performanceIsThatOfTheRecords() async throws {
        try await run { mesh, _ in
            let answer = try await mesh.ask(.performance, ["agent": "gpt4-turbo", "window": "2h"])
            #expect(answer.status == 200)
            let body = answer.body
            #expect(body["attempts"] == 22)
            #expect(body["succeeded"] == 21)
            #expect(body["outcomes"] == ["admitted": 21, "upstream_error": 1])
            #expect(body["cost_usd"]?.string == "0.341000")
            #expect(body["cost_per_request_usd"]?.string == "0.015500")
            let p50 = try #require(body["latency_ms"]?["p50"]?.double)
            #expect(p50 > 836 && p50 < 864)
            #expect(body["tokens"]?["output"] == 4_400)
            #expect(body["hours"]?.array?.isEmpty == false)
            // All of it is in one half of the window.
            #expect(body["trend"]?["reason"]?.string != nil)
            let none = try await mesh.ask(.performance, ["agent": "finbert", "tier": "free"])
            #expect(none.body["attempts"] == 0)
            #expect(none.body["success_rate"] == .null)
            #expect(try await mesh.ask(.performance, ["agent": "ghost"]).status == 404)
        }
    }

    @Test func everyProblemOfAQueryIsNamed() async throws {
        try await run { mesh, _ in
            for window in ["59m", "32d", "soon", "-1h", "", "9999999999999999999d"] {
                let answer = try await mesh.ask(
                    .performance, ["agent": "finbert", "window": window])
                #expect(answer.status == 422, "\(window)")
            }
            let wrong = try await mesh.ask(
                .costBreakdown, ["by": "agent,moon", "from": "2026-13-01", "limit": "5"])
            #expect(wrong.status == 422)
            #expect(
                wrong.body["problems"]?.array?.compactMap { $0["path"]?.string } == [
                    "/query/by", "/query/from", "/query/limit",
                ])
            for parameters in [
                ["by": "agent,agent"], ["by": "user"], ["from": "2026-02-01", "to": "2026-01-01"],
                ["from": "2020-01-01"],
            ] {
                #expect(try await mesh.ask(.costBreakdown, parameters).status == 422)
            }
            #expect(try await mesh.ask(.costSuggestions, ["user": "bob"]).status == 422)
        }
    }

    @Test func sumsAreExactAndSayWhereTheyComeFrom() async throws {
        try await run { mesh, now in
            let own = try await mesh.ask(.costBreakdown, ["by": "agent,model,type"]).body
            #expect(own["total_usd"]?.string == "0.325000")
            #expect(own["provenance"] == ["reported": "0.320000", "ceiling": "0.005000"])
            let row = try #require(own["breakdown"]?.array?.first)
            #expect(row["agent"] == "gpt4-turbo" && row["model"] == "gpt-4-turbo")
            #expect(row["type"] == "news_analysis")
            #expect(row["attempts"] == 21 && row["failures"] == 1)
            // Nothing went through this ledger: the records are ahead of it.
            let ledger = try #require(own["ledger"])
            #expect(
                ledger["account"]?.string == "usd/user/\(Period(.month, at: now))/alice")
            #expect(ledger["recorded_usd"]?.string == "0.325000")
            #expect(ledger["not_yet_settled_usd"]?.string == "0.325000")
            #expect(ledger["not_yet_recorded_usd"]?.string == "0.000000")

            #expect(try await mesh.ask(.costBreakdown, ["user": "bob"]).status == 403)
            let bob = try await mesh.ask(
                .costBreakdown, ["user": "bob", "by": "user,tier"], roles: ["operator"]
            ).body
            #expect(bob["total_usd"]?.string == "0.016000")
            #expect(bob["breakdown"]?.array?.first?["user"] == "bob")
            let all = try await mesh.ask(
                .costBreakdown, ["user": "*", "by": "user"], roles: ["admin"]
            ).body
            #expect(all["total_usd"]?.string == "0.341000")
            #expect(all["ledger"] == nil)
            #expect(all["breakdown"]?.array?.count == 2)
        }
    }

    @Test func aTenantIsChargedByUserTypeAndDay() async throws {
        try await run { mesh, now in
            let parameters = ["tenant": "acme", "by": "tenant,user,type,day"]
            let acme = try await mesh.ask(.costBreakdown, parameters, roles: ["operator"]).body
            #expect(acme["total_usd"]?.string == "0.016000" && acme["tenant"] == "acme")
            let row = try #require(acme["breakdown"]?.array?.first)
            #expect(row["tenant"] == "acme" && row["user"] == "bob")
            #expect(row["type"] == "news_analysis" && row["attempts"] == 1)
            // Without a Budget the tenant has no account.
            #expect(acme["ledger"] == .null)
            for user in ["alice", "*"] {
                let none = try await mesh.ask(
                    .costBreakdown, ["tenant": "acme", "user": user], roles: ["operator"]
                ).body
                #expect(none["total_usd"]?.string == (user == "*" ? "0.016000" : "0.000000"))
            }
            // Users see their own alone, whatever tenant they are of.
            #expect(try await mesh.ask(.costBreakdown, ["tenant": "acme"]).status == 403)
            let own = ["tenant": "acme", "user": "bob"]
            #expect(try await mesh.ask(.costBreakdown, own, user: "bob").status == 403)
        }
    }

    @Test func tagsAreChargedAndEachAttemptCountsOnceInTheTotal() async throws {
        try await run { mesh, now in
            func ask(
                _ parameters: [String: String], roles: [String] = []
            ) async throws -> (total: String?, costs: [String: String]) {
                let body = try await mesh.ask(.costBreakdown, parameters, roles: roles).body
                let rows = (body["breakdown"]?.array ?? []).map { row in
                    let key = [row["tag"], row["team"], row["user"]].compactMap { $0?.string }
                    return (key.joined(separator: "|"), row["cost_usd"]?.string ?? "")
                }
                return (
                    body["total_usd"]?.string, Dictionary(rows, uniquingKeysWith: { $0 + $1 })
                )
            }
            let launch = try await ask(["tag": "launch", "by": "user"], roles: ["operator"])
            #expect(launch.total == "0.032000")
            #expect(launch.costs == ["alice": "0.016000", "bob": "0.016000"])
            let tags = try await ask(["tag": "launch", "by": "tag"], roles: ["operator"])
            #expect(tags.total == "0.032000")
            #expect(tags.costs == ["launch": "0.032000", "team:search": "0.032000"])
            let own = try await ask(["by": "team", "tag": "launch"])
            #expect(own.total == "0.016000" && own.costs == ["search": "0.016000"])
            let all = try await ask(["by": "team"])
            #expect(all.total == "0.325000")
            #expect(all.costs == ["": "0.309000", "search": "0.016000"])
            #expect(try await mesh.ask(.costBreakdown, ["by": "tag,team"]).status == 422)
            let others = ["tag": "launch", "user": "bob"]
            #expect(try await mesh.ask(.costBreakdown, others).status == 403)
            // Without a Budget the tag has no account.
            let asked = ["tag": "launch"]
            let body = try await mesh.ask(.costBreakdown, asked, roles: ["operator"]).body
            #expect(body["tag"] == "launch" && body["ledger"] == .null)
        }
    }

    @Test func suggestionsAreComputedFromTheOwnHistory() async throws {
        try await run { mesh, _ in
            let answer = try await mesh.ask(.costSuggestions).body
            #expect(answer["attempts"] == 21)
            let suggestions = answer["suggestions"]?.array ?? []
            #expect(
                suggestions.map { $0["kind"]?.string } == [
                    "cheaper_agent", "repeated_requests", "failed_attempts",
                ])
            let cheaper = try #require(suggestions.first)
            let saving = NanoUSD(20 * (Self.dear.rawValue - Self.cheap.rawValue))
            #expect(cheaper["saving_usd"]?.string == saving.usd)
            #expect(cheaper["cost_instead_usd"]?.string == NanoUSD(20 * 100_000).usd)
            #expect(cheaper["instead"] == "llama2-7b" && cheaper["step"] == "explanation")
            // Three times one body: the second and the third are paid again.
            #expect(suggestions[1]["saving_usd"]?.string == "0.032000")
            #expect(suggestions[1]["attempts"] == 2)
            #expect(suggestions[2]["saving_usd"]?.string == "0.005000")
            #expect(suggestions[2]["reasons"] == ["upstream_error": 1])
            // One attempt says nothing, and nobody sees another's.
            let bob = try await mesh.ask(.costSuggestions, user: "bob").body
            #expect(bob["suggestions"] == [])
            #expect(bob["reason"]?.string?.contains("20 are needed") == true)
            #expect(try await mesh.ask(.costSuggestions, user: "carol").body["attempts"] == 0)
            // A tier without the dear agent's step has nothing to be told of it.
            let free = try await mesh.ask(.costSuggestions, tier: "free").body
            #expect(
                free["suggestions"]?.array?.contains { $0["kind"] == "cheaper_agent" } == false)
        }
    }

    @Test func operatorsAreToldWhatTheMeshCost() async throws {
        try await run { mesh, _ in
            #expect(try await mesh.ask(.stats).status == 403)
            let stats = try await mesh.ask(.stats, ["window": "1h"], roles: ["operator"])
            #expect(stats.status == 200)
            #expect(stats.body["total_usd"]?.string == "0.341000")
            #expect(stats.body["usd_per_hour"]?.string == "0.341000")
            #expect(
                stats.body["by_tier"] == [
                    [
                        "tier": "enterprise", "attempts": 22, "failures": 1,
                        "cost_usd": "0.341000",
                    ]
                ])
            #expect(stats.body["by_agent"]?.array?.first?["agent"] == "gpt4-turbo")
            let wide = try await mesh.ask(.stats, ["window": "25h"], roles: ["operator"])
            #expect(wide.status == 422)
        }
    }
}
