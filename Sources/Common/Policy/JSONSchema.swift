import WeirCore

/// A JSON Schema (2020-12) in the subset that `docs/policy.md` states: `type`, `required`,
/// `properties`, `additionalProperties`, `items`, `enum`, the bounds of lengths, counts and
/// numbers, and the annotations. No references and no patterns, so that checking a document takes
/// time in proportion to its size. A keyword outside the subset is a problem of the policy, because
/// ignoring it would accept what its author meant to refuse.
package struct JSONSchema: Hashable, Sendable {
    package enum Kind: String, Hashable, Sendable, CaseIterable {
        case null, boolean, integer, number, string, array, object
    }

    /// As it was written.
    package let document: JSONValue
    let root: Node

    /// What one place of a document may be. Bounds that are absent are `nil`.
    final class Node: Hashable, Sendable {
        let kinds: Set<Kind>
        let required: [String]
        let properties: [String: Node]
        let additional: Additional
        let items: Node?
        let choices: [JSONValue]?
        let length: Bounds<Int>
        let count: Bounds<Int>
        let range: Bounds<Double>

        init(
            kinds: Set<Kind>, required: [String], properties: [String: Node],
            additional: Additional, items: Node?, choices: [JSONValue]?, length: Bounds<Int>,
            count: Bounds<Int>, range: Bounds<Double>
        ) {
            self.kinds = kinds
            self.required = required
            self.properties = properties
            self.additional = additional
            self.items = items
            self.choices = choices
            self.length = length
            self.count = count
            self.range = range
        }

        // Schemas are equal if their documents are; nodes are not compared on their own.
        static func == (left: Node, right: Node) -> Bool { left === right }
        func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(self)) }
    }

    enum Additional: Hashable, Sendable {
        case any, none
        case each(Node)
    }

    struct Bounds<Value: Comparable & Hashable & Sendable>: Hashable, Sendable {
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

    /// Whether a pointer can lead anywhere: each of its steps is declared, or lies in an object
    /// that declares nothing.
    func declares(_ tokens: some Sequence<String>) -> Bool {
        var node: Node? = root
        for token in tokens {
            guard let current = node else { return true }
            if let next = current.properties[token] {
                node = next
            } else if let items = current.items, Int(token) != nil {
                node = items
            } else if case .each(let next) = current.additional {
                node = next
            } else if current.isFree {
                node = nil
            } else {
                return false
            }
        }
        return true
    }

    /// Whether every valid document has a value at a pointer.
    func guarantees(_ tokens: some Sequence<String>) -> Bool {
        var node: Node? = root
        for token in tokens {
            guard let current = node, current.required.contains(token) else { return false }
            node = current.properties[token]
        }
        return true
    }
}

extension JSONSchema.Node {
    var isFree: Bool {
        properties.isEmpty && additional == .any && items == nil
            && (kinds.isEmpty || kinds.contains(.object) || kinds.contains(.array))
    }

    func check(_ value: JSONValue, at path: JSONPointer, _ problems: ProblemList) {
        guard kinds.isEmpty || kinds.contains(where: { $0.includes(value) }) else {
            let names = kinds.map(\.rawValue).sorted().joined(separator: " or ")
            problems.add(path, "must be of type \(names), not \(value.kindName)")
            return
        }
        if let choices, !choices.contains(where: { $0.isSame(as: value) }) {
            let known = choices.map(\.text).joined(separator: ", ")
            problems.add(path, "must be one of \(known)")
        }
        switch value {
        case .string(let string):
            // JSON Schema counts code points, not graphemes.
            report(length.message(string.unicodeScalars.count, "the length"), path, problems)
        case .number(let number): report(range.message(number.double, "it"), path, problems)
        case .array(let array):
            report(count.message(array.count, "the number of elements"), path, problems)
            guard let items else { return }
            for (index, element) in array.enumerated() {
                items.check(element, at: path.appending(index), problems)
            }
        case .object(let object): check(object, at: path, problems)
        case .null, .bool: return
        }
    }

    private func report(_ message: String?, _ path: JSONPointer, _ problems: ProblemList) {
        if let message { problems.add(path, message) }
    }

    private func check(_ object: JSONObject, at path: JSONPointer, _ problems: ProblemList) {
        for key in required where object[key] == nil {
            problems.add(path.appending(key), "is missing")
        }
        for (key, value) in object.members {
            let place = path.appending(key)
            if let property = properties[key] {
                property.check(value, at: place, problems)
                continue
            }
            switch additional {
            case .any: continue
            case .none: problems.add(place, "an unknown field")
            case .each(let node): node.check(value, at: place, problems)
            }
        }
    }
}

extension JSONSchema.Kind {
    func includes(_ value: JSONValue) -> Bool {
        switch (self, value) {
        case (.null, .null), (.boolean, .bool), (.number, .number), (.string, .string),
            (.array, .array), (.object, .object):
            return true
        case (.integer, .number(let number)):
            // "1.0" is an integer to JSON Schema.
            return number.int64 != nil || number.double.rounded() == number.double
        case (.null, _), (.boolean, _), (.number, _), (.string, _), (.array, _), (.object, _),
            (.integer, _):
            return false
        }
    }
}

extension JSONValue {
    /// Numbers are the same by value: 1 and 1.0.
    fileprivate func isSame(as other: JSONValue) -> Bool {
        if let left = double, let right = other.double { return left == right }
        return self == other
    }
}
