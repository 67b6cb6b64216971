import Glibc
import Testing
import WeirCore

@testable import SidecarCore

/// A pipe, so that the test reads what the log writes.
private func openPipe() throws -> (read: Int32, write: Int32) {
    var ends: [Int32] = [0, 0]
    try #require(pipe(&ends) == 0)
    return (ends[0], ends[1])
}

private func readAll(_ descriptor: Int32, _ count: Int) -> String {
    var bytes = [UInt8](repeating: 0, count: count)
    let length = read(descriptor, &bytes, count)
    return String(decoding: bytes[..<max(length, 0)], as: UTF8.self)
}

@Suite struct LogTests {
    @Test func aLineIsJSON() throws {
        let line = LogRecord.line(
            UnixTime(milliseconds: 1_795_000_000_042), .warning, "it \"broke\"",
            [("agent", "a\nb"), ("hop_secret", "xyz"), ("Authorization", "Bearer x")],
            suppressed: 3)
        #expect(line.last == 0x0A)
        let value = try JSON.parse(Array(line.dropLast()))
        #expect(value["time"] == "2026-11-18T11:06:40.042Z")
        #expect(value["level"] == "warning")
        #expect(value["message"] == "it \"broke\"")
        #expect(value["agent"] == "a\nb")
        #expect(value["hop_secret"] == "[redacted]")
        #expect(value["Authorization"] == "[redacted]")
        #expect(value["suppressed"] == "3")
    }

    @Test func longLinesAreCut() {
        let line = LogRecord.line(
            UnixTime(milliseconds: 0), .info, "m",
            [("x", String(repeating: "y", count: 10_000))], suppressed: 0)
        #expect(line.count < LogRecord.lineBytesMax)
        #expect((try? JSON.parse(Array(line.dropLast()))) != nil)
    }

    @Test(
        arguments: [
            (nil, nil, LogLevel.info), ("DEBUG", nil, .debug), ("Warn", nil, .warning),
            ("error", "false", .error), ("error", "true", .debug), ("", "0", .info),
            ("chatty", nil, nil),
        ] as [(String?, String?, LogLevel?)])
    func levelsComeFromTheEnvironment(_ level: String?, _ debug: String?, _ expected: LogLevel?) {
        #expect(LogLevel(logLevel: level, debug: debug) == expected)
    }

    @Test func repeatsAreCountedAndNotWritten() {
        var throttle = LogThrottle()
        var written = 0
        for _ in 0..<100 where throttle.admit(1, nowNanoseconds: 5) != nil { written += 1 }
        #expect(written == LogThrottle.linesMax)
        let other = throttle.admit(2, nowNanoseconds: 5)
        #expect(other == 0, "another place is not silenced")
        let next = throttle.admit(1, nowNanoseconds: 1_000_000_000)
        #expect(next == UInt64(100 - LogThrottle.linesMax))
    }

    @Test func linesArrive() throws {
        let ends = try openPipe()
        let log = Log(level: .info, descriptor: ends.write)
        log.debug("not this")
        log.info("hello", ("n", "1"))
        log.flush()
        let text = readAll(ends.read, 4_096)
        #expect(text.contains("\"message\":\"hello\",\"n\":\"1\"}\n"))
        #expect(!text.contains("not this"))
        log.close()
        close(ends.read)
        close(ends.write)
    }

    /// Nobody reads: the caller goes on, and what does not fit is counted.
    @Test func aFullPipeStopsNobody() throws {
        signal(SIGPIPE, SIG_IGN)
        let ends = try openPipe()
        let log = Log(level: .info, descriptor: ends.write)
        let long = String(repeating: "x", count: 4_000)
        // What the thread has taken, the buffer and the pipe hold half a megabyte; a place may say
        // 80 KB of it before it is silenced.
        for _ in 0..<LogThrottle.linesMax {
            log.info("a", ("x", long))
            log.info("b", ("x", long))
            log.info("c", ("x", long))
            log.info("d", ("x", long))
            log.info("e", ("x", long))
            log.info("f", ("x", long))
            log.info("g", ("x", long))
            log.info("h", ("x", long))
            log.info("i", ("x", long))
            log.info("j", ("x", long))
            log.info("k", ("x", long))
            log.info("l", ("x", long))
        }
        #expect(log.droppedLines > 0)
        // Let the thread go on to its end.
        close(ends.read)
        log.flush()
        log.close()
        close(ends.write)
    }
}
