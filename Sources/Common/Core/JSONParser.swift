/// Why a text is not the JSON that we take, and at which byte.
package struct JSONError: Error, Hashable, Sendable, CustomStringConvertible {
    package enum Kind: Hashable, Sendable {
        case malformed, invalidUTF8, duplicateKey, tooDeep, tooManyValues
    }

    package let kind: Kind
    package let offset: Int
    package let detail: String

    package var description: String { "\(detail) at byte \(offset)" }
}

package enum JSON {
    /// Reads one strict RFC 8259 document. Refused beyond the grammar: duplicate keys (two readers
    /// could see two documents), invalid UTF-8, lone surrogates, more than `depthMax` levels or
    /// `valuesMax` values.
    package static func parse(
        _ bytes: [UInt8], depthMax: Int = 64, valuesMax: Int = 1_000_000
    ) throws(JSONError) -> JSONValue {
        var parser = JSONParser(bytes: bytes, depthMax: depthMax, valuesLeft: valuesMax)
        return try parser.document()
    }

    package static func parse(_ text: String) throws(JSONError) -> JSONValue {
        try parse(Array(text.utf8))
    }
}

private struct JSONParser {
    let bytes: [UInt8]
    let depthMax: Int
    var valuesLeft: Int
    var position = 0

    init(bytes: [UInt8], depthMax: Int, valuesLeft: Int) {
        self.bytes = bytes
        self.depthMax = depthMax
        self.valuesLeft = valuesLeft
    }

    mutating func document() throws(JSONError) -> JSONValue {
        skipSpace()
        let result = try value(depth: 0)
        skipSpace()
        guard position == bytes.count else { throw malformed("text after the document") }
        return result
    }

    private func malformed(_ detail: String) -> JSONError {
        JSONError(kind: .malformed, offset: position, detail: detail)
    }

    private var current: UInt8? { position < bytes.count ? bytes[position] : nil }

    private mutating func skipSpace() {
        while position < bytes.count {
            switch bytes[position] {
            case 0x20, 0x09, 0x0A, 0x0D: position += 1
            default: return
            }
        }
    }

    private mutating func value(depth: Int) throws(JSONError) -> JSONValue {
        valuesLeft -= 1
        guard valuesLeft >= 0 else {
            throw JSONError(kind: .tooManyValues, offset: position, detail: "too many values")
        }
        guard let byte = current else {
            throw malformed("the text ends where a value is needed")
        }
        switch byte {
        case UInt8(ascii: "{"): return .object(try object(depth: depth + 1))
        case UInt8(ascii: "["): return .array(try array(depth: depth + 1))
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return .number(try number())
        default: throw malformed("a value cannot begin here")
        }
    }

    private func checkDepth(_ depth: Int) throws(JSONError) {
        guard depth <= depthMax else {
            throw JSONError(
                kind: .tooDeep, offset: position, detail: "nested more than \(depthMax) deep")
        }
    }

    private mutating func object(depth: Int) throws(JSONError) -> JSONObject {
        try checkDepth(depth)
        position += 1
        var object = JSONObject()
        skipSpace()
        if current == UInt8(ascii: "}") {
            position += 1
            return object
        }
        while true {
            guard current == UInt8(ascii: "\"") else { throw malformed("a key is needed") }
            let keyOffset = position
            let key = try string()
            skipSpace()
            guard current == UInt8(ascii: ":") else { throw malformed("a colon is needed") }
            position += 1
            skipSpace()
            guard object.insert(key, try value(depth: depth)) else {
                throw JSONError(
                    kind: .duplicateKey, offset: keyOffset, detail: "the key \"\(key)\" repeats")
            }
            skipSpace()
            if try !continues(closedBy: UInt8(ascii: "}")) { return object }
        }
    }

    private mutating func array(depth: Int) throws(JSONError) -> [JSONValue] {
        try checkDepth(depth)
        position += 1
        var array: [JSONValue] = []
        skipSpace()
        if current == UInt8(ascii: "]") {
            position += 1
            return array
        }
        while true {
            array.append(try value(depth: depth))
            skipSpace()
            if try !continues(closedBy: UInt8(ascii: "]")) { return array }
        }
    }

    /// Takes a comma (`true`) or the closing byte (`false`).
    private mutating func continues(closedBy close: UInt8) throws(JSONError) -> Bool {
        switch current {
        case UInt8(ascii: ","):
            position += 1
            skipSpace()
            return true
        case close:
            position += 1
            return false
        default: throw malformed("a comma or the end is needed")
        }
    }

    private mutating func word(_ word: StaticString, _ value: JSONValue) throws(JSONError)
        -> JSONValue
    {
        let length = word.utf8CodeUnitCount
        guard position + length <= bytes.count,
            bytes[position..<position + length].elementsEqual("\(word)".utf8)
        else { throw malformed("a value cannot begin here") }
        position += length
        return value
    }

    private mutating func digits() -> Int {
        let start = position
        while let byte = current, (48...57).contains(byte) { position += 1 }
        return position - start
    }

    private mutating func number() throws(JSONError) -> JSONNumber {
        let start = position
        if current == UInt8(ascii: "-") { position += 1 }
        if current == UInt8(ascii: "0") {
            position += 1
        } else if digits() == 0 {
            throw malformed("a digit is needed")
        }
        if current == UInt8(ascii: ".") {
            position += 1
            if digits() == 0 { throw malformed("a digit is needed after the point") }
        }
        if current == UInt8(ascii: "e") || current == UInt8(ascii: "E") {
            position += 1
            if current == UInt8(ascii: "+") || current == UInt8(ascii: "-") { position += 1 }
            if digits() == 0 { throw malformed("a digit is needed in the exponent") }
        }
        let literal = String(decoding: bytes[start..<position], as: UTF8.self)
        guard let value = Double(literal), value.isFinite else {
            throw JSONError(kind: .malformed, offset: start, detail: "the number is out of range")
        }
        return JSONNumber(checkedLiteral: literal)
    }

    private mutating func string() throws(JSONError) -> String {
        position += 1
        let start = position
        position += runCount
        switch current {
        case UInt8(ascii: "\""):
            let text = try utf8(bytes[start..<position], at: start)
            position += 1
            return text
        case UInt8(ascii: "\\"): return try escapedString(from: start)
        case nil: throw malformed("the string does not end")
        default: throw malformed("a control character in a string")
        }
    }

    /// The bytes from here on that stand for themselves.
    private var runCount: Int {
        bytes.withUnsafeBytes { JSONRun.count(UnsafeRawBufferPointer(rebasing: $0[position...])) }
    }

    private func utf8(_ content: ArraySlice<UInt8>, at offset: Int) throws(JSONError) -> String {
        let text = content.withUnsafeBufferPointer { String(validating: $0, as: UTF8.self) }
        guard let text else {
            throw JSONError(kind: .invalidUTF8, offset: offset, detail: "invalid UTF-8")
        }
        return text
    }

    private mutating func escapedString(from start: Int) throws(JSONError) -> String {
        var content = Array(bytes[start..<position])
        while let byte = current {
            switch byte {
            case UInt8(ascii: "\""):
                position += 1
                return try utf8(content[...], at: start)
            case UInt8(ascii: "\\"):
                position += 1
                try escape(into: &content)
            case 0..<0x20: throw malformed("a control character in a string")
            default:
                let end = position + runCount
                content.append(contentsOf: bytes[position..<end])
                position = end
            }
        }
        throw malformed("the string does not end")
    }

    private mutating func escape(into content: inout [UInt8]) throws(JSONError) {
        guard let byte = current else { throw malformed("the string does not end") }
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): content.append(byte)
        case UInt8(ascii: "b"): content.append(8)
        case UInt8(ascii: "f"): content.append(12)
        case UInt8(ascii: "n"): content.append(10)
        case UInt8(ascii: "r"): content.append(13)
        case UInt8(ascii: "t"): content.append(9)
        case UInt8(ascii: "u"): content.append(contentsOf: try unicodeEscape())
        default: throw malformed("an unknown escape")
        }
    }

    private mutating func unicodeEscape() throws(JSONError) -> [UInt8] {
        var code = UInt32(try hexUnit())
        if (0xD800..<0xDC00).contains(code) {
            guard current == UInt8(ascii: "\\"), position + 1 < bytes.count,
                bytes[position + 1] == UInt8(ascii: "u")
            else { throw malformed("a lone surrogate") }
            position += 2
            let low = UInt32(try hexUnit())
            guard (0xDC00..<0xE000).contains(low) else { throw malformed("a lone surrogate") }
            code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
        }
        guard let scalar = Unicode.Scalar(code) else { throw malformed("a lone surrogate") }
        return Array(String(Character(scalar)).utf8)
    }

    private mutating func hexUnit() throws(JSONError) -> UInt16 {
        guard position + 4 <= bytes.count else { throw malformed("the escape does not end") }
        var unit: UInt16 = 0
        for _ in 0..<4 {
            let byte = bytes[position]
            switch byte {
            case 48...57: unit = unit << 4 | UInt16(byte - 48)
            case 65...70: unit = unit << 4 | UInt16(byte - 55)
            case 97...102: unit = unit << 4 | UInt16(byte - 87)
            default: throw malformed("four hexadecimal digits are needed")
            }
            position += 1
        }
        return unit
    }
}
