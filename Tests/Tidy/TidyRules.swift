import Foundation

/// What a rule found, in the form in which editors jump to it.
struct Finding: Equatable, CustomStringConvertible {
    let path: String
    /// From 1; 0 means the file as a whole.
    let line: Int
    let message: String

    var description: String { "\(path):\(line): \(message)" }
}

/// Words and calls that this repository does without, and what to use in their place.
struct Ban: Sendable {
    let pattern: String
    let instead: String
    /// The rule holds below these folders…
    var folders = ["Sources/", "Tests/"]
    /// …but not here. Each exception says why.
    var except: [String] = []
    /// Markers are looked for in comments, too; calls only in code.
    var inProse = false

    static let all: [Ban] = [
        Ban(
            // In pieces, so that this line does not find itself.
            pattern: #"\b(TO"# + #"DO|FIX"# + #"ME|XX"# + #"X|HA"# + #"CK)\b"#,
            instead: "finish it, or open an issue", inProse: true),
        Ban(
            pattern: #"\bfatalError\("#,
            instead:
                "throw what a peer causes; preconditionFailure with state and event for the rest"),
        Ban(pattern: #"\btry!"#, instead: "handle the error, or let the caller"),
        Ban(pattern: #"\bas! "#, instead: "as? and a case for nil"),
        Ban(
            pattern: #"^\s*(@\w+\s+)*(public|open) "#,
            instead: "package: nobody imports this project",
            folders: ["Sources/"]),
        Ban(
            pattern: #"^\s*(@\w+\s+)*((private|internal|package) )?import (Foundation|NIO)"#,
            instead: "Glibc, CLinux and what WeirCore has: the sidecar links neither",
            folders: ["Sources/Sidecar/", "Sources/Common/"]),
        Ban(
            pattern: #"\b(Task|clock|Thread)\.sleep\b|\busleep\(|\bnanosleep\(|\bsleep\("#,
            instead: "eventually(within:): wait for the condition, not for time to pass",
            folders: ["Tests/"],
            except: [
                // The poll itself.
                "Tests/Integration/Harness/Eventually.swift",
                "Tests/ControlPlane/Store/Eventually.swift",
                // Programs whose purpose is to take time.
                "Tests/SampleAgents/",
            ]),
    ]

    func applies(to path: String) -> Bool {
        folders.contains(where: path.hasPrefix) && !except.contains(where: path.hasPrefix)
    }
}

enum TidyRules {
    static let fileLinesMax = 600
    static let functionLinesMax = 70
    static let columnsMax = 100

    static func sizes(_ file: SourceFile) -> [Finding] {
        var findings: [Finding] = []
        if file.lines.count > fileLinesMax {
            findings.append(
                Finding(
                    path: file.path, line: 0,
                    message: "\(file.lines.count) lines; at most \(fileLinesMax)"))
        }
        for (index, line) in file.lines.enumerated() where line.count > columnsMax {
            findings.append(
                Finding(
                    path: file.path, line: index + 1,
                    message: "\(line.count) columns; at most \(columnsMax)"))
        }
        for function in functions(file) where function.lines > functionLinesMax {
            findings.append(
                Finding(
                    path: file.path, line: function.line,
                    message: "\(function.lines) lines in one function; at most \(functionLinesMax)")
            )
        }
        return findings
    }

    static func bans(_ file: SourceFile, _ bans: [Ban] = Ban.all) throws -> [Finding] {
        var findings: [Finding] = []
        let code = file.code
        for ban in bans where ban.applies(to: file.path) {
            let regex = try Regex(ban.pattern)
            for (index, line) in file.lines.enumerated() {
                let text = ban.inProse ? String(line) : code[index]
                guard let match = text.firstMatch(of: regex), !isExcused(index, in: file) else {
                    continue
                }
                let found = text[match.range].trimmingCharacters(in: .whitespaces)
                findings.append(
                    Finding(
                        path: file.path, line: index + 1,
                        message: "\(found): instead, \(ban.instead)"))
            }
        }
        return findings
    }

    /// An exception says why on the spot: `// tidy: REASON` on the line or on the one before it.
    private static func isExcused(_ index: Int, in file: SourceFile) -> Bool {
        file.lines[max(0, index - 1)...index].contains {
            $0.contains(/\/\/ tidy: \S+ \S+/)
        }
    }

    /// Functions and initializers with a body of several lines: from the line of the keyword to the
    /// brace that closes at the same indent. The formatter guarantees that indent, so no parser is
    /// needed.
    static func functions(_ file: SourceFile) -> [(line: Int, lines: Int)] {
        let code = file.code
        return code.indices.compactMap { start in
            guard startsFunction(code[start]), let end = end(ofFunctionAt: start, in: code) else {
                return nil
            }
            return (line: start + 1, lines: end - start + 1)
        }
    }

    /// nil for what has no body, as in a protocol, or a body on the same line.
    private static func end(ofFunctionAt start: Int, in code: [String]) -> Int? {
        let indent = indent(of: code[start])
        var isOpen = code[start].hasSuffix("{")
        for index in (start + 1)..<max(start + 1, code.count) {
            let line = code[index]
            let text = line.drop { $0 == " " }
            if text.isEmpty || self.indent(of: line) > indent { continue }
            guard self.indent(of: line) == indent else { return nil }
            if isOpen { return text.hasPrefix("}") ? index : nil }
            // The rest of a head that was wrapped.
            guard text.hasPrefix(")") || text.hasPrefix("{") || text.hasPrefix("where ") else {
                return nil
            }
            isOpen = text.hasSuffix("{")
        }
        return nil
    }

    private static func indent(of line: String) -> Int { line.prefix { $0 == " " }.count }

    private static func startsFunction(_ line: String) -> Bool {
        var words = line.split(separator: " ")[...]
        while let word = words.first, modifiers.contains(word) || word.hasPrefix("@") {
            words = words.dropFirst()
        }
        guard let word = words.first else { return false }
        return word == "func" || word == "deinit"
            || ["init(", "init?(", "init<", "subscript(", "subscript<"].contains {
                word.hasPrefix($0)
            }
    }

    private static let modifiers: Set<Substring> = [
        "private", "fileprivate", "package", "internal", "static", "class", "final", "override",
        "mutating", "consuming", "borrowing", "nonisolated", "required", "convenience",
    ]
}
