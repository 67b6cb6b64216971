import Foundation
import WeirCore
import WeirYAML

/// Policy documents out of files and folders, each with where it came from, so that a problem names
/// the file and not a position in a bundle that nobody wrote.
struct PolicyFiles: Sendable {
    static let fileBytesMax = 4 << 20
    static let filesMax = 2_000
    private static let suffixes = [".yaml", ".yml", ".json"]

    private(set) var documents: [JSONValue] = []
    /// One for each document.
    private var origins: [(file: String, position: Int, of: Int)] = []
    private var failures: [String] = []

    /// Reads everything; throws all that is wrong with the files, not the first thing.
    init(_ paths: [String]) throws {
        for path in paths {
            for file in try Self.files(at: path) { read(file) }
        }
        guard failures.isEmpty else { throw Failure(failures.joined(separator: "\n")) }
        guard !documents.isEmpty else {
            throw Failure("no policy documents in \(paths.joined(separator: ", "))")
        }
    }

    private static func files(at path: String) throws -> [String] {
        var isDirectory: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory) else {
            throw Failure("\(path): no such file or folder")
        }
        guard isDirectory.boolValue else { return [path] }
        let found = (FileManager.default.enumerator(atPath: path)?.allObjects ?? [])
            .compactMap { $0 as? String }
            .filter { name in suffixes.contains { name.hasSuffix($0) } && !isHidden(name) }
            .sorted()
        guard found.count <= filesMax else {
            throw Failure("\(path): more than \(filesMax) policy files")
        }
        let base = path.hasSuffix("/") ? path : path + "/"
        return found.map { base + $0 }
    }

    /// A mounted ConfigMap holds each document twice: as a link, and behind it in a hidden folder.
    private static func isHidden(_ name: String) -> Bool {
        name.split(separator: "/").contains { $0.hasPrefix(".") }
    }

    private mutating func read(_ file: String) {
        guard let data = FileManager.default.contents(atPath: file) else {
            failures.append("\(file): cannot be read")
            return
        }
        guard data.count <= Self.fileBytesMax else {
            failures.append("\(file): more than \(Self.fileBytesMax) bytes")
            return
        }
        do {
            let read = try PolicyText.documents(
                in: Array(data), format: file.hasSuffix(".json") ? .json : .yaml)
            for (index, document) in read.enumerated() {
                documents.append(document)
                origins.append((file, index + 1, read.count))
            }
        } catch {
            failures += error.list.map { "\(file): \($0.message)" }
        }
    }

    /// The problem in the words of the files: "agents.yaml (document 2): /spec/path: …".
    func describe(_ problem: Problem) -> String {
        guard let pointer = JSONPointer(problem.path), pointer.tokens.first == "documents",
            let index = pointer.tokens.dropFirst().first.flatMap({ Int($0) }),
            origins.indices.contains(index)
        else { return problem.description }
        let origin = origins[index]
        let place = origin.of > 1 ? "\(origin.file) (document \(origin.position))" : origin.file
        let rest = JSONPointer(Array(pointer.tokens.dropFirst(2))).description
        return "\(place): \(rest.isEmpty ? "" : rest + ": ")\(problem.message)"
    }

    func describe(_ problems: [Problem]) -> String {
        problems.map { "  " + describe($0) }.joined(separator: "\n")
    }
}
