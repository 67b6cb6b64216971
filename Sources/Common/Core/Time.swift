/// Wall-clock time in milliseconds since 1970-01-01T00:00:00Z. Only records, tokens and periods use
/// it; timeouts count on the monotonic clock, in nanoseconds as `UInt64`.
package struct UnixTime: Hashable, Sendable, Comparable, Codable {
    package var milliseconds: Int64

    package init(milliseconds: Int64) { self.milliseconds = milliseconds }
    package init(seconds: Int64) { self.milliseconds = seconds * 1000 }

    package var seconds: Int64 {
        milliseconds >= 0 ? milliseconds / 1000 : (milliseconds - 999) / 1000
    }

    package static func < (left: UnixTime, right: UnixTime) -> Bool {
        left.milliseconds < right.milliseconds
    }

    package init(from decoder: any Decoder) throws {
        milliseconds = try decoder.singleValueContainer().decode(Int64.self)
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(milliseconds)
    }
}

/// A day of the proleptic Gregorian calendar in UTC.
package struct CivilDate: Hashable, Sendable {
    package var year: Int64
    package var month: Int
    package var day: Int

    package init(year: Int64, month: Int, day: Int) {
        self.year = year
        self.month = month
        self.day = day
    }

    /// Days since 1970-01-01 to a date. Howard Hinnant, "chrono-Compatible Low-Level Date
    /// Algorithms", civil_from_days.
    package init(daysSinceEpoch: Int64) {
        let shifted = daysSinceEpoch + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        day = Int(dayOfYear - (153 * shiftedMonth + 2) / 5 + 1)
        month = Int(shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9)
        year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    }

    /// The inverse: days_from_civil of the same paper.
    package var daysSinceEpoch: Int64 {
        let shiftedYear = month <= 2 ? year - 1 : year
        let era = (shiftedYear >= 0 ? shiftedYear : shiftedYear - 399) / 400
        let yearOfEra = shiftedYear - era * 400
        let shiftedMonth = Int64(month > 2 ? month - 3 : month + 9)
        let dayOfYear = (153 * shiftedMonth + 2) / 5 + Int64(day) - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        return era * 146_097 + dayOfEra - 719_468
    }
}

extension UnixTime {
    package var civilDate: CivilDate { CivilDate(daysSinceEpoch: daysSinceEpoch) }

    private var daysSinceEpoch: Int64 {
        let whole = seconds
        return whole >= 0 ? whole / 86_400 : (whole - 86_399) / 86_400
    }

    package init(_ date: CivilDate) { self.init(seconds: date.daysSinceEpoch * 86_400) }

    /// "2026-11-22T14:20:00Z" (RFC 3339, whole seconds).
    package var rfc3339: String {
        let date = civilDate
        let second = seconds - daysSinceEpoch * 86_400
        let day =
            "\(padded(date.year, 4))-\(padded(Int64(date.month), 2))-\(padded(Int64(date.day), 2))"
        let time = [second / 3600, second / 60 % 60, second % 60].map { padded($0, 2) }
        return day + "T" + time.joined(separator: ":") + "Z"
    }
}

extension UnixTime {
    /// "2026-11-22T14:20:00.123Z": `rfc3339` to the millisecond.
    package var rfc3339Milliseconds: String {
        rfc3339.dropLast() + "." + padded(milliseconds - seconds * 1_000, 3) + "Z"
    }

    /// Reads what the two properties write, with up to nine decimals, of which three count. Other
    /// offsets than "Z" are no times of ours, nor are leap seconds.
    package init?(rfc3339 text: some StringProtocol) {
        let bytes = Array(text.utf8)
        guard bytes.count >= 20, bytes.last == UInt8(ascii: "Z"),
            let day = Period(String(decoding: bytes[..<10], as: UTF8.self)), day.kind == .day
        else { return nil }
        // "T14:20:00" and its decimals.
        func number(_ range: Range<Int>) -> Int64? {
            let digits = bytes[range]
            guard digits.allSatisfy({ (48...57).contains($0) }) else { return nil }
            return digits.reduce(0) { $0 * 10 + Int64($1 - 48) }
        }
        guard bytes[10] == UInt8(ascii: "T"), bytes[13] == UInt8(ascii: ":"),
            bytes[16] == UInt8(ascii: ":"), let hour = number(11..<13), hour < 24,
            let minute = number(14..<16), minute < 60, let second = number(17..<19), second < 60
        else { return nil }
        var millisecond: Int64 = 0
        if bytes.count > 20 {
            let decimals = 20..<(bytes.count - 1)
            guard bytes[19] == UInt8(ascii: "."), (1...9).contains(decimals.count),
                number(decimals) != nil
            else { return nil }
            let three = decimals.prefix(3)
            let scale: Int64 = [100, 10, 1][three.count - 1]
            millisecond = (number(three.startIndex..<three.endIndex) ?? 0) * scale
        }
        let seconds = UnixTime(day.start).seconds + hour * 3_600 + minute * 60 + second
        self.init(milliseconds: seconds * 1_000 + millisecond)
    }
}

func padded(_ value: Int64, _ width: Int) -> String {
    let digits = String(value)
    return String(repeating: "0", count: max(0, width - digits.count)) + digits
}

/// The stretch of time that an account counts: a UTC month ("2026-11"), a UTC day ("2026-11-22"), a
/// minute ("2026-11-22T14:20", UTC too), or for ever ("-", an account of one run).
package struct Period: Hashable, Sendable, CustomStringConvertible {
    package enum Kind: String, Sendable, Codable { case month, day, minute, forever }

    package let kind: Kind
    /// The day on which it begins.
    package let start: CivilDate
    /// Of that day; 0 for whatever is longer than a minute.
    private let minute: Int16

    package init(_ kind: Kind, at time: UnixTime) {
        self.kind = kind
        let date = time.civilDate
        switch kind {
        case .month: start = CivilDate(year: date.year, month: date.month, day: 1)
        case .day, .minute: start = date
        case .forever: start = CivilDate(year: 1970, month: 1, day: 1)
        }
        minute =
            kind == .minute
            ? Int16(truncatingIfNeeded: (time.seconds - UnixTime(date).seconds) / 60) : 0
    }

    package init?(_ text: some StringProtocol) {
        if text == "-" {
            self.init(.forever, at: UnixTime(seconds: 0))
            return
        }
        let halves = text.split(separator: "T", omittingEmptySubsequences: false)
        let parts = halves[0].split(separator: "-", omittingEmptySubsequences: false)
        guard halves.count == 1 || halves.count == 2 && parts.count == 3,
            parts.count == 2 || parts.count == 3, parts[0].utf8.count == 4,
            parts.dropFirst().allSatisfy({ $0.utf8.count == 2 }),
            parts.allSatisfy({ $0.utf8.allSatisfy { (48...57).contains($0) } }),
            let year = Int64(parts[0]), let month = Int(parts[1]), (1...12).contains(month),
            let day = parts.count == 3 ? Int(parts[2]) : 1, (1...31).contains(day)
        else { return nil }
        let date = CivilDate(year: year, month: month, day: day)
        guard CivilDate(daysSinceEpoch: date.daysSinceEpoch) == date else { return nil }
        guard halves.count == 2 else {
            self.init(parts.count == 3 ? .day : .month, at: UnixTime(date))
            return
        }
        guard let minute = Self.minute(halves[1]) else { return nil }
        self.init(.minute, at: UnixTime(seconds: UnixTime(date).seconds + minute * 60))
    }

    /// "14:20" as minutes.
    private static func minute(_ text: some StringProtocol) -> Int64? {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2,
            parts.allSatisfy({ part in
                part.utf8.count == 2 && part.utf8.allSatisfy { (48...57).contains($0) }
            }), let hour = Int64(parts[0]), hour < 24, let minute = Int64(parts[1]), minute < 60
        else { return nil }
        return hour * 60 + minute
    }

    package var description: String {
        let month = "\(padded(start.year, 4))-\(padded(Int64(start.month), 2))"
        let day = month + "-" + padded(Int64(start.day), 2)
        switch kind {
        case .month: return month
        case .day: return day
        case .minute:
            let minute = Int64(minute)
            return "\(day)T\(padded(minute / 60, 2)):\(padded(minute % 60, 2))"
        case .forever: return "-"
        }
    }

    /// Its first moment.
    package var beginning: UnixTime {
        UnixTime(seconds: UnixTime(start).seconds + Int64(minute) * 60)
    }

    /// When the next period begins; `nil` for an account without one.
    package var end: UnixTime? {
        switch kind {
        case .month:
            return UnixTime(
                start.month == 12
                    ? CivilDate(year: start.year + 1, month: 1, day: 1)
                    : CivilDate(year: start.year, month: start.month + 1, day: 1))
        case .day: return UnixTime(CivilDate(daysSinceEpoch: start.daysSinceEpoch + 1))
        case .minute: return UnixTime(seconds: beginning.seconds + 60)
        case .forever: return nil
        }
    }
}

extension Period: Codable {
    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let period = Period(try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(
                in: container,
                debugDescription: "not a period: YYYY-MM, YYYY-MM-DD,"
                    + " YYYY-MM-DDTHH:MM or - is needed")
        }
        self = period
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}
