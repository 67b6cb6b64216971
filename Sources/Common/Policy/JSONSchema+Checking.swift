import WeirCore

extension JSONSchema.Node {
    func check(_ value: JSONValue, at path: JSONPointer, _ problems: ProblemList) {
        guard kinds.isEmpty || kinds.contains(where: { $0.includes(value) }) else {
            let names = kinds.map(\.rawValue).sorted().joined(separator: " or ")
            problems.add(path, "must be of type \(names), not \(value.kindName)")
            return
        }
        if let choices, !choices.contains(where: { ComparedValue($0) == ComparedValue(value) }) {
            let known = choices.map(\.text).joined(separator: ", ")
            problems.add(path, choices.count == 1 ? "must be \(known)" : "must be one of \(known)")
        }
        switch value {
        case .string(let string):
            // JSON Schema counts code points, not graphemes.
            report(length.message(string.unicodeScalars.count, "the length"), path, problems)
            if let format, !format.includes(string) {
                problems.add(path, "must be \(format.example)")
            }
        case .number(let number): report(range.message(number.double, "it"), path, problems)
        case .array(let array): check(array, at: path, problems)
        case .object(let object): check(object, at: path, problems)
        case .null, .bool: break
        }
        checkAlternatives(value, at: path, problems)
    }

    private func report(_ message: String?, _ path: JSONPointer, _ problems: ProblemList) {
        if let message { problems.add(path, message) }
    }

    private func check(_ array: [JSONValue], at path: JSONPointer, _ problems: ProblemList) {
        report(count.message(array.count, "the number of elements"), path, problems)
        var seen: Set<ComparedValue> = []
        for (index, element) in array.enumerated() {
            items.first?.check(element, at: path.appending(index), problems)
            if isUnique, !seen.insert(ComparedValue(element)).inserted {
                problems.add(path.appending(index), "repeats an element before it")
            }
        }
    }

    private func check(_ object: JSONObject, at path: JSONPointer, _ problems: ProblemList) {
        report(memberCount.message(object.count, "the number of members"), path, problems)
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

    /// One of them must fit. If none does, the caller is told what the nearest lacks: those of all
    /// would be problems that nobody has to solve.
    private func checkAlternatives(
        _ value: JSONValue, at path: JSONPointer, _ problems: ProblemList
    ) {
        var nearest: [Problem]?
        for alternative in alternatives {
            let found = ProblemList()
            alternative.check(value, at: path, found)
            if found.list.isEmpty { return }
            if found.list.count < nearest?.count ?? .max { nearest = found.list }
        }
        for problem in nearest ?? [] {
            problems.add(
                JSONPointer(problem.path) ?? path,
                "\(problem.message) (the nearest of \(alternatives.count) alternatives)")
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

/// A value as JSON Schema compares it: numbers by value (1 and 1.0 are the same), objects without
/// order. Its hash covers all of it, so that no choice of elements makes `uniqueItems` slow.
private enum ComparedValue: Hashable {
    case null
    case bool(Bool)
    case number(Double)
    case string(String)
    case array([ComparedValue])
    case object([String: ComparedValue])

    init(_ value: JSONValue) {
        switch value {
        case .null: self = .null
        case .bool(let bool): self = .bool(bool)
        case .number(let number): self = .number(number.double)
        case .string(let string): self = .string(string)
        case .array(let array): self = .array(array.map(ComparedValue.init))
        case .object(let object):
            self = .object(
                Dictionary(
                    object.members.map { ($0.key, ComparedValue($0.value)) },
                    uniquingKeysWith: { _, last in last }))
        }
    }
}
