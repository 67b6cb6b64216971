import WeirCore

extension JSONSchema {
    /// The formats that are asserted. They are those of RFC 3339, which JSON Schema refers to.
    enum Format: String, CaseIterable, Sendable {
        case date
        case dateTime = "date-time"

        var example: String {
            switch self {
            case .date: "a date like \"2026-11-22\""
            case .dateTime: "a time like \"2026-11-22T09:30:00Z\""
            }
        }

        func includes(_ text: String) -> Bool {
            var reader = TimeReader(text)
            switch self {
            case .date: return reader.takeDate() && reader.isAtEnd
            case .dateTime:
                return reader.takeDate() && reader.take(oneOf: "Tt") && reader.takeTime()
                    && reader.takeOffset() && reader.isAtEnd
            }
        }
    }
}

/// Reads RFC 3339 §5.6 from the front.
private struct TimeReader {
    private var rest: Substring.UTF8View

    init(_ text: String) { rest = text[...].utf8 }

    var isAtEnd: Bool { rest.isEmpty }

    mutating func take(oneOf characters: StaticString) -> Bool {
        guard let byte = rest.first,
            characters.withUTF8Buffer({ $0.contains(byte) })
        else { return false }
        rest = rest.dropFirst()
        return true
    }

    mutating func takeDate() -> Bool {
        guard let year = number(digits: 4), take(oneOf: "-"),
            let month = number(digits: 2), take(oneOf: "-"), let day = number(digits: 2),
            (1...12).contains(month)
        else { return false }
        return (1...Self.days(in: month, of: year)).contains(day)
    }

    private static func days(in month: Int, of year: Int) -> Int {
        let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
        switch month {
        case 2: return isLeap ? 29 : 28
        case 4, 6, 9, 11: return 30
        default: return 31
        }
    }

    /// A leap second is allowed, as in the RFC: which days have one is not known ahead.
    mutating func takeTime() -> Bool {
        guard let hour = number(digits: 2), take(oneOf: ":"),
            let minute = number(digits: 2), take(oneOf: ":"), let second = number(digits: 2),
            hour < 24, minute < 60, second <= 60
        else { return false }
        guard take(oneOf: ".") else { return true }
        let fraction = rest.prefix { (48...57).contains($0) }
        rest = rest.dropFirst(fraction.count)
        return !fraction.isEmpty
    }

    mutating func takeOffset() -> Bool {
        if take(oneOf: "Zz") { return true }
        guard take(oneOf: "+-"), let hours = number(digits: 2), take(oneOf: ":"),
            let minutes = number(digits: 2)
        else { return false }
        return hours < 24 && minutes < 60
    }

    private mutating func number(digits: Int) -> Int? {
        let front = rest.prefix(digits)
        guard front.count == digits, front.allSatisfy({ (48...57).contains($0) }) else {
            return nil
        }
        rest = rest.dropFirst(digits)
        return front.reduce(0) { $0 * 10 + Int($1 - 48) }
    }
}
