import WeirCore

/// A JSON Schema (2020-12) in the subset that `docs/schema.md` states. No references and no
/// patterns, so that checking a document takes time in proportion to its size and to that of the
/// schema. A keyword outside the subset is a problem of the policy, because ignoring it would
/// accept what its author meant to refuse.
package struct JSONSchema: Hashable, Sendable {
    package enum Kind: String, Hashable, Sendable, CaseIterable {
        case null, boolean, integer, number, string, array, object
    }

    /// As it was written.
    package let document: JSONValue
    let root: Node

    /// What one place of a document may be. What is absent demands nothing.
    struct Node: Sendable {
        var kinds: Set<Kind> = []
        var choices: [JSONValue]?
        var alternatives: [Node] = []
        // Objects.
        var required: [String] = []
        var properties: [String: Node] = [:]
        var additional: Additional = .any
        var memberCount = Bounds<Int>()
        // Arrays. A list of one, because a struct cannot hold itself.
        var items: [Node] = []
        var count = Bounds<Int>()
        var isUnique = false
        // Strings and numbers.
        var length = Bounds<Int>()
        var format: Format?
        var range = Bounds<Double>()
    }

    enum Additional: Sendable {
        case any, none
        indirect case each(Node)
    }

    struct Bounds<Value: Comparable & Sendable>: Sendable {
        var min: Value?
        var max: Value?
        var exclusiveMin: Value?
        var exclusiveMax: Value?

        func message(_ value: Value, _ noun: String) -> String? {
            if let min, value < min { return "\(noun) must be at least \(min)" }
            if let max, value > max { return "\(noun) must be at most \(max)" }
            if let exclusiveMin, value <= exclusiveMin {
                return "\(noun) must be above \(exclusiveMin)"
            }
            if let exclusiveMax, value >= exclusiveMax {
                return "\(noun) must be below \(exclusiveMax)"
            }
            return nil
        }
    }

    // Schemas are equal if their documents are: all else follows from them.
    package static func == (left: JSONSchema, right: JSONSchema) -> Bool {
        left.document == right.document
    }

    package func hash(into hasher: inout Hasher) { hasher.combine(document) }

    /// Everything that is wrong with a document; paths begin with `path`. Empty for a valid one.
    package func problems(with value: JSONValue, at path: JSONPointer = JSONPointer([]))
        -> [Problem]
    {
        let problems = ProblemList()
        root.check(value, at: path, problems)
        return problems.list
    }

    /// Whether a pointer can lead anywhere: each of its steps is declared, or lies in a value of
    /// which nothing is declared.
    func declares(_ tokens: some Sequence<String>) -> Bool { root.declares(Array(tokens)[...]) }
}

extension JSONSchema.Node {
    /// What is inside of it is not described.
    private var isFree: Bool {
        guard properties.isEmpty, items.isEmpty, case .any = additional else { return false }
        return kinds.isEmpty || kinds.contains(.object) || kinds.contains(.array)
    }

    fileprivate func declares(_ tokens: ArraySlice<String>) -> Bool {
        guard let token = tokens.first else { return true }
        let rest = tokens.dropFirst()
        if let property = properties[token] { return property.declares(rest) }
        if let item = items.first, Int(token) != nil { return item.declares(rest) }
        if case .each(let node) = additional { return node.declares(rest) }
        // An alternative that only demands members declares none.
        if alternatives.contains(where: { !$0.isFree && $0.declares(tokens) }) { return true }
        return isFree && alternatives.allSatisfy(\.isFree)
    }
}
