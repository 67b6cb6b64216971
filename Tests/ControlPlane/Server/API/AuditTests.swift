import ArgumentParser
import ControlPlaneStore
import NIOHTTP1
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import ControlPlaneServer
@testable import WeirCLI

@Suite("What was done can be read back", .timeLimit(.minutes(1)))
struct AuditTests {
    private static let day = UnixTime(CivilDate(year: 2026, month: 11, day: 22))

    private static func ship(
        _ server: TestControlPlane, _ change: (inout AttemptRecord, UInt64) -> Void
    ) async throws {
        let sidecar = try await server.joined()
        let records = (UInt64(1)...7).map { sequence -> AttemptRecord in
            var record = AttemptRecord()
            record.sequence = sequence
            record.incarnation = sidecar.response.incarnation
            record.startedAt = UnixTime(
                milliseconds: day.milliseconds + Int64(sequence / 2) * 60_000)
            record.request = Identifier(high: 1, low: sequence)
            record.cost = NanoUSD(120_000)
            record.status = 200
            record.latencyMicroseconds = 12_345
            record.source = .reported
            record.subject = 1
            record.agent = 2
            change(&record, sequence)
            return record
        }
        var writer = ByteWriter()
        RecordBlock(
            incarnation: sidecar.response.incarnation, names: [1: "ann+bo@x", 2: "finbert"],
            records: records
        ).append(to: &writer)
        let answer = try await sidecar.connection.send(
            "POST", MeshPath.records, writer.bytes, session: sidecar.response.session)
        try #require(answer.status == 200)
    }

    private func sequences(_ body: JSONValue) -> [Int64] {
        (body["records"]?.array ?? []).compactMap { $0["sequence"]?.int64 }
    }

    @Test func recordsComeInPagesTheNewestFirst() async throws {
        try await TestControlPlane.run { server in
            try await Self.ship(server) { _, _ in }
            var pages: [[Int64]] = []
            var cursor: String?
            repeat {
                let query = "?limit=3" + (cursor.map { "&cursor=\($0)" } ?? "")
                let answer = try await server.send(.GET, "/v1/audit" + query)
                #expect(answer.status == 200)
                pages.append(sequences(answer.body))
                cursor = answer.body["next"]?.string
            } while cursor != nil && pages.count < 5
            #expect(pages == [[7, 6, 5], [4, 3, 2], [1]])
            let all = try await server.send(.GET, "/v1/audit?limit=7")
            #expect(sequences(all.body).count == 7 && all.body["next"] == nil)
        }
    }

    @Test func aRecordIsShownWhole() async throws {
        try await TestControlPlane.run { server in
            try await Self.ship(server) { record, sequence in
                guard sequence == 7 else { return }
                record.digests = AttemptRecord.Digests(
                    input: .ofNothing, output: Digest(words: 1, 0, 0, 0))
                record.flags = [.streamed, .overrun]
                record.reason = .upstreamError
                record.status = 502
            }
            let answer = try await server.send(.GET, "/v1/audit?reason=upstream_error")
            let record = try #require(answer.body["records"]?.array?.first)
            #expect(sequences(answer.body) == [7])
            #expect(record["started_at"] == "2026-11-22T00:03:00.000Z")
            #expect(record["user"] == "ann+bo@x" && record["agent"] == "finbert")
            #expect(record["tenant"] == nil && record["status"] == 502)
            #expect(record["cost_usd"] == "0.000120" && record["cost_source"] == "reported")
            #expect(record["flags"] == ["overrun", "streamed"])
            #expect(
                record["input_sha256"]
                    == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
            #expect(record["output_sha256"]?.string?.hasPrefix("0100000000000000000") == true)
            let document = try OpenAPIDocument.read()
            let schema: JSONValue = ["$ref": "#/components/schemas/Audit"]
            #expect(SchemaCheck(document).faults(answer.body, schema) == [])
            #expect(
                try await server.send(.GET, "/v1/audit", token: "another-token-0123456").status
                    == 401)
        }
    }

    @Test func filtersAndTheirProblems() async throws {
        try await TestControlPlane.run { server in
            try await Self.ship(server) { _, _ in }
            func found(_ query: String) async throws -> [Int64] {
                sequences(try await server.send(.GET, "/v1/audit?" + query).body)
            }
            #expect(try await found("user=ann%2Bbo@x&limit=1") == [7])
            #expect(try await found("user=nobody") == [])
            #expect(try await found("agent=finbert&status=200&limit=2") == [7, 6])
            #expect(
                try await found("from=2026-11-22T00:01:00Z&to=2026-11-22T00:02:00Z") == [3, 2])
            #expect(try await found("to=2026-11-22") == [])
            let request = Identifier(high: 1, low: 4)
            #expect(try await found("request=req_\(request)") == [4])

            let wrong = try await server.send(
                .GET,
                "/v1/audit?from=yesterday&to=2026-13-01&run=x&request=run_1&status=600&reason=bad"
                    + "&limit=0&cursor=AAAA")
            #expect(wrong.status == 422)
            let paths = (wrong.body["problems"]?.array ?? []).compactMap { $0["path"]?.string }
            #expect(
                paths
                    == ["from", "to", "run", "request", "status", "reason", "cursor", "limit"]
                    .map { "/query/" + $0 })
        }
    }

    @Test func theCommandFollowsPagesAndEscapesFilters() async throws {
        let list = try AuditList.parse(["--user", "a+b&c=d", "--limit", "3"])
        #expect(
            try list.path(cursor: "x_-1", limit: 2)
                == "/v1/audit?user=a%2Bb%26c%3Dd&limit=2&cursor=x_-1")
        var asked: [String] = []
        let records = try await AuditList.records(5) { cursor, limit in
            asked.append("\(cursor ?? "-") \(limit)")
            let page: [JSONValue] = [["sequence": 1], ["sequence": 2]]
            return ["records": .array(page), "next": .string("p\(asked.count)")]
        }
        #expect(asked == ["- 5", "p1 3", "p2 1"] && records.count == 6)
        let table = AuditList.table([
            [
                "started_at": "t", "request": "req_1", "user": "ann", "status": 0,
                "latency_us": 1_600, "cost_usd": "0.1", "reason": "admitted",
            ]
        ])
        #expect(
            table.rows == [["t", "req_1", "ann", "-", "-", "-", "admitted", "2", "0.1", "-"]])
    }
}
