import Foundation
import Synchronization
import Testing
import WeirCore

/// `MAX_CONCURRENT_REQUESTS`: what is too much is shed, the lowest tier first.
@Suite(.timeLimit(.minutes(3)), .serialized)
struct LoadSheddingTests {
    private static let sentiment = #"""
        {"analysis_type": "sentiment_of_anybody", "data": {"text": "Profits beat expectations."}}
        """#

    private static func addRequestType(_ policy: AcceptancePolicy) throws {
        try policy.add(
            "flood.yaml",
            """
            apiVersion: weir.mesh/v1
            kind: RequestType
            metadata:
              name: sentiment_of_anybody
            spec:
              timeout: 20s
              inputSchema: {type: object, required: [text], properties: {text: {type: string}}}
              steps:
                - name: sentiment
                  agents: {free: [finbert], premium: [finbert]}
                  input: {text: /data/text}
                  timeout: 15s
            """)
    }

    /// Free users who come again and again until they are cancelled, one request each at a time;
    /// what they were answered, by status and reason.
    private func flood(_ mesh: Mesh, users: Int) -> Task<[String: Int], any Error> {
        Task {
            try await withThrowingTaskGroup(of: [String: Int].self) { group in
                for number in 0..<users {
                    group.addTask {
                        var seen: [String: Int] = [:]
                        while !Task.isCancelled {
                            let answer = try await mesh.analyze(
                                Self.sentiment, user: "free-\(number)", tier: "free")
                            let reason = answer.status == 200 ? "" : answer.header("weir-decision")
                            seen["\(answer.status) \(reason ?? "-")", default: 0] += 1
                            #expect(answer.status == 200 || answer.header("retry-after") != nil)
                            // Sooner than they are told to, but within a free user's rate.
                            try? await Task.sleep(for: .milliseconds(250))
                        }
                        return seen
                    }
                }
                return try await group.reduce(into: [:]) { $0.merge($1, uniquingKeysWith: +) }
            }
        }
    }

    @Test func `a flood of free users does not delay premium ones`() async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try Self.addRequestType(policy)
        var options = Mesh.Options(
            agents: ["finbert", "llama2-7b"], latency: "700", policyFolder: policy.path)
        options.environment["gateway"] = ["MAX_CONCURRENT_REQUESTS": "10"]
        try await Mesh.run(options) { mesh in
            let clock = ContinuousClock()
            let flood = flood(mesh, users: 60)
            try await eventually("free users are shed") {
                try await mesh.gatewayAdmin.get("/metrics").text
                    .contains(#"weir_gateway_shed_total{tier="free""#)
            }
            var slowest = Duration.zero
            for _ in 0..<6 {
                let began = clock.now
                let answer = try await mesh.analyze(Self.sentiment, user: "paying")
                #expect(answer.status == 200, "\(answer.text)")
                slowest = max(slowest, clock.now - began)
            }
            flood.cancel()
            let seen = try await flood.value
            // Its own call takes 0.7 s, and behind a free one it would be 1.4 s.
            #expect(slowest < .milliseconds(1_300))
            #expect(seen["200 ", default: 0] > 0)
            #expect(seen["503 overloaded", default: 0] > 0)
            #expect(Set(seen.keys).isSubset(of: ["200 ", "503 overloaded"]), "\(seen)")
            let metrics = try await mesh.gatewayAdmin.get("/metrics").text
            #expect(metrics.contains("weir_gateway_requests_running 0"))
            #expect(!metrics.contains(#"weir_gateway_shed_total{tier="premium""#))
        }
    }
}
