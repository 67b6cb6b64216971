import Foundation
import Testing

/// The README's table of settings against what the programs say of themselves.
@Suite(.timeLimit(.minutes(1)))
struct SettingsTests {
    private struct Row {
        let variables: [String]
        let readers: String
    }

    /// Upper-case names with an underscore, and DEBUG.
    private func variables(in text: some StringProtocol) -> Set<String> {
        let pattern = #/\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b|\bDEBUG\b/#
        return Set(String(text).matches(of: pattern).map { String($0.output) })
    }

    private func table() throws -> [Row] {
        let readme = try String(
            contentsOf: Products.root.appendingPathComponent("README.md"), encoding: .utf8)
        let section = try #require(readme.components(separatedBy: "\n## Settings\n").last)
            .components(separatedBy: "\n## ")[0]
        return section.split(separator: "\n").filter { $0.hasPrefix("| `") }.map { line in
            let cells = line.dropFirst().split(separator: "|", omittingEmptySubsequences: false).map
            { $0.trimmingCharacters(in: .whitespaces) }
            // The flag's cell may be empty.
            return Row(
                variables: variables(in: cells[0]).sorted(), readers: cells[2])
        }
    }

    private func help(_ product: String, _ arguments: [String] = ["--help"]) async throws -> String
    {
        let result = try await Tools.run(Products.path(product), arguments, environment: [:])
        #expect(result.status == 0)
        return result.output
    }

    private func named(_ reader: String, _ rows: [Row]) -> Set<String> {
        Set(rows.filter { $0.readers.contains(reader) }.flatMap(\.variables))
    }

    /// Names of files with secrets are said once, by the secret.
    private func withoutFiles(_ names: Set<String>) -> Set<String> {
        names.filter { !$0.hasSuffix("_FILE") }
    }

    @Test func `the table names what sidecars and gateways read, and nothing else`() async throws {
        let rows = try table()
        let known = withoutFiles(variables(in: try await help("weir-sidecar")))
        #expect(named("sidecar", rows).union(named("gateway", rows)) == known)
    }

    @Test func `the table names what the control plane reads, and nothing else`() async throws {
        let known = withoutFiles(variables(in: try await help("weir-control-plane")))
        #expect(withoutFiles(named("control plane", try table())) == known)
    }

    @Test func `the table names what the command-line tool reads`() async throws {
        var known = withoutFiles(variables(in: try await help("weir")))
        let mint = try await help("weir", ["token", "mint", "--help"])
        known.formUnion(withoutFiles(variables(in: mint)))
        #expect(named("`weir`", try table()) == known)
    }

    @Test func `no variable stands in two rows`() throws {
        let all = try table().flatMap(\.variables)
        #expect(Set(all).count == all.count && all.count > 30)
    }
}
