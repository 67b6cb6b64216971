import Foundation
import Testing
import WeirCore

/// A provider's key that is replaced in its file goes upstream without a restart, and is nowhere to
/// be seen.
@Suite(.timeLimit(.minutes(2)), .serialized)
struct KeyReloadTests {
    private static let first = "sk-first-key-0123456789"
    private static let second = "sk-second-key-987654321"

    private func authorization(_ mesh: Mesh) async throws -> String? {
        let answer = try await mesh.analyze(AcceptancePolicy.newsAnalysis, tier: "enterprise")
        #expect(answer.status == 200, "\(answer.text)")
        let fields = try await mesh.agents.stats("gpt4-turbo")["last"]?["headers"]?.array ?? []
        let field = fields.first { $0.array?.first?.string == "authorization" }
        return field?.array?.last?.string
    }

    @Test func `a key in a file is read again when it changes`() async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let path = folder.path("openai.key")
        try folder.write("openai.key", Self.first + "\n")
        var options = Mesh.Options(agents: ["finbert", "gpt4-turbo", "llama2-7b"])
        options.environment["gpt4-turbo"] = ["OPENAI_API_KEY_FILE": path]
        try await Mesh.run(options) { mesh in
            #expect(try await authorization(mesh) == "Bearer " + Self.first)
            let pid = try mesh.part("gpt4-turbo").process.pid

            // What is no key is told, and changes nothing.
            try folder.write("openai.key", "two words")
            try await eventually("the file is refused") {
                try mesh.part("gpt4-turbo").log.contains("a key cannot be read again")
            }
            #expect(try await authorization(mesh) == "Bearer " + Self.first)

            try folder.write("openai.key", Self.second + "\n")
            try await eventually("the new key goes upstream") {
                try await authorization(mesh) == "Bearer " + Self.second
            }
            #expect(try mesh.part("gpt4-turbo").process.pid == pid)
            let shown = try await mesh.sidecarAdmin("gpt4-turbo").get("/config").text
            for text in [shown, mesh.logs] {
                #expect(!text.contains(Self.first) && !text.contains(Self.second))
                #expect(!text.contains("two words"))
            }
        }
    }
}
