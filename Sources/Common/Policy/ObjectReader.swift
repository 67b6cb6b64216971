import WeirCore

/// Gathers what is wrong with a set of documents, in the order of discovery.
package final class ProblemList {
    package private(set) var list: [Problem] = []
    private var unlisted = 0

    package init() {}

    package func add(_ path: JSONPointer, _ message: String) {
        guard list.count < PolicyLimits.problemsMax else {
            unlisted += 1
            return
        }
        list.append(Problem(path: path.description, message: message))
    }

    package func throwIfAny() throws(Problems) {
        guard !list.isEmpty else { return }
        let rest = unlisted > 0 ? [Problem(path: "", message: "and \(unlisted) more")] : []
        throw Problems(list + rest)
    }
}

/// Reads one object field by field. A wrong field is reported and read as absent, so that one pass
/// finds every problem; `finish` reports the fields that nobody asked for. `null` is absent, as in
/// Kubernetes.
package final class ObjectReader {
    package let path: JSONPointer
    package let problems: ProblemList
    private let object: JSONObject
    private var asked: Set<String> = []

    package init(_ object: JSONObject, at path: JSONPointer, _ problems: ProblemList) {
        self.object = object
        self.path = path
        self.problems = problems
    }

    /// `nil`, and a problem, when the value is no object.
    package convenience init?(_ value: JSONValue, at path: JSONPointer, _ problems: ProblemList) {
        guard let object = value.object else {
            problems.add(path, "an object is needed, not \(value.kindName)")
            return nil
        }
        self.init(object, at: path, problems)
    }

    package func finish() {
        for key in object.keys where !asked.contains(key) {
            problems.add(path.appending(key), "an unknown field")
        }
    }

    package func report(_ key: String, _ message: String) {
        problems.add(path.appending(key), message)
    }

    package func value(_ key: String, required: Bool = false) -> JSONValue? {
        asked.insert(key)
        if let value = object[key], value != .null { return value }
        if required { report(key, "is missing") }
        return nil
    }

    private func mismatch(_ key: String, _ need: String, _ value: JSONValue) {
        report(key, "\(need) is needed, not \(value.kindName)")
    }

    // MARK: Scalars

    package func string(
        _ key: String, required: Bool = false, bytesMax: Int = PolicyLimits.textBytesMax
    ) -> String? {
        guard let value = value(key, required: required) else { return nil }
        guard let string = value.string else {
            mismatch(key, "a string", value)
            return nil
        }
        guard !string.isEmpty, string.utf8.count <= bytesMax else {
            report(key, string.isEmpty ? "must not be empty" : "is longer than \(bytesMax) bytes")
            return nil
        }
        return string
    }

    package func bool(_ key: String) -> Bool? {
        guard let value = value(key) else { return nil }
        if value.bool == nil { mismatch(key, "a boolean", value) }
        return value.bool
    }

    package func integer(
        _ key: String, in range: ClosedRange<Int64>, required: Bool = false
    ) -> Int64? {
        guard let value = value(key, required: required) else { return nil }
        guard value.number != nil else {
            mismatch(key, "an integer", value)
            return nil
        }
        guard let integer = value.int64, range.contains(integer) else {
            report(key, "must be an integer from \(range.lowerBound) to \(range.upperBound)")
            return nil
        }
        return integer
    }

    /// A count that fits an `Int`.
    package func count(_ key: String, in range: ClosedRange<Int64>, required: Bool = false) -> Int?
    {
        integer(key, in: range, required: required).map { Int($0) }
    }

    package func positiveNumber(_ key: String, max: Double, required: Bool = false) -> Double? {
        guard let value = value(key, required: required) else { return nil }
        guard let number = value.double else {
            mismatch(key, "a number", value)
            return nil
        }
        guard number > 0, number <= max else {
            report(key, "must be above 0 and at most \(max)")
            return nil
        }
        return number
    }

    /// Milliseconds.
    package func duration(
        _ key: String, in range: ClosedRange<Int64> = 1...PolicyLimits.durationMillisecondsMax
    ) -> Int64? {
        guard let value = value(key) else { return nil }
        guard let text = value.string, let milliseconds = DurationText.milliseconds(text) else {
            report(key, "a duration is needed: \"250ms\", \"30s\", \"5m\" or \"1h\"")
            return nil
        }
        guard range.contains(milliseconds) else {
            let low = DurationText.text(milliseconds: range.lowerBound)
            let high = DurationText.text(milliseconds: range.upperBound)
            report(key, "must be from \(low) to \(high)")
            return nil
        }
        return milliseconds
    }

    /// An amount of US dollars, from 0 to the largest limit of an account.
    package func money(_ key: String, required: Bool = false) -> NanoUSD? {
        guard let value = value(key, required: required) else { return nil }
        guard let text = value.string, let amount = NanoUSD(usd: text) else {
            report(
                key, "US dollars are needed, as a decimal string with at most 9 decimals: \"0.25\"")
            return nil
        }
        guard amount >= .zero, amount <= .limitMax else {
            report(key, "must be from 0 to \(NanoUSD.limitMax.usd)")
            return nil
        }
        return amount
    }

    package func choice<Choice: RawRepresentable & CaseIterable>(
        _ key: String, _ type: Choice.Type, required: Bool = false
    ) -> Choice? where Choice.RawValue == String {
        guard let text = string(key, required: required) else { return nil }
        guard let choice = Choice(rawValue: text) else {
            let known = Choice.allCases.map(\.rawValue).joined(separator: ", ")
            report(key, "must be one of \(known)")
            return nil
        }
        return choice
    }

    // MARK: Containers

    package func object(_ key: String, required: Bool = false) -> ObjectReader? {
        value(key, required: required).flatMap {
            ObjectReader($0, at: path.appending(key), problems)
        }
    }

    /// The elements with their places.
    package func elements(
        _ key: String, countMax: Int, required: Bool = false
    ) -> [(value: JSONValue, path: JSONPointer)] {
        guard let value = value(key, required: required) else { return [] }
        guard let array = value.array else {
            mismatch(key, "an array", value)
            return []
        }
        guard array.count <= countMax else {
            report(key, "has more than \(countMax) elements")
            return []
        }
        if required, array.isEmpty { report(key, "must not be empty") }
        let place = path.appending(key)
        return array.enumerated().map { ($0.element, place.appending($0.offset)) }
    }

    /// Members of an object whose keys are names of the user's choice.
    package func members(
        _ key: String, countMax: Int, required: Bool = false
    ) -> [(key: String, value: JSONValue, path: JSONPointer)] {
        guard let reader = object(key, required: required) else { return [] }
        guard reader.object.count <= countMax else {
            report(key, "has more than \(countMax) members")
            return []
        }
        if required, reader.object.isEmpty { report(key, "must not be empty") }
        return reader.object.members.map { ($0.key, $0.value, reader.path.appending($0.key)) }
    }

    /// Different, non-empty strings.
    package func names(_ key: String, countMax: Int, required: Bool = false) -> [String] {
        Self.names(elements(key, countMax: countMax, required: required), problems)
    }

    package static func names(
        _ elements: [(value: JSONValue, path: JSONPointer)], _ problems: ProblemList
    ) -> [String] {
        var names: [String] = []
        for (value, path) in elements {
            guard let name = value.string, !name.isEmpty,
                name.utf8.count <= PolicyLimits.modelIDBytesMax
            else {
                problems.add(path, "a name is needed")
                continue
            }
            if names.contains(name) {
                problems.add(path, "\"\(name)\" repeats")
            } else {
                names.append(name)
            }
        }
        return names
    }
}
