import Foundation
import Testing

/// `docs/seed-coverage.md` names a test for each promise of the service that this project replaces:
/// every row's file is there and has the name, and no part of the promises is left out.
struct SeedCoverageTests {
    private struct Row {
        let promise: String
        let path: String
        let name: String
    }

    private static let parts = [
        "Multi-Agent Coordination", "Cost Management", "Performance Monitoring",
        "Security & Compliance", "Agent Types", "Request Types", "User Tiers", "Quick Start",
        "API Endpoints", "Configuration", "Monitoring", "Development", "Production Deployment",
        "Security Checklist", "Troubleshooting",
    ]

    private func text(_ path: String) throws -> String {
        try String(contentsOf: SourceFile.root.appendingPathComponent(path), encoding: .utf8)
    }

    private func rows(_ part: String) -> [Row] {
        part.split(separator: "\n").filter { $0.hasSuffix("` |") }.compactMap { line in
            let cells = line.components(separatedBy: " | ")
            guard cells.count == 3 else { return nil }
            return Row(
                promise: String(cells[0].dropFirst(2)),
                path: cells[1].replacingOccurrences(of: "`", with: ""),
                name: String(cells[2].dropFirst().dropLast(3)))
        }
    }

    @Test func `every promise of the service before has a test that is there`() throws {
        let parts = try text("docs/seed-coverage.md").components(separatedBy: "\n## ").dropFirst()
        #expect(parts.map { $0.components(separatedBy: "\n")[0] } == Self.parts)
        for part in parts {
            let rows = rows(part)
            let lines = part.split(separator: "\n").filter { $0.hasPrefix("| ") }
            #expect(!rows.isEmpty && rows.count == lines.count - 1, "a row without a test: \(part)")
            for row in rows {
                let found = (try? text(row.path))?.contains(row.name) ?? false
                #expect(found, "\(row.promise): \(row.path) has no \(row.name)")
            }
        }
    }
}
