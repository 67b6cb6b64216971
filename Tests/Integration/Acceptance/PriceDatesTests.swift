import Foundation
import Testing
import WeirCore

/// A price holds from its moment on, without a new policy.
@Suite(.timeLimit(.minutes(3)), .serialized)
struct PriceDatesTests {
    private struct Sample {
        let cost: String
        let policyNumber: Int64?
    }

    /// One request of a fixed price. Neither price is charged at the other's time.
    private func ask(_ mesh: Mesh, change moment: Date) async throws -> Sample {
        let sent = Date()
        let answer = try await mesh.analyze(
            AcceptancePolicy.sentimentOnly, user: "alice", tier: "acceptance")
        #expect(answer.status == 200, "\(answer.text)")
        let cost = try #require(try answer.json()["cost"]?["total_usd"]?.string)
        if Date() < moment { #expect(cost == Self.old) }
        // Each hop looks at least once a second, on a machine that may be busy.
        if sent > moment + 20 { #expect(cost == Self.new) }
        if cost == Self.new { #expect(Date() >= moment) }
        return Sample(cost: cost, policyNumber: try answer.json()["policy_version"]?.int64)
    }

    private static let old = "0.000120"
    private static let new = "0.000240"

    @Test func `a price of a later moment takes over by itself, and records say which it was`()
        async throws
    {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(budget: "1")
        let options = Mesh.Options(
            agents: ["finbert", "llama2-7b"], policyFolder: policy.path)
        try await Mesh.run(options) { mesh in
            let moment = Date(timeIntervalSince1970: Date().timeIntervalSince1970.rounded() + 12)
            let text = UnixTime(seconds: Int64(moment.timeIntervalSince1970)).rfc3339
            try policy.add(
                "later.yaml",
                """
                apiVersion: weir.mesh/v1
                kind: PriceTable
                metadata:
                  name: later
                spec:
                  dated: "2026-11-01"
                  validFrom: "\(text)"
                  prices:
                    - model: ProsusAI/finbert
                      perRequest: "\(Self.new)"
                      version: 2
                """)
            _ = try await mesh.apply(policy.path, wait: true)
            let shown = try await mesh.weir(["prices", "--model", "ProsusAI/finbert"])
            #expect(shown.contains(Self.old) && shown.contains(Self.new) && shown.contains(text))
            let first = try await ask(mesh, change: moment)
            var samples = [first]
            try await eventually(
                "the price changes", within: .seconds(60), every: .milliseconds(250)
            ) {
                samples.append(try await ask(mesh, change: moment))
                return samples.last?.cost == Self.new
            }
            #expect(samples.last?.policyNumber == first.policyNumber)

            let expected = samples.map { $0.cost == Self.new ? 2 : 1 }.sorted()
            try await eventually("the records tell", within: .seconds(30)) {
                let answer = try await mesh.api.get(
                    "/v1/audit?user=alice&agent=finbert&limit=200", headers: mesh.adminHeaders)
                let records = try answer.json()["records"]?.array ?? []
                for record in records {
                    let isNew = record["price_version"]?.int64 == 2
                    #expect(record["cost_usd"]?.string == (isNew ? Self.new : Self.old))
                }
                let versions = records.compactMap { $0["price_version"]?.int64 }.map(Int.init)
                return versions.sorted() == expected
            }
        }
    }
}
