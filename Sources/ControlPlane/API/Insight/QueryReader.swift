import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// Reads the parameters of a user's request. Strict: what is not known, not well written or out of
/// bounds is a problem, and all of them are told at once.
struct QueryReader {
    private let parameters: [String: String]
    private var taken: Set<String> = []
    private var problems: [Problem] = []

    init(_ request: UserRequest) { parameters = request.parameters }

    mutating func text(_ name: String) -> String? {
        taken.insert(name)
        return parameters[name]
    }

    mutating func report(_ name: String, _ message: String) {
        problems.append(Problem(path: JSONPointer(["query", name]).description, message: message))
    }

    /// A whole number and a unit: "90m", "24h", "7d"; in milliseconds.
    mutating func window(_ name: String, default standard: Int64, in range: ClosedRange<Int64>)
        -> Int64
    {
        guard let text = text(name) else { return standard }
        let milliseconds =
            text.hasSuffix("d")
            ? DurationText.milliseconds(text.dropLast() + "h").flatMap {
                let (days, overflow) = $0.multipliedReportingOverflow(by: 24)
                return overflow ? nil : days
            } : DurationText.milliseconds(text)
        guard let milliseconds, range.contains(milliseconds) else {
            let bounds = [range.lowerBound, range.upperBound].map(DurationText.text)
            report(name, "must be from \(bounds[0]) to \(bounds[1]), as \"90m\", \"24h\" or \"7d\"")
            return standard
        }
        return milliseconds
    }

    /// Names of a list with commas, each once; the whole list where the parameter is absent.
    mutating func choices<Choice: RawRepresentable & Hashable>(
        _ name: String, of all: [Choice], default standard: [Choice], max: Int
    ) -> [Choice] where Choice.RawValue == String {
        guard let text = text(name) else { return standard }
        let names = text.split(separator: ",", omittingEmptySubsequences: false)
        let chosen = names.compactMap { name in all.first { $0.rawValue == name } }
        guard chosen.count == names.count, Set(chosen).count == names.count, names.count <= max
        else {
            let known = all.map(\.rawValue).joined(separator: ", ")
            report(name, "up to \(max) different ones of \(known) are needed, with commas")
            return standard
        }
        return chosen
    }

    /// The days from `from` to `to`, both with their ends; by default the month so far.
    mutating func days(now: UnixTime, max: Int64) -> (first: Period, last: Period) {
        func day(_ name: String) -> Period? {
            guard let text = text(name) else { return nil }
            guard let period = Period(text), period.kind == .day else {
                report(name, "a day is needed: YYYY-MM-DD")
                return nil
            }
            return period
        }
        let last = day("to") ?? Period(.day, at: now)
        let month = Period(.month, at: UnixTime(last.start))
        let first = day("from") ?? Period(.day, at: UnixTime(month.start))
        let length = last.start.daysSinceEpoch - first.start.daysSinceEpoch
        if !(0..<max).contains(length) {
            report("from", "must not be after to, nor more than \(max) days before")
        }
        return (first, last)
    }

    /// Throws what was found, and what nobody asked for.
    mutating func finish() throws(Problems) {
        for name in parameters.keys.sorted() where !taken.contains(name) {
            report(name, "is no parameter of this endpoint")
        }
        guard problems.isEmpty else { throw Problems(problems) }
    }
}
