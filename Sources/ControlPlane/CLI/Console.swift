import Foundation
import WeirCore
import WeirYAML

/// Standard output carries what was asked for, standard error everything else, so that the output
/// can be piped.
enum Console {
    static func print(_ text: String) {
        FileHandle.standardOutput.write(Data((text + "\n").utf8))
    }

    static func error(_ text: String) {
        FileHandle.standardError.write(Data((text + "\n").utf8))
    }
}

/// How a resource is printed.
enum OutputFormat: String, CaseIterable, Sendable {
    case table, json, yaml

    func print(_ value: JSONValue, table: () -> Table) throws {
        switch self {
        case .json: Console.print(value.prettyText)
        case .yaml: Console.print(try YAMLDocuments.write(value).droppingFinalNewline)
        case .table: Console.print(table().text)
        }
    }
}

extension String {
    var droppingFinalNewline: String { hasSuffix("\n") ? String(dropLast()) : self }
}

/// Columns under upper-case headings, as kubectl prints them.
struct Table {
    var headings: [String]
    var rows: [[String]] = []
    /// Shown instead when there are no rows.
    var placeholder = "No resources found."

    var text: String {
        guard !rows.isEmpty else { return placeholder }
        let lines = [headings] + rows
        let widths = headings.indices.map { column in
            lines.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0
        }
        return lines.map { line in
            let cells = zip(line, widths).map { cell, width in
                cell + String(repeating: " ", count: max(0, width - cell.count))
            }
            var text = cells.joined(separator: "   ")
            while text.hasSuffix(" ") { text.removeLast() }
            return text
        }.joined(separator: "\n")
    }
}
