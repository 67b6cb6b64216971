/// Durations as policies write them: a whole number and a unit, "250ms", "30s", "5m", "1h".
package enum DurationText {
    private static let units: [(suffix: String, milliseconds: Int64)] = [
        ("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000),
    ]

    /// Milliseconds; `nil` when the text is no duration or does not fit.
    package static func milliseconds(_ text: String) -> Int64? {
        guard let unit = units.first(where: { text.hasSuffix($0.suffix) }) else { return nil }
        let digits = text.dropLast(unit.suffix.count)
        guard !digits.isEmpty, digits.utf8.allSatisfy({ (48...57).contains($0) }),
            let count = Int64(digits)
        else { return nil }
        let (product, overflow) = count.multipliedReportingOverflow(by: unit.milliseconds)
        return overflow ? nil : product
    }

    /// The shortest spelling with one unit: "1500ms", "90s", "5m".
    package static func text(milliseconds: Int64) -> String {
        let unit =
            units.last { milliseconds.isMultiple(of: $0.milliseconds) && milliseconds > 0 }
            ?? units[0]
        return "\(milliseconds / unit.milliseconds)\(unit.suffix)"
    }
}
