import WeirCore

package enum LogLevel: UInt8, Sendable, Comparable, CaseIterable {
    case debug, info, warning, error

    package var name: String {
        switch self {
        case .debug: "debug"
        case .info: "info"
        case .warning: "warning"
        case .error: "error"
        }
    }

    package static func < (left: LogLevel, right: LogLevel) -> Bool {
        left.rawValue < right.rawValue
    }

    /// `LOG_LEVEL` by name in any case, with the usual other names; `DEBUG` lowers it to debug.
    /// `nil` when `LOG_LEVEL` says something else: the caller reports that.
    package init?(logLevel: String?, debug: String?) {
        if let debug, ["1", "true", "yes", "on"].contains(debug.lowercased()) {
            self = .debug
            return
        }
        switch logLevel?.lowercased() {
        case nil, "", "info", "notice": self = .info
        case "debug", "trace": self = .debug
        case "warning", "warn": self = .warning
        case "error", "critical": self = .error
        default: return nil
        }
    }
}

/// One line of the log as JSON. Pure.
enum LogRecord {
    static let lineBytesMax = 4_096

    /// Members that are never written, whatever their value: the last defence, not the first.
    private static let secretWords = [
        "secret", "token", "password", "authorization", "api_key", "apikey", "credential",
        "delegation", "session",
    ]

    static func isSecret(_ name: String) -> Bool {
        let lowered = name.lowercased()
        return secretWords.contains { lowered.contains($0) }
    }

    static func line(
        _ time: UnixTime, _ level: LogLevel, _ message: String, _ fields: [(String, String)],
        suppressed: UInt64
    ) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(256)
        output.append(
            contentsOf: "{\"time\":\"\(timestamp(time))\",\"level\":\"\(level.name)\"".utf8)
        append("message", message, to: &output)
        for (name, value) in fields {
            append(name, isSecret(name) ? "[redacted]" : value, to: &output)
        }
        if suppressed > 0 { append("suppressed", String(suppressed), to: &output) }
        output.append(contentsOf: "}\n".utf8)
        guard output.count > lineBytesMax else { return output }
        return line(
            time, level, String(message.prefix(256)),
            [("cut", "the line was longer than \(lineBytesMax) bytes")], suppressed: suppressed)
    }

    private static func append(_ name: String, _ value: String, to output: inout [UInt8]) {
        output.append(UInt8(ascii: ","))
        JSON.writeString(name, to: &output)
        output.append(UInt8(ascii: ":"))
        JSON.writeString(value, to: &output)
    }

    private static func timestamp(_ time: UnixTime) -> String {
        let fraction = time.milliseconds - time.seconds * 1_000
        let digits = String(1_000 + fraction).dropFirst()
        return time.rfc3339.dropLast() + "." + digits + "Z"
    }
}

/// How often one place in the code may speak: a burst of `linesMax` in each second, then silence,
/// and the next line says how many were left out. Pure.
struct LogThrottle {
    static let linesMax = 20
    static let placesMax = 512

    private struct Place {
        var second: UInt64
        var lines: Int
        var suppressed: UInt64
    }

    private var places: [UInt: Place] = [:]

    /// The number of lines left out before this one; `nil` when it is left out itself.
    mutating func admit(_ place: UInt, nowNanoseconds now: UInt64) -> UInt64? {
        let second = now / 1_000_000_000
        guard var entry = places[place] else {
            // Places are string constants of the program: this many exist only by mistake.
            if places.count >= Self.placesMax { places.removeAll(keepingCapacity: true) }
            places[place] = Place(second: second, lines: 1, suppressed: 0)
            return 0
        }
        if entry.second != second {
            entry.second = second
            entry.lines = 0
        }
        entry.lines += 1
        let isAdmitted = entry.lines <= Self.linesMax
        let before = entry.suppressed
        entry.suppressed = isAdmitted ? 0 : before + 1
        places[place] = entry
        return isAdmitted ? before : nil
    }
}
