extension UnixTime {
    private static let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]

    /// Reads an HTTP-date in each of its three forms (RFC 9110 §5.6.7). The name of the day is not
    /// compared with the date; a leap second is the second behind it.
    ///
    /// - Parameter now: where the century of the form of RFC 850 comes from, whose year has two
    ///   digits: a date more than 50 years ahead is one of the past.
    package init?(httpDate text: some StringProtocol, now: UnixTime) {
        let words = text.split(omittingEmptySubsequences: true) { " -".contains($0) }
        switch words.count {
        case 6 where words[5] == "GMT" && words[0].hasSuffix(","):
            let twoDigits = text.contains("-")
            guard var year = Self.number(words[3], digits: twoDigits ? 2 : 4) else { return nil }
            if twoDigits {
                year += now.civilDate.year / 100 * 100
                if year > now.civilDate.year + 50 { year -= 100 }
            }
            self.init(year, words[2], words[1], dayDigits: 2, words[4])
        case 5:
            guard let year = Self.number(words[4], digits: 4) else { return nil }
            self.init(year, words[1], words[2], dayDigits: words[2].utf8.count, words[3])
        default: return nil
        }
    }

    private init?(
        _ year: Int64, _ monthName: some StringProtocol, _ dayText: some StringProtocol,
        dayDigits: Int, _ clock: some StringProtocol
    ) {
        let parts = clock.split(separator: ":", omittingEmptySubsequences: false)
        guard let month = Self.months.firstIndex(of: String(monthName)),
            let day = Self.number(dayText, digits: dayDigits), (1...31).contains(day),
            parts.count == 3, let hour = Self.number(parts[0], digits: 2), hour < 24,
            let minute = Self.number(parts[1], digits: 2), minute < 60,
            let second = Self.number(parts[2], digits: 2), second <= 60
        else { return nil }
        let date = CivilDate(year: year, month: month + 1, day: Int(day))
        // The thirtieth of February is none.
        guard CivilDate(daysSinceEpoch: date.daysSinceEpoch) == date else { return nil }
        self.init(
            seconds: UnixTime(date).seconds + hour * 3_600 + minute * 60 + second)
    }

    private static func number(_ text: some StringProtocol, digits: Int) -> Int64? {
        guard text.utf8.count == digits, text.utf8.allSatisfy({ (48...57).contains($0) })
        else { return nil }
        return Int64(text)
    }
}
