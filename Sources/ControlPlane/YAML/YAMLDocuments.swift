import WeirCore
import Yams

/// YAML as people write policies, read into the JSON that the planes exchange. One schema, JSON's
/// own: plain `null`, `~`, `true`, `false` and numbers in JSON's grammar are what they look like,
/// everything else is a string. So a country is not a boolean ("no") and a time not a number
/// ("12:30"), as they would be in YAML 1.1.
package enum YAMLDocuments {
    /// A stream may expand to this many values through its aliases (the "billion laughs").
    package static let valuesMax = 200_000
    package static let documentsMax = 10_000

    /// All documents of a stream; empty ones are skipped. Throws every problem that can be told
    /// apart; a syntax error ends the reading, for nothing after it can be trusted.
    package static func read(_ text: String) throws(Problems) -> [JSONValue] {
        var reader = Reader()
        do {
            let parser = try Yams.Parser(yaml: text, encoding: .utf8)
            while let node = try parser.nextRoot() {
                guard reader.documents.count < documentsMax else {
                    throw Problems([
                        Problem(path: "", message: "more than \(documentsMax) documents")
                    ])
                }
                reader.document(node)
            }
        } catch let problems as Problems {
            throw problems
        } catch {
            throw Problems(reader.problems + [Self.problem(from: error, documents: reader.count)])
        }
        guard reader.problems.isEmpty else { throw Problems(reader.problems) }
        return reader.documents
    }

    /// One document as YAML text, with a final line break.
    package static func write(_ value: JSONValue) throws -> String {
        try Yams.serialize(node: node(value), width: -1, allowUnicode: true)
    }

    private static func problem(from error: any Error, documents: Int) -> Problem {
        func problem(_ mark: Mark, _ text: String) -> Problem {
            Problem(
                path: "/documents/\(documents)",
                message: "line \(mark.line), column \(mark.column): \(text)")
        }
        switch error {
        case YamlError.scanner(_, let text, let mark, _),
            YamlError.parser(_, let text, let mark, _),
            YamlError.composer(_, let text, let mark, _):
            return problem(mark, text)
        case YamlError.duplicatedKeysInMapping(let duplicates, let context):
            return problem(context.mark, "duplicate key \(duplicates.joined(separator: ", "))")
        default:
            return Problem(path: "/documents/\(documents)", message: "not YAML in UTF-8")
        }
    }

    // MARK: - Writing

    private static func node(_ value: JSONValue) -> Node {
        switch value {
        case .null: return plain("null")
        case .bool(let bool): return plain(bool ? "true" : "false")
        case .number(let number): return plain(number.literal)
        case .string(let string):
            let quotes = Scalars.resolve(string) != .string(string) || isTakenElsewhere(string)
            return .scalar(
                Node.Scalar(
                    string, Tag(.str),
                    quotes ? .doubleQuoted : string.contains("\n") ? .literal : .any))
        case .array(let array):
            return .sequence(
                Node.Sequence(array.map(node), Tag(.seq), array.isEmpty ? .flow : .block))
        case .object(let object):
            let pairs = object.members.map { (node(.string($0.key)), node($0.value)) }
            return .mapping(
                Node.Mapping(pairs, Tag(.map), object.isEmpty ? .flow : .block))
        }
    }

    private static func plain(_ text: String) -> Node {
        .scalar(Node.Scalar(text, Tag.implicit, .plain))
    }

    /// Strings that readers of YAML 1.1 would take for something else.
    private static func isTakenElsewhere(_ string: String) -> Bool {
        ["yes", "no", "on", "off", "y", "n", ""].contains(string.lowercased())
            || string.first.map { "0123456789+-.".contains($0) } ?? true
    }
}

/// What a plain scalar means.
enum Scalars {
    static func resolve(_ text: String) -> JSONValue {
        switch text {
        case "", "~", "null", "Null", "NULL": return .null
        case "true", "True", "TRUE": return .bool(true)
        case "false", "False", "FALSE": return .bool(false)
        default: break
        }
        guard let first = text.utf8.first, first == UInt8(ascii: "-") || (48...57).contains(first),
            let number = try? JSON.parse(text), number.number != nil
        else { return .string(text) }
        return number
    }
}

private struct Reader {
    var documents: [JSONValue] = []
    var problems: [Problem] = []
    private var valuesLeft = YAMLDocuments.valuesMax

    var count: Int { documents.count }

    mutating func document(_ node: Node) {
        let path = JSONPointer(["documents", String(documents.count)])
        guard let value = value(node, path), value != .null else { return }
        documents.append(value)
    }

    /// `nil` when there is a problem, which is noted.
    private mutating func value(_ node: Node, _ path: JSONPointer) -> JSONValue? {
        valuesLeft -= 1
        guard valuesLeft > 0 else {
            if valuesLeft == 0 {
                note(path, "the stream expands to more than \(YAMLDocuments.valuesMax) values")
            }
            return nil
        }
        switch node {
        case .scalar(let scalar):
            let isString = scalar.style != .plain || scalar.tag.description == Tag.Name.str.rawValue
            return isString ? .string(scalar.string) : Scalars.resolve(scalar.string)
        case .sequence(let sequence):
            var array: [JSONValue] = []
            for (index, element) in sequence.enumerated() {
                array.append(value(element, path.appending(index)) ?? .null)
            }
            return .array(array)
        case .mapping(let mapping): return object(mapping, path)
        case .alias:
            note(path, "an alias without its anchor")
            return nil
        }
    }

    private mutating func object(_ mapping: Node.Mapping, _ path: JSONPointer) -> JSONValue {
        var object = JSONObject()
        for (key, element) in mapping {
            guard let name = key.scalar?.string else {
                note(path, "a key must be a string")
                continue
            }
            if name == "<<", key.scalar?.style == .plain {
                note(path, "merge keys (<<) are not part of YAML 1.2")
                continue
            }
            let member = value(element, path.appending(name)) ?? .null
            if !object.insert(name, member) { note(path.appending(name), "duplicate key") }
        }
        return .object(object)
    }

    private mutating func note(_ path: JSONPointer, _ message: String) {
        problems.append(Problem(path: path.description, message: message))
    }
}
