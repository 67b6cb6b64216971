import Foundation

/// Which folders the targets of Package.swift own, by what the manifest says in so many words: each
/// target is declared with its path, and some with the folders of the path that are theirs.
struct Manifest {
    struct Target {
        let path: String
        /// nil: everything below the path.
        let sources: [String]?
    }

    let targets: [Target]

    init(_ text: String) {
        let declaration = /(?:module|tests|target|executableTarget|systemLibrary)\(/
        var targets: [Target] = []
        for match in text.matches(of: declaration) {
            let arguments = Self.arguments(of: text[match.range.upperBound...])
            guard let path = arguments.firstMatch(of: /"((?:Sources|Tests)\/[^"]+)"/) else {
                continue
            }
            let sources = arguments.firstMatch(of: /sources: \[([^\]]*)\]/).map { list in
                list.1.matches(of: /"([^"]+)"/).map { String($0.1) }
            }
            targets.append(Target(path: String(path.1), sources: sources))
        }
        self.targets = targets
    }

    /// Up to the parenthesis that closes the call.
    private static func arguments(of rest: Substring) -> Substring {
        var depth = 1
        for index in rest.indices {
            if rest[index] == "(" { depth += 1 }
            if rest[index] == ")" { depth -= 1 }
            if depth == 0 { return rest[..<index] }
        }
        return rest
    }

    func owns(_ path: String) -> Bool {
        targets.contains { target in
            guard path.hasPrefix(target.path + "/") else { return false }
            guard let sources = target.sources else { return true }
            return sources.contains {
                // A source is a folder or a file.
                let source = "\(target.path)/\($0)"
                return path == source || path.hasPrefix(source + "/")
            }
        }
    }
}
