import WeirCore
import WeirMeshProtocol

/// Finds usage in a JSON text that comes in pieces, without building a document: one pass, a state
/// of fixed size, no allocation. Grammar is checked as far as structure goes (RFC 8259); what is
/// inside strings that are none of ours is skipped.
///
/// What cannot be trusted is not used: a key of ours that repeats (another reader might take the
/// other one), a count that is no integer of 32 bits, a text that does not end, or more than
/// `depthMax` levels. Keys are compared after their escapes are decoded, because `"us\u0061ge"` is
/// `"usage"` to everybody else.
struct JSONScanner {
    static let depthMax = 64

    enum Status: Equatable { case unfinished, complete, malformed }

    private enum State: UInt8 {
        case value, valueOrEnd, keyOrEnd, key, colon, commaOrEnd
        case string, stringEscape, keyString, keyEscape, keyUnicode
        case number, literal
        case complete, malformed
    }

    private(set) var counts = UsageCounts()
    /// A key of ours repeats, or a count is none.
    private(set) var isDoubtful = false
    /// A member `error` that is not null stands at the top.
    private(set) var hasError = false
    /// `choices` at the top is an empty list: an event of OpenAI's that only carries usage.
    private(set) var hasNoChoices = false

    /// Usage stands at the top, and not in a part of the document.
    var hasTopUsage: Bool { seen & 1 != 0 && !counts.isEmpty }

    // SAFETY: the tree belongs to the policy that the request keeps to its end, and a scanner is
    // part of a request.
    /// Where usage stands, in the place of the forms that are known.
    private unowned(unsafe) let tree: UsageTree?
    private var state = State.value
    /// A bit for each level: 1 is an object.
    private var levels: UInt64 = 0
    private var depth = 0
    /// The nodes of the levels that lead to usage, the innermost in the low byte; `matched` of
    /// them.
    private var path: UInt64 = 0
    private var matched = 0
    private var key = UsagePath.Key()
    private var member = UsagePath.Member.unknown
    private var seen: UInt32 = 0
    private var unicode: UInt32 = 0
    private var unicodeDigits = 0
    private var number: UInt64 = 0
    private var numberDigits = 0
    private var numberIsCount = false
    private var literal: UInt64 = 0
    /// The list that was opened last is `choices`.
    private var isChoices = false

    init(_ tree: UsageTree? = nil) { self.tree = tree }

    var status: Status {
        switch state {
        case .complete: .complete
        case .malformed: .malformed
        // Only at the top level can the end of the text end a number or a word.
        case .number, .literal: depth == 0 ? .complete : .unfinished
        default: .unfinished
        }
    }

    mutating func feed(_ bytes: UnsafeRawBufferPointer) {
        var index = 0
        while index < bytes.count {
            switch state {
            case .string: index = skipString(bytes, from: index)
            case .malformed: return
            default:
                take(bytes[index])
                index += 1
            }
        }
    }

    /// The inner loop: most bytes of an answer are inside strings.
    private mutating func skipString(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Int {
        let end = start + JSONRun.count(UnsafeRawBufferPointer(rebasing: bytes[start...]))
        guard end < bytes.count else { return end }
        switch bytes[end] {
        case UInt8(ascii: "\""): valueEnded()
        case UInt8(ascii: "\\"): state = .stringEscape
        default: state = .malformed
        }
        return end + 1
    }

    private mutating func take(_ byte: UInt8) {
        switch state {
        case .value: beginValue(byte)
        case .valueOrEnd:
            if byte == UInt8(ascii: "]") {
                hasNoChoices = hasNoChoices || isChoices
                close(object: false)
            } else {
                beginValue(byte)
            }
        case .keyOrEnd:
            if byte == UInt8(ascii: "}") { close(object: true) } else { beginKey(byte) }
        case .key: beginKey(byte)
        case .colon:
            if byte == UInt8(ascii: ":") { state = .value } else { expectSpace(byte) }
        case .commaOrEnd: separator(byte)
        case .stringEscape: state = Self.isEscape(byte) ? .string : .malformed
        case .keyString: keyByte(byte)
        case .keyEscape: keyEscape(byte)
        case .keyUnicode: keyUnicode(byte)
        case .number: numberByte(byte)
        case .literal: literalByte(byte)
        case .complete: expectSpace(byte)
        case .string, .malformed: break
        }
    }

    private static func isSpace(_ byte: UInt8) -> Bool {
        byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09
    }

    private mutating func expectSpace(_ byte: UInt8) {
        if !Self.isSpace(byte) { state = .malformed }
    }

    // MARK: Structure

    private var isInObject: Bool { levels & 1 == 1 }
    private var node: UInt8 {
        depth == matched && depth > 0 ? UInt8(truncatingIfNeeded: path) : 0
    }

    private mutating func beginValue(_ byte: UInt8) {
        switch byte {
        case UInt8(ascii: "{"): open(object: true)
        case UInt8(ascii: "["): open(object: false)
        case UInt8(ascii: "\""):
            noteValue(isNull: false, isCount: false)
            state = .string
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): beginNumber(byte)
        case UInt8(ascii: "t"), UInt8(ascii: "f"), UInt8(ascii: "n"):
            literal = UInt64(byte)
            state = .literal
        default: expectSpace(byte)
        }
    }

    private mutating func open(object: Bool) {
        guard depth < Self.depthMax else {
            state = .malformed
            return
        }
        let parentMatches = depth == matched
        let next = object ? nextNode : 0
        noteValue(isNull: false, isCount: false, isObject: object)
        isChoices = member == .choices && !object
        levels = levels << 1 | (object ? 1 : 0)
        depth += 1
        if parentMatches, next != 0 {
            path = path << 8 | UInt64(next)
            matched += 1
        }
        member = .unknown
        state = object ? .keyOrEnd : .valueOrEnd
    }

    /// Of an object that opens here; 0 for one that leads to no usage.
    private var nextNode: UInt8 {
        switch member {
        case .object(let child): child.rawValue
        case .place(let child): child
        case .unknown, .counter, .error, .choices:
            depth > 0 ? 0 : tree == nil ? UsagePath.root.rawValue : UsageTree.root
        }
    }

    private mutating func close(object: Bool) {
        guard depth > 0, isInObject == object else {
            state = .malformed
            return
        }
        if depth == matched {
            path >>= 8
            matched -= 1
        }
        depth -= 1
        levels >>= 1
        valueEnded()
    }

    private mutating func valueEnded() {
        member = .unknown
        state = depth == 0 ? .complete : .commaOrEnd
    }

    private mutating func separator(_ byte: UInt8) {
        switch byte {
        case UInt8(ascii: ","): state = isInObject ? .key : .value
        case UInt8(ascii: "}"): close(object: true)
        case UInt8(ascii: "]"): close(object: false)
        default: expectSpace(byte)
        }
    }

    /// What a value that is neither a number nor a word means for the key before it.
    private mutating func noteValue(isNull: Bool, isCount: Bool, isObject: Bool = false) {
        switch member {
        case .unknown: break
        case .counter: if !isNull, !isCount { isDoubtful = true }
        case .error: if !isNull { hasError = true }
        case .choices, .place: break
        case .object:
            if !isNull, !isObject { isDoubtful = isDoubtful || node == UsagePath.usage.rawValue }
        }
    }

    // MARK: Keys

    private mutating func beginKey(_ byte: UInt8) {
        guard byte == UInt8(ascii: "\"") else { return expectSpace(byte) }
        key.clear()
        state = .keyString
    }

    private mutating func keyByte(_ byte: UInt8) {
        switch byte {
        case UInt8(ascii: "\""): keyEnded()
        case UInt8(ascii: "\\"): state = .keyEscape
        case 0..<0x20: state = .malformed
        default: key.append(byte)
        }
    }

    private mutating func keyEnded() {
        let (member, bit) =
            tree?.member(node, key)
            ?? (UsagePath(rawValue: node) ?? .elsewhere).member(key)
        self.member = member
        if seen & bit != 0 { isDoubtful = true }
        seen |= bit
        state = .colon
    }

    private static func isEscape(_ byte: UInt8) -> Bool {
        // The four digits behind \u are plain characters to who only skips them.
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"),
            UInt8(ascii: "f"), UInt8(ascii: "n"), UInt8(ascii: "r"), UInt8(ascii: "t"),
            UInt8(ascii: "u"):
            true
        default: false
        }
    }

    private mutating func keyEscape(_ byte: UInt8) {
        guard Self.isEscape(byte) else {
            state = .malformed
            return
        }
        if byte == UInt8(ascii: "u") {
            unicode = 0
            unicodeDigits = 0
            state = .keyUnicode
        } else {
            // No key of ours has a character that is written by a short escape.
            key.appendForeign()
            state = .keyString
        }
    }

    private mutating func keyUnicode(_ byte: UInt8) {
        let digit: UInt32
        switch byte {
        case 48...57: digit = UInt32(byte - 48)
        case 65...70: digit = UInt32(byte - 55)
        case 97...102: digit = UInt32(byte - 87)
        default:
            state = .malformed
            return
        }
        unicode = unicode << 4 | digit
        unicodeDigits += 1
        guard unicodeDigits == 4 else { return }
        if unicode < 0x80 { key.append(UInt8(unicode)) } else { key.appendForeign() }
        state = .keyString
    }

    // MARK: Numbers and words

    private mutating func beginNumber(_ byte: UInt8) {
        let isDigit = byte != UInt8(ascii: "-")
        number = isDigit ? UInt64(byte - 48) : 0
        numberDigits = isDigit ? 1 : 0
        numberIsCount = isDigit
        state = .number
    }

    private mutating func numberByte(_ byte: UInt8) {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"):
            // Saturates far above any count: a number of a thousand digits is no count either.
            if number <= UInt64(UInt32.max) { number = number * 10 + UInt64(byte - 48) }
            // RFC 8259 §6 has no leading zeros; another reader might take them for octal.
            if numberDigits == 1, number < 10 { numberIsCount = false }
            numberDigits = min(numberDigits + 1, 2)
        case UInt8(ascii: "."), UInt8(ascii: "e"), UInt8(ascii: "E"), UInt8(ascii: "+"),
            UInt8(ascii: "-"):
            numberIsCount = false
        default:
            numberEnded()
            take(byte)
        }
    }

    private mutating func numberEnded() {
        let isCount = numberIsCount && number <= UInt64(UInt32.max)
        noteValue(isNull: false, isCount: isCount)
        if isCount, case .counter(let counter) = member { counts.set(counter, UInt32(number)) }
        valueEnded()
    }

    private mutating func literalByte(_ byte: UInt8) {
        guard (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) else {
            literalEnded()
            if state != .malformed { take(byte) }
            return
        }
        // Nine letters overflow to something that is none of the three words.
        literal = literal << 8 | UInt64(byte)
    }

    private mutating func literalEnded() {
        switch literal {
        case 0x6E75_6C6C: noteValue(isNull: true, isCount: false)  // "null"
        case 0x7472_7565, 0x66_616C_7365: noteValue(isNull: false, isCount: false)  // true, false
        default:
            state = .malformed
            return
        }
        valueEnded()
    }
}
