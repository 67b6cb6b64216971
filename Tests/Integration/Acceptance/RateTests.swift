import Foundation
import Testing
import WeirCore

/// Rates over the whole mesh: what a minute allows holds for all gateways together, and all of it
/// is usable.
@Suite(.timeLimit(.minutes(4)), .serialized)
struct RateTests {
    private static let limit = 30

    /// What one user got of one minute, or of the minutes that it took.
    private struct Tally {
        var served = 0
        var minutes = 1
        /// The last refusal by each gateway.
        var refusals: [Endpoint.Answer] = []
    }

    private static var minute: Int { Int(Date().timeIntervalSince1970) / 60 }

    /// Asks each gateway in turn until both say that nothing of the minute is left.
    private func useUp(_ gateways: [Endpoint], _ mesh: Mesh, user: String) async throws -> Tally {
        let headers = mesh.userHeaders(user, tier: "acceptance")
        let first = Self.minute
        var tally = Tally()
        while tally.minutes == 1 {
            let answers = try await ask(gateways, headers)
            tally.minutes = Self.minute - first + 1
            tally.served += answers.count { $0.1.status == 200 }
            // With a time it is exhausted; without one it is set aside, and comes back.
            let over = try answers.filter {
                try $0.1.status == 429 && $0.1.json()["resets_at"] != nil
            }
            for (_, answer) in answers where answer.status != 200 {
                #expect(answer.status == 429 || answer.status == 503, "\(answer.text)")
            }
            if Set(over.map(\.0)).count == gateways.count {
                tally.refusals = over.map(\.1)
                return tally
            }
        }
        return tally
    }

    /// Three requests to each gateway at once, with the gateway's place.
    private func ask(
        _ gateways: [Endpoint], _ headers: [String: String]
    ) async throws -> [(Int, Endpoint.Answer)] {
        try await withThrowingTaskGroup(of: (Int, Endpoint.Answer).self) { group in
            for index in 0..<(3 * gateways.count) {
                let place = index % gateways.count
                group.addTask {
                    let answer = try await gateways[place].post(
                        "/analyze", AcceptancePolicy.sentimentOnly, headers: headers)
                    return (place, answer)
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
    }

    @Test func `two gateways serve a minute's requests, all of them and not one more`()
        async throws
    {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(budget: "5", more: "requestsPerMinute: \(Self.limit)")
        let options = Mesh.Options(agents: ["finbert", "llama2-7b"], policyFolder: policy.path)
        try await Mesh.run(options) { mesh in
            let gateways = [mesh.gateway, try await mesh.addGateway("second-gateway")]
            // Where the minute ends meanwhile, somebody else tries the next one.
            for attempt in 0..<5 {
                let user = "user-\(attempt)"
                let tally = try await useUp(gateways, mesh, user: user)
                #expect(tally.served <= Self.limit * tally.minutes)
                guard tally.minutes == 1 else { continue }
                #expect(tally.served == Self.limit)
                try check(try #require(tally.refusals.first))
                try await theNextMinuteServes(gateways, mesh, user)
                return
            }
            Issue.record("five users did not use up \(Self.limit) requests within a minute")
        }
    }

    private func check(_ refusal: Endpoint.Answer) throws {
        let problem = try refusal.json()
        #expect(problem["reason"] == "rate_limited" && problem["scope"] == "mesh")
        let wait = try #require(refusal.header("retry-after").flatMap { Int($0) })
        #expect((1...60).contains(wait))
        let policy = #""requests-per-minute";q=\#(Self.limit);w=60"#
        #expect(refusal.header("ratelimit-policy") == policy)
        #expect(refusal.header("ratelimit")?.hasPrefix(#""requests-per-minute";r=0;t="#) == true)
    }

    private func theNextMinuteServes(
        _ gateways: [Endpoint], _ mesh: Mesh, _ user: String
    ) async throws {
        let headers = mesh.userHeaders(user, tier: "acceptance")
        for gateway in gateways {
            try await eventually(
                "the next minute serves", within: .seconds(90), every: .milliseconds(500)
            ) {
                try await gateway.post(
                    "/analyze", AcceptancePolicy.sentimentOnly, headers: headers
                ).status == 200
            }
        }
    }
}
