import CLinux
import Glibc
import Synchronization
import WeirCore

/// The process's log: JSON lines on a descriptor. A loop never waits for who reads it: lines go
/// into a bounded buffer, a thread of its own writes them, and what does not fit is dropped and
/// counted.
package final class Log: Sendable {
    package static let bufferBytesMax = 256 * 1_024

    private struct State {
        var buffer: [UInt8] = []
        var throttle = LogThrottle()
        var dropped: UInt64 = 0
        var isWriting = false
        var ends = false
    }

    package let level: LogLevel
    private let descriptor: Int32
    private let wakeup: Int32
    private let state = Mutex(State())

    /// Starts the writing thread. Where that fails (no threads left), lines are dropped and
    /// counted.
    package init(level: LogLevel, descriptor: Int32 = STDERR_FILENO) {
        self.level = level
        self.descriptor = descriptor
        wakeup = eventfd(0, Int32(EFD_CLOEXEC))
        var thread = pthread_t()
        let context = Unmanaged.passRetained(self)
        let result = pthread_create(
            &thread, nil,
            { context in
                guard let context else { return nil }
                Unmanaged<Log>.fromOpaque(context).takeRetainedValue().write()
                return nil
            }, context.toOpaque())
        if result == 0 { pthread_detach(thread) } else { context.release() }
    }

    package var droppedLines: UInt64 { state.withLock { $0.dropped } }

    package func debug(_ message: StaticString, _ fields: (String, String)...) {
        if level <= .debug { log(.debug, message, fields) }
    }

    package func info(_ message: StaticString, _ fields: (String, String)...) {
        if level <= .info { log(.info, message, fields) }
    }

    package func warning(_ message: StaticString, _ fields: (String, String)...) {
        if level <= .warning { log(.warning, message, fields) }
    }

    package func error(_ message: StaticString, _ fields: (String, String)...) {
        log(.error, message, fields)
    }

    private func log(_ level: LogLevel, _ message: StaticString, _ fields: [(String, String)]) {
        let place = UInt(bitPattern: message.utf8Start)
        let now = Self.monotonicNanoseconds()
        guard let suppressed = state.withLock({ $0.throttle.admit(place, nowNanoseconds: now) })
        else { return }
        let line = LogRecord.line(
            Self.wallClock(), level, "\(message)", fields, suppressed: suppressed)
        let wakes = state.withLock { state -> Bool in
            guard state.buffer.count + line.count <= Self.bufferBytesMax else {
                state.dropped += 1
                return false
            }
            state.buffer.append(contentsOf: line)
            return state.buffer.count == line.count
        }
        if wakes { wake() }
    }

    private func wake() {
        var one: UInt64 = 1
        _ = Glibc.write(wakeup, &one, MemoryLayout<UInt64>.size)
    }

    /// Waits until everything is written, at most so long. Before the process ends.
    package func flush(milliseconds: Int = 500) {
        let deadline = Self.monotonicNanoseconds() + UInt64(milliseconds) * 1_000_000
        while state.withLock({ !$0.buffer.isEmpty || $0.isWriting }),
            Self.monotonicNanoseconds() < deadline
        {
            usleep(500)
        }
    }

    /// Ends the writing thread after what is in the buffer.
    package func close() {
        state.withLock { $0.ends = true }
        wake()
    }

    private func write() {
        var counter: UInt64 = 0
        while true {
            let (batch, ends) = state.withLock { state in
                let batch = state.buffer
                state.buffer = []
                state.isWriting = !batch.isEmpty
                return (batch, state.ends)
            }
            if batch.isEmpty {
                if ends { break }
                // Interrupted or not: the buffer tells whether there is something to do.
                _ = Glibc.read(wakeup, &counter, MemoryLayout<UInt64>.size)
            } else {
                writeAll(batch)
            }
        }
        _ = Glibc.close(wakeup)
    }

    private func writeAll(_ batch: [UInt8]) {
        batch.withUnsafeBytes { bytes in
            var sent = 0
            while sent < bytes.count {
                let rest = UnsafeRawBufferPointer(rebasing: bytes[sent...])
                let count = Glibc.write(descriptor, rest.baseAddress, rest.count)
                if count > 0 {
                    sent += count
                } else if errno == EAGAIN {
                    // Somebody made the descriptor non-blocking; the thread may wait, it is its
                    // job.
                    var waiting = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                    _ = poll(&waiting, 1, 100)
                } else if errno != EINTR {
                    state.withLock { $0.dropped += 1 }
                    return
                }
            }
        }
        state.withLock { $0.isWriting = false }
    }

    private static func monotonicNanoseconds() -> UInt64 {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
    }

    private static func wallClock() -> UnixTime {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        return UnixTime(milliseconds: Int64(now.tv_sec) * 1_000 + Int64(now.tv_nsec) / 1_000_000)
    }
}
