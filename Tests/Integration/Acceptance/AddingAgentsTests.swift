import Foundation
import Testing
import WeirCore

/// docs/adding-agents.md, followed word for word: its documents are applied, its command starts the
/// sidecar (with this test's addresses), and its request is sent.
@Suite(.timeLimit(.minutes(2)), .serialized)
struct AddingAgentsTests {
    private struct Page {
        let text: String

        init() throws {
            let path = Products.root.appendingPathComponent("docs/adding-agents.md").path
            text = try String(contentsOfFile: path, encoding: .utf8)
        }

        func blocks(_ language: String) -> [String] {
            text.components(separatedBy: "```\(language)\n").dropFirst().compactMap {
                $0.components(separatedBy: "```").first
            }
        }

        /// The words of the command that begins so, its continued lines put together.
        func command(_ name: String) throws -> [String] {
            let lines = blocks("console").joined().replacingOccurrences(of: "\\\n", with: " ")
                .split(separator: "\n")
            let line = try #require(lines.first { $0.hasPrefix("$ \(name) ") })
            return line.split(separator: " ").dropFirst().map(String.init)
        }
    }

    @Test func `an agent and a type of analysis without code`() async throws {
        let page = try Page()
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try await Mesh.run(.init(agents: ["finbert", "llama2-7b"], policyFolder: policy.path)) {
            mesh in
            for (index, block) in page.blocks("yaml").enumerated() {
                try policy.add("added-\(index).yaml", block)
            }
            try await mesh.weir(["apply", "-f", policy.path])
            let sidecar = try sidecar(page, mesh)
            do {
                try await sidecar.ready()
                let request = try #require(page.blocks("json").first)
                let answer = try await eventually("the gateway knows the new agent") {
                    () async throws -> Endpoint.Answer? in
                    let answer = try await mesh.analyze(request, user: "rita", tier: "research")
                    return answer.status == 200 ? answer : nil
                }
                let json = try answer.json()
                #expect(json["status"]?.string == "complete", "\(answer.text)")
                let steps = json["steps"]?.array ?? []
                #expect(steps.map { $0["agent"]?.string } == ["mood", "llama2-7b"])
                #expect(steps.first?["model"]?.string == "acme/mood-1")
                #expect(steps.first?["result"]?["label"]?.string == "positive")
                #expect(steps.first?["cost_usd"]?.string == "0.000200")
                let wrong = try await mesh.analyze(
                    #"{"analysis_type": "headline_mood", "data": {}}"#, user: "rita",
                    tier: "research")
                #expect(wrong.status == 422)
            } catch {
                await sidecar.process.dispose()
                throw error
            }
            await sidecar.process.dispose()
        }
    }

    /// The page's command with the addresses of this mesh.
    private func sidecar(_ page: Page, _ mesh: Mesh) throws -> MeshPart {
        var words = try page.command("weir-sidecar")
        let admin = try Ports.free()
        let addresses = [
            "--listen": "127.0.0.1:\(try Ports.free())",
            "--upstream": "http://127.0.0.1:\(try mesh.agents.port("finbert"))",
            "--admin": "127.0.0.1:\(admin)",
            "--control-plane": "http://127.0.0.1:\(mesh.meshPort)",
            "--data": try mesh.folder.makeFolder("mood"),
        ]
        for (flag, value) in addresses {
            let index = try #require(words.firstIndex(of: flag), "the page has no \(flag)")
            words[index + 1] = value
        }
        return try MeshPart(
            "mood", product: try #require(words.first), arguments: Array(words.dropFirst()),
            environment: ["WEIR_JOIN_TOKEN": Mesh.joinToken], folder: mesh.folder,
            isReady: { try await Endpoint(port: admin).get("/readyz").status == 200 })
    }
}
