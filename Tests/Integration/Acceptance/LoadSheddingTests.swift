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

    /// Free users who come again and again until they are told to stop, one request each at a
    /// time.
    private final class Flood: Sendable {
        private let isOver = Mutex(false)

        /// What they were answered, by status and reason.
        func run(_ mesh: Mesh, users: Int) async throws -> [String: Int] {
            try await withThrowingTaskGroup(of: [String: Int].self) { group in
                for number in 0..<users {
                    group.addTask { try await self.run(mesh, user: "free-\(number)") }
                }
                return try await group.reduce(into: [:]) { $0.merge($1, uniquingKeysWith: +) }
            }
        }

        private func run(_ mesh: Mesh, user: String) async throws -> [String: Int] {
            var seen: [String: Int] = [:]
            while !isOver.withLock({ $0 }) {
                let answer = try await mesh.analyze(
                    LoadSheddingTests.sentiment, user: user, tier: "free")
                let reason = answer.header("weir-decision") ?? "-"
                seen["\(answer.status) \(reason)", default: 0] += 1
                #expect(answer.status == 200 || answer.header("retry-after") != nil)
                // tidy: these users pause; sooner than they are told to, within a free one's rate
                try await Task.sleep(for: .milliseconds(250))
            }
            return seen
        }

        func stop() { isOver.withLock { $0 = true } }
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
            let flood = Flood()
            // More than have a place or may wait, which is 20; and fewer than the 30 that the
            // gateway takes in hand before it knows their tier, where everybody is alike.
            async let answers = flood.run(mesh, users: 28)
            defer { flood.stop() }
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
            flood.stop()
            let seen = try await answers
            print("the slowest premium request took \(slowest); free ones: \(seen)")
            // Its own call takes 0.7 s, and behind a free one it would be 1.4 s.
            #expect(slowest < .milliseconds(1_300))
            #expect(seen["200 admitted", default: 0] > 0)
            #expect(seen["503 overloaded", default: 0] > 0)
            #expect(Set(seen.keys).isSubset(of: ["200 admitted", "503 overloaded"]), "\(seen)")
            let metrics = try await mesh.gatewayAdmin.get("/metrics").text
            #expect(metrics.contains("weir_gateway_requests_running 0"))
            #expect(!metrics.contains(#"weir_gateway_shed_total{tier="premium""#))
        }
    }
}
