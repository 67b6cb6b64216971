import Foundation
import Testing

/// A document of promises in which each row of each table names the test that shows it:
/// `| promise | `file` | `name` |`.
struct NamedTests {
    struct Row {
        let promise: String
        let path: String
        let name: String
    }

    struct Part {
        let title: String
        let rows: [Row]
        /// Lines of its tables, their heads not among them.
        let lineCount: Int
    }

    let parts: [Part]

    init(document: String) throws {
        parts = try Self.text(document).components(separatedBy: "\n## ").dropFirst().map { part in
            Part(
                title: part.components(separatedBy: "\n")[0], rows: Self.rows(part),
                lineCount: part.split(separator: "\n").filter { $0.hasPrefix("| ") }.count - 1)
        }
    }

    /// Every row's file is there and has the name, and no row is without a test.
    func check() {
        for part in parts {
            #expect(
                !part.rows.isEmpty && part.rows.count == part.lineCount,
                "a row without a test: \(part.title)")
            for row in part.rows {
                let test = (try? Self.text(row.path)) ?? ""
                #expect(test.contains(row.name), "\(row.promise): \(row.path) has no \(row.name)")
            }
        }
    }

    /// Every row's file says what its promise calls by name (`…`). Returns those names.
    func checkNames() -> Set<String> {
        var promised: Set<String> = []
        for row in parts.flatMap(\.rows) {
            let test = (try? Self.text(row.path)) ?? ""
            let names = row.promise.matches(of: /`([^`]+)`/).map { String($0.output.1) }
            for name in names {
                #expect(test.contains(name), "\(row.path) does not say \(name)")
            }
            promised.formUnion(names)
        }
        return promised
    }

    private static func text(_ path: String) throws -> String {
        try String(contentsOf: SourceFile.root.appendingPathComponent(path), encoding: .utf8)
    }

    private static func rows(_ part: String) -> [Row] {
        part.split(separator: "\n").filter { $0.hasSuffix("` |") }.compactMap { line in
            let cells = line.components(separatedBy: " | ")
            guard cells.count == 3 else { return nil }
            return Row(
                promise: String(cells[0].dropFirst(2)),
                path: cells[1].replacingOccurrences(of: "`", with: ""),
                name: String(cells[2].dropFirst().dropLast(3)))
        }
    }
}
