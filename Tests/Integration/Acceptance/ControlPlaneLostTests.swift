import Foundation
import Testing
import WeirCore

/// LEDGER rule 11: without a control plane a gateway goes on as the tier of each user says.
@Suite(.timeLimit(.minutes(4)), .serialized)
struct ControlPlaneLostTests {
    private static let price = AcceptancePolicy.fixedPrice

    /// A tier for each way to go on, and a request of a fixed price that all of them may make.
    private func policy(in folder: TemporaryFolder) throws -> AcceptancePolicy {
        let policy = try AcceptancePolicy(in: folder)
        let two = NanoUSD(2 * Self.price.rawValue).usd
        var text = ""
        for (name, lost, lease) in [
            ("inside", "insideLeases", two), ("refused", "refuse", "0.006"),
        ] {
            text += """
                apiVersion: weir.mesh/v1
                kind: Tier
                metadata:
                  name: \(name)
                spec:
                  monthlyBudget: "0.012"
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
                  agents: {inside: [finbert], refused: [finbert]}
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
}
