import Foundation
import Testing
import WeirCore
import WeirLedger

/// LEDGER rule 11: without a control plane a gateway goes on as the tier of each user says.
@Suite(.timeLimit(.minutes(4)), .serialized)
struct ControlPlaneLostTests {
    private static let price = AcceptancePolicy.fixedPrice
    /// Requests that the tier lets each of its users make.
    private static let allowed: Int64 = 5

    /// A tier for each way to go on, and a request of a fixed price that all of them may make.
    private func policy(in folder: TemporaryFolder) throws -> AcceptancePolicy {
        let policy = try AcceptancePolicy(in: folder)
        func usd(_ count: Int64) -> String { NanoUSD(count * Self.price.rawValue).usd }
        var text = ""
        for (name, lost, lease) in [
            ("inside", "insideLeases", usd(2)), ("refused", "refuse", usd(50)),
            ("allowed", "{allowUpTo: \"\(usd(Self.allowed))\"}\n  dailyRequests: 1000", usd(2)),
        ] {
            text += """
                apiVersion: weir.mesh/v1
                kind: Tier
                metadata:
                  name: \(name)
                spec:
                  monthlyBudget: "\(usd(100))"
                  agents: [finbert]
                  priority: 0
                  maxLease: "\(lease)"
                  whenControlPlaneIsLost: \(lost)
                ---

                """
        }
        text += """
            apiVersion: weir.mesh/v1
            kind: RequestType
            metadata:
              name: sentiment_only
            spec:
              timeout: 20s
              inputSchema:
                type: object
                required: [text]
                properties:
                  text: {type: string}
              steps:
                - name: sentiment
                  agents: {inside: [finbert], refused: [finbert], allowed: [finbert]}
                  input:
                    text: /data/text
                  timeout: 15s
            """
        try policy.add("lost.yaml", text)
        return policy
    }

    /// The reason of a refusal; `nil` for an answer.
    private func ask(_ mesh: Mesh, as tier: String) async throws -> String? {
        let answer = try await mesh.analyze(
            AcceptancePolicy.sentimentOnly, user: "user-\(tier)", tier: tier)
        if answer.status == 200 { return nil }
        let reason = try answer.json()["reason"]?.string ?? answer.text
        if reason == "control_plane_lost" {
            #expect(answer.status == 503)
            #expect(answer.header("retry-after") != nil)
        }
        return reason
    }

    @Test func `each tier goes on without a control plane as it says`() async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let options = Mesh.Options(
            agents: ["finbert", "llama2-7b"], policyFolder: try policy(in: folder).path)
        try await Mesh.run(options) { mesh in
            for tier in ["inside", "refused"] { #expect(try await ask(mesh, as: tier) == nil) }
            try await mesh.controlPlane.process.killAtOnce()

            try await eventually(
                "its users are refused", within: .seconds(60), every: .milliseconds(400)
            ) {
                try await ask(mesh, as: "refused") == "control_plane_lost"
            }
            let atRefusal = try await mesh.agentAttempts("finbert")
            // There was money for ten times as many.
            #expect(atRefusal < 40)
            for _ in 0..<5 {
                #expect(try await ask(mesh, as: "refused") == "control_plane_lost")
            }
            #expect(try await mesh.agentAttempts("finbert") == atRefusal)

            // What is in hand is at most two worst cases.
            var served = 0
            try await eventually("what was in hand is spent", within: .seconds(60)) {
                let reason = try await ask(mesh, as: "inside")
                if reason == nil { served += 1 }
                return reason == "control_plane_lost"
            }
            #expect(served <= 2)

            try mesh.controlPlane.startAgain()
            try await mesh.controlPlane.ready()
            for tier in ["inside", "refused"] {
                try await eventually("\(tier) is served again", within: .seconds(60)) {
                    try await ask(mesh, as: tier) == nil
                }
            }
        }
    }

    /// What the gateway holds of the user's accounts in money, by scope.
    private func held(_ mesh: Mesh, by user: String) async throws -> [String: NanoUSD] {
        let path = "/v1/ledger/holders"
        let list = try await mesh.api.get(path, headers: mesh.adminHeaders).json()
        var held: [String: NanoUSD] = [:]
        for holder in list["holders"]?.array ?? [] {
            let number = try #require(holder["incarnation"]?.int64)
            let one = try await mesh.api.get("\(path)/\(number)", headers: mesh.adminHeaders)
            for share in try one.json()["accounts"]?.array ?? [] {
                let parts = (share["account"]?.string ?? "").split(separator: "/")
                guard parts.count == 4, parts[0] == "usd", parts[3] == user else { continue }
                held[String(parts[1])] = NanoUSD(usd: share["amount"]?.string ?? "")
            }
        }
        return held
    }

    @Test func `a tier lets each user spend so much without a control plane, and no more`()
        async throws
    {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let options = Mesh.Options(
            agents: ["finbert", "llama2-7b"], policyFolder: try policy(in: folder).path)
        try await Mesh.run(options) { mesh in
            for tier in ["inside", "refused", "allowed"] {
                #expect(try await ask(mesh, as: tier) == nil)
            }
            let amount = NanoUSD(Self.allowed * Self.price.rawValue)
            try await eventually("it is set aside in advance", within: .seconds(30)) {
                let held = try await held(mesh, by: "user-allowed")
                return held["standby"] == amount && held["user"] ?? .zero >= amount
            }
            try await mesh.controlPlane.process.killAtOnce()
            try await eventually("its loss is noticed", within: .seconds(60)) {
                try await ask(mesh, as: "refused") == "control_plane_lost"
            }
            // Until every lease that is good for a minute has ended.
            let life = Duration.milliseconds(LedgerLimits.leaseMilliseconds)
            try await steadily("nobody is served whose tier refuses", for: life) {
                try await ask(mesh, as: "refused") == "control_plane_lost"
            }
            #expect(try await ask(mesh, as: "inside") == "control_plane_lost")
            var served: Int64 = 0
            while try await ask(mesh, as: "allowed") == nil, served < 100 { served += 1 }
            #expect(served == Self.allowed)
            #expect(try await ask(mesh, as: "allowed") == "control_plane_lost")

            try mesh.controlPlane.startAgain()
            try await mesh.controlPlane.ready()
            let spent = NanoUSD((1 + Self.allowed) * Self.price.rawValue)
            let books = try await mesh.settledBooks(of: "user-allowed", within: .seconds(60))
            #expect(books.consumed == spent)
            try await eventually("the user is served again", within: .seconds(60)) {
                try await ask(mesh, as: "allowed") == nil
            }
        }
    }
}
