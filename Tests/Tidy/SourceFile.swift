import Foundation

/// A Swift file of this repository, as the tidy rules see it.
struct SourceFile: CustomStringConvertible {
    /// From the root of the repository, with slashes.
    let path: String
    let lines: [Substring]

    var description: String { path }

    init(path: String, text: String) {
        self.path = path
        lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    }

    /// The lines without comments and without what stands in string literals, so that a rule about
    /// code does not find its words in prose. Line by line, as the rules need it; a literal over
    /// several lines is dropped as a whole.
    var code: [String] {
        var result: [String] = []
        var inMultilineLiteral = false
        for line in lines {
            if line.components(separatedBy: "\"\"\"").count % 2 == 0 {
                inMultilineLiteral.toggle()
                result.append("")
            } else {
                result.append(inMultilineLiteral ? "" : Self.strippingProse(line))
            }
        }
        return result
    }

    private static func strippingProse(_ line: Substring) -> String {
        var result = ""
        var inLiteral = false
        var previous: Character = " "
        for character in line {
            if character == "\"", previous != "\\" {
                inLiteral.toggle()
                result.append(character)
            } else if !inLiteral {
                if character == "/", previous == "/" {
                    result.removeLast()
                    break
                }
                result.append(character)
            }
            previous = character
        }
        return result
    }

    /// All Swift files below the folders of the repository, but for what was built.
    static func all(in folders: [String] = ["Sources", "Tests"]) throws -> [SourceFile] {
        var files: [SourceFile] = []
        for folder in folders {
            let url = root.appendingPathComponent(folder)
            guard let walk = FileManager.default.enumerator(atPath: url.path) else { continue }
            for case let name as String in walk where name.hasSuffix(".swift") {
                let text = try String(
                    contentsOf: url.appendingPathComponent(name), encoding: .utf8)
                files.append(SourceFile(path: folder + "/" + name, text: text))
            }
        }
        return files.sorted { $0.path < $1.path }
    }

    /// This file is Tests/Tidy/SourceFile.swift.
    static let root = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
}
