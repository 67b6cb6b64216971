import Foundation
import Testing
import WeirCore

/// Rates over the whole mesh: what a minute allows holds for all gateways together, and all of it
/// is usable.
@Suite(.timeLimit(.minutes(4)), .serialized)
struct RateTests {
    private static let limit = 30
    private static let tokens = 4_000
    /// Above what the largest of the requests for tokens may take: its bytes and its output.
    private static let tokensOfOneMax = 700

    /// What is asked again and again, and how much of the limit an answer took.
    private struct Question: Sendable {
        let path: String
        let body: String
        let taken: @Sendable (Endpoint.Answer) throws -> Int
    }

    private static let analysis = Question(
        path: "/analyze", body: AcceptancePolicy.sentimentOnly, taken: { _ in 1 })

    private static let chat = Question(
        path: "/v1/chat/completions",
        body: #"{"model": "llama2-7b", "max_tokens": 200, "messages": "#
            + #"[{"role": "user", "content": "What moves the markets today?"}]}"#,
        taken: { answer in
            let usage = try answer.json()["usage"]
            let input = try #require(usage?["prompt_tokens"]?.int64)
            return Int(input + (try #require(usage?["completion_tokens"]?.int64)))
        })

    /// What one user got of one minute, or of the minutes that it took.
    private struct Tally {
        var taken = 0
        var minutes = 1
        /// The last refusal by each gateway.
        var refusals: [Endpoint.Answer] = []
    }

    private static var minute: Int { Int(Date().timeIntervalSince1970) / 60 }

    /// Asks each gateway in turn until both say that nothing of the minute is left.
    private func useUp(
        _ gateways: [Endpoint], _ mesh: Mesh, user: String, by question: Question
    ) async throws -> Tally {
        let headers = mesh.userHeaders(user, tier: "acceptance")
        let first = Self.minute
        var tally = Tally()
        while tally.minutes == 1 {
            let answers = try await ask(question, gateways, headers)
            tally.minutes = Self.minute - first + 1
            for (_, answer) in answers where answer.status == 200 {
                tally.taken += try question.taken(answer)
            }
            // With a time it is exhausted; without one it is set aside, and comes back.
            let over = try answers.filter {
                try $0.1.status == 429 && members($0.1)["resets_at"] != nil
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

    /// A problem's, or those of an error as chat completions have it.
    private func members(_ answer: Endpoint.Answer) throws -> JSONValue {
        let body = try answer.json()
        return body["error"] ?? body
    }

    /// Three requests to each gateway at once, with the gateway's place.
    private func ask(
        _ question: Question, _ gateways: [Endpoint], _ headers: [String: String]
    ) async throws -> [(Int, Endpoint.Answer)] {
        try await withThrowingTaskGroup(of: (Int, Endpoint.Answer).self) { group in
            for index in 0..<(3 * gateways.count) {
                let place = index % gateways.count
                group.addTask {
                    let answer = try await gateways[place].post(
                        question.path, question.body, headers: headers)
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
                let tally = try await useUp(gateways, mesh, user: user, by: Self.analysis)
                #expect(tally.taken <= Self.limit * tally.minutes)
                guard tally.minutes == 1 else { continue }
                #expect(tally.taken == Self.limit)
                try check(try #require(tally.refusals.first), "requests", Self.limit)
                try await theNextMinuteServes(gateways, mesh, user)
                return
            }
            Issue.record("five users did not use up \(Self.limit) requests within a minute")
        }
    }

    @Test func `two gateways serve a minute's tokens, nearly all of them and not one more`()
        async throws
    {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(budget: "5", more: "tokensPerMinute: \(Self.tokens)")
        try policy.replace(
            "acceptance.yaml", "agents: [finbert]", with: "agents: [llama2-7b, finbert]")
        let options = Mesh.Options(agents: ["finbert", "llama2-7b"], policyFolder: policy.path)
        try await Mesh.run(options) { mesh in
            let gateways = [mesh.gateway, try await mesh.addGateway("second-gateway")]
            for attempt in 0..<5 {
                let tally = try await useUp(
                    gateways, mesh, user: "user-\(attempt)", by: Self.chat)
                #expect(tally.taken <= Self.tokens * tally.minutes)
                guard tally.minutes == 1 else { continue }
                #expect(tally.taken > Self.tokens - Self.tokensOfOneMax)
                try check(try #require(tally.refusals.first), "tokens", Self.tokens)
                return
            }
            Issue.record("five users did not use up \(Self.tokens) tokens within a minute")
        }
    }

    private func check(_ refusal: Endpoint.Answer, _ unit: String, _ limit: Int) throws {
        #expect(refusal.header("weir-decision") == "rate_limited")
        #expect(try members(refusal)["scope"] == "mesh")
        let wait = try #require(refusal.header("retry-after").flatMap { Int($0) })
        #expect((1...60).contains(wait))
        #expect(refusal.header("ratelimit-policy") == "\"\(unit)-per-minute\";q=\(limit);w=60")
        #expect(refusal.header("ratelimit")?.hasPrefix("\"\(unit)-per-minute\";r=0;t=") == true)
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
