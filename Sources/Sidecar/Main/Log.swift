import Glibc
import SidecarUplink
import WeirCore

enum LogLevel: Int, Sendable, Comparable {
    case debug, info, warning, error

    init?(name: String) {
        switch name {
        case "debug", "trace": self = .debug
        case "info", "notice": self = .info
        case "warning", "warn": self = .warning
        case "error", "critical": self = .error
        default: return nil
        }
    }

    init(_ level: UplinkHooks.LogLevel) {
        switch level {
        case .debug: self = .debug
        case .info: self = .info
        case .warning: self = .warning
        case .error: self = .error
        }
    }

    static func < (left: LogLevel, right: LogLevel) -> Bool { left.rawValue < right.rawValue }
}

/// Lines on standard error, for the few things that a process says about itself. Requests are not
/// logged: they are metrics and records.
struct Log: Sendable {
    let level: LogLevel
    let name: String

    func callAsFunction(_ level: LogLevel, _ message: String) {
        guard level >= self.level else { return }
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        let time = UnixTime(seconds: Int64(now.tv_sec)).rfc3339
        // Peers' words may be in it: one message is one line.
        let clean = message.unicodeScalars.map { $0.value < 0x20 ? " " : String($0) }.joined()
        var bytes = Array("\(time) \(level) \(name): \(clean)\n".utf8)
        // One write, so that lines of several threads do not mix. Nobody to tell when it fails.
        _ = write(STDERR_FILENO, &bytes, bytes.count)
    }
}
