import Foundation
import Testing

/// The rules of the repository that no compiler and no formatter checks.
struct TidyTests {
    @Test func `no file, function or line is too long`() throws {
        let findings = try SourceFile.all().flatMap(TidyRules.sizes)
        #expect(findings.isEmpty, "\(Self.list(findings))")
    }

    @Test func `nothing banned is used`() throws {
        let findings = try SourceFile.all().flatMap { try TidyRules.bans($0) }
        #expect(findings.isEmpty, "\(Self.list(findings))")
    }

    @Test func `every Swift file belongs to a target`() throws {
        let manifest = Manifest(
            try String(
                contentsOf: SourceFile.root.appendingPathComponent("Package.swift"), encoding: .utf8
            ))
        #expect(manifest.targets.count > 10)
        let orphans = try SourceFile.all().map(\.path).filter { !manifest.owns($0) }
        #expect(orphans.isEmpty, "in no target of Package.swift: \(orphans)")
    }

    @Test func `no stub is left`() throws {
        let stubs = try SourceFile.all().map(\.path).filter {
            $0.split(separator: "/").last?.hasPrefix("Stub") == true
        }
        #expect(stubs.isEmpty, "\(stubs)")
    }

    private static func list(_ findings: [Finding]) -> String {
        "\n" + findings.map(\.description).joined(separator: "\n")
    }
}
