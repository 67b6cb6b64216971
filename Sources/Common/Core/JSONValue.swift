/// A JSON document in memory. Objects keep their order and numbers keep their spelling, so that
/// what passes through is not changed.
package enum JSONValue: Hashable, Sendable {
    case null
    case bool(Bool)
    case number(JSONNumber)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)
}

/// A number by its literal: never forced through a floating-point value on its way.
package struct JSONNumber: Hashable, Sendable {
    package let literal: String

    /// The literal must follow RFC 8259 §6; the parser is what makes sure.
    init(checkedLiteral: String) { literal = checkedLiteral }

    package init(_ value: some BinaryInteger) { literal = String(value) }

    /// `nil` for infinities and NaN, which JSON cannot say.
    package init?(_ value: Double) {
        guard value.isFinite else { return nil }
        if let integer = Int64(exactly: value), integer.magnitude < 1 << 53 {
            literal = String(integer)
        } else {
            literal = "\(value)"
        }
    }

    package var int64: Int64? { Int64(literal) }
    package var double: Double { Double(literal) ?? 0 }
}

/// The members of an object in their order; keys are unique.
package struct JSONObject: Hashable, Sendable, ExpressibleByDictionaryLiteral {
    package private(set) var members: [(key: String, value: JSONValue)] = []
    /// Built only where a linear search would be slow.
    private var index: [String: Int] = [:]
    private static let linearMax = 16

    package init() {}

    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        for (key, value) in elements { self[key] = value }
    }

    package var count: Int { members.count }
    package var isEmpty: Bool { members.isEmpty }
    package var keys: [String] { members.map(\.key) }

    package subscript(key: String) -> JSONValue? {
        get { position(of: key).map { members[$0].value } }
        set {
            guard let newValue else { return remove(key) }
            if let position = position(of: key) {
                members[position].value = newValue
            } else {
                append(key, newValue)
            }
        }
    }

    /// Adds a member; `false` when the key is there already, and then nothing changes.
    package mutating func insert(_ key: String, _ value: JSONValue) -> Bool {
        guard position(of: key) == nil else { return false }
        append(key, value)
        return true
    }

    private mutating func append(_ key: String, _ value: JSONValue) {
        members.append((key, value))
        if members.count == Self.linearMax + 1 {
            for (position, member) in members.enumerated() { index[member.key] = position }
        } else if members.count > Self.linearMax {
            index[key] = members.count - 1
        }
    }

    private mutating func remove(_ key: String) {
        let rest = members.filter { $0.key != key }
        self = JSONObject()
        for member in rest { append(member.key, member.value) }
    }

    private func position(of key: String) -> Int? {
        members.count > Self.linearMax
            ? index[key] : members.firstIndex { $0.key == key }
    }

    /// Equality ignores order, as JSON objects do.
    package static func == (left: JSONObject, right: JSONObject) -> Bool {
        left.count == right.count && left.members.allSatisfy { right[$0.key] == $0.value }
    }

    package func hash(into hasher: inout Hasher) {
        hasher.combine(count)
        for key in keys.sorted() { hasher.combine(key) }
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral,
    ExpressibleByBooleanLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
    package init(stringLiteral value: String) { self = .string(value) }
    package init(integerLiteral value: Int64) { self = .number(JSONNumber(value)) }
    package init(booleanLiteral value: Bool) { self = .bool(value) }
    package init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        var object = JSONObject()
        for (key, value) in elements { object[key] = value }
        self = .object(object)
    }
}

extension JSONValue {
    package var object: JSONObject? { if case .object(let object) = self { object } else { nil } }
    package var array: [JSONValue]? { if case .array(let array) = self { array } else { nil } }
    package var string: String? { if case .string(let string) = self { string } else { nil } }
    package var bool: Bool? { if case .bool(let bool) = self { bool } else { nil } }
    package var number: JSONNumber? { if case .number(let number) = self { number } else { nil } }
    package var int64: Int64? { number?.int64 }
    package var double: Double? { number?.double }

    /// The member of an object; `nil` when there is none or this is no object.
    package subscript(key: String) -> JSONValue? { object?[key] }

    package var kindName: String {
        switch self {
        case .null: "null"
        case .bool: "a boolean"
        case .number: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }
}

/// A JSON Pointer (RFC 6901).
package struct JSONPointer: Hashable, Sendable, CustomStringConvertible {
    package let tokens: [String]

    package init(_ tokens: [String]) { self.tokens = tokens }

    /// `nil` when the text is neither empty nor begins with "/", or has a bad escape.
    package init?(_ text: some StringProtocol) {
        guard !text.isEmpty else {
            tokens = []
            return
        }
        guard text.hasPrefix("/") else { return nil }
        var tokens: [String] = []
        for part in text.dropFirst().split(separator: "/", omittingEmptySubsequences: false) {
            guard let token = Self.unescape(part) else { return nil }
            tokens.append(token)
        }
        self.tokens = tokens
    }

    package var description: String {
        tokens.map { "/" + Self.escape($0) }.joined()
    }

    package func appending(_ token: String) -> JSONPointer { JSONPointer(tokens + [token]) }
    package func appending(_ index: Int) -> JSONPointer { appending(String(index)) }

    package func evaluate(_ root: JSONValue) -> JSONValue? {
        var value = root
        for token in tokens {
            switch value {
            case .object(let object):
                guard let next = object[token] else { return nil }
                value = next
            case .array(let array):
                guard let position = Int(token), String(position) == token,
                    array.indices.contains(position)
                else { return nil }
                value = array[position]
            case .null, .bool, .number, .string: return nil
            }
        }
        return value
    }

    package static func escape(_ token: String) -> String {
        var output = ""
        for character in token.unicodeScalars {
            switch character {
            case "~": output += "~0"
            case "/": output += "~1"
            default: output.unicodeScalars.append(character)
            }
        }
        return output
    }

    private static func unescape(_ part: some StringProtocol) -> String? {
        var output = ""
        var escaped = false
        for character in part.unicodeScalars {
            switch (escaped, character) {
            case (true, "0"): output += "~"
            case (true, "1"): output += "/"
            case (true, _): return nil
            case (false, "~"):
                escaped = true
                continue
            case (false, _): output.unicodeScalars.append(character)
            }
            escaped = false
        }
        return escaped ? nil : output
    }
}
