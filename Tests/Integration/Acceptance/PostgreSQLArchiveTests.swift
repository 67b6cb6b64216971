import Foundation
import PrivatePostgreSQL
import Testing
import WeirCore

/// The whole mesh with PostgreSQL as its archive, through an outage of it.
@Suite(.timeLimit(.minutes(3)), .serialized)
struct PostgreSQLArchiveTests {
    @Test func `records survive an outage of PostgreSQL, each exactly once`() async throws {
        let server = try PrivatePostgreSQL()
        let database = try server.makeDatabase()
        let options = Mesh.Options(
            agents: ["finbert", "llama2-7b"],
            environment: ["control-plane": ["DATABASE_URL": server.url(of: database)]])
        try await Mesh.run(options) { mesh in
            for _ in 0..<2 {
                let answer = try await mesh.analyze(AcceptancePolicy.newsAnalysis)
                try #require(answer.status == 200, "\(answer.text)")
            }
            let before = try await audited(mesh, count: 4)
            let digests = before.filter { $0["agent"] == "finbert" }.map { $0["input_sha256"] }
            #expect(digests.count == 2 && digests[0] == digests[1])
            #expect(digests.allSatisfy { $0?.string?.utf8.count == 64 })
            #expect(before.allSatisfy { $0["user"] == "alice" && $0["status"] == 200 })
            #expect(try await archiveState(mesh) == "ok")

            server.stop(.crash)
            // Money and policy need Redis alone, so users notice nothing.
            for _ in 0..<3 {
                #expect(try await mesh.analyze(AcceptancePolicy.newsAnalysis).status == 200)
            }
            let refused = try await mesh.api.get("/v1/audit", headers: mesh.adminHeaders)
            #expect(refused.status == 503)
            #expect(try refused.json()["reason"] == "store_unavailable")
            #expect(try await archiveState(mesh) == "warning")
            #expect(try await mesh.api.get("/readyz").status == 200)

            try server.start()
            let after = try await audited(mesh, count: 10)
            #expect(Array(after.suffix(4)) == before)
            let names = after.map {
                "\($0["incarnation"]?.text ?? "")-\($0["sequence"]?.text ?? "")"
            }
            #expect(Set(names).count == 10)
            let books = try await mesh.settledBooks(of: "alice")
            let sum = try server.sql("SELECT sum(cost) FROM records", in: database)
            #expect(Int64(sum) == books.consumed.rawValue)
            let hourly = try server.sql(
                "SELECT sum(cost), sum(attempts) FROM performance", in: database)
            #expect(hourly == "\(sum)|10")
            let log = mesh.controlPlane.process.log
            #expect(log.contains("unreachable") && !log.contains(PrivatePostgreSQL.password))

            let listed = try await mesh.weir(["audit", "list", "--agent", "finbert"])
            #expect(listed.split(separator: "\n").count == 6)
            #expect(listed.contains("0.000120") && listed.contains("COST USD"))
        }
    }

    private func audited(_ mesh: Mesh, count: Int) async throws -> [JSONValue] {
        try await eventually("\(count) records are in the archive", within: .seconds(30)) {
            let answer = try await mesh.api.get("/v1/audit", headers: mesh.adminHeaders)
            guard answer.status == 200 else { return nil }
            let records = try answer.json()["records"]?.array ?? []
            return records.count >= count ? records : nil
        }
    }

    private func archiveState(_ mesh: Mesh) async throws -> String? {
        let checks = try await mesh.api.get("/readyz").json()["checks"]?.array ?? []
        return checks.first { $0["name"] == "archive" }?["state"]?.string
    }
}
