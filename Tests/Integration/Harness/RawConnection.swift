import Foundation

/// A TCP connection without any notion of HTTP, for what no well-behaved client sends and for
/// answers that end before their time.
final class RawConnection {
    enum End: Equatable { case closed, reset, timedOut }

    private let descriptor: Int32

    init(port: UInt16) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = loopback(port: port)
        let connected = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
        guard connected else {
            throw TestProcess.Failed(description: "connect to \(port): \(errno)")
        }
    }

    deinit { close(descriptor) }

    func send(_ text: String) throws { try send(Array(text.utf8)) }

    func send(_ all: [UInt8]) throws {
        var bytes = all[...]
        while !bytes.isEmpty {
            let sent = bytes.withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard sent > 0 else { throw TestProcess.Failed(description: "send: \(errno)") }
            bytes = bytes.dropFirst(sent)
        }
    }

    /// What has come when `text` is in it, for answers that go on. Throws when the other side
    /// closes before, or when nothing came for `milliseconds`.
    func read(until text: String, quietMilliseconds milliseconds: Int = 5_000) throws -> String {
        var received: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16_384)
        while true {
            let soFar = String(decoding: received, as: UTF8.self)
            if soFar.contains(text) { return soFar }
            var poller = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            let count =
                poll(&poller, 1, Int32(milliseconds)) > 0
                ? recv(descriptor, &chunk, chunk.count, 0) : -1
            guard count > 0 else {
                throw TestProcess.Failed(description: "no \(text) in: \(soFar)")
            }
            received += chunk[..<count]
        }
    }

    /// All bytes until the other side closes, or until none came for `milliseconds`.
    func readToEnd(quietMilliseconds milliseconds: Int = 1_000) -> (bytes: [UInt8], end: End) {
        var received: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16_384)
        while true {
            var poller = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&poller, 1, Int32(milliseconds)) > 0 else { return (received, .timedOut) }
            let count = recv(descriptor, &chunk, chunk.count, 0)
            guard count != 0 else { return (received, .closed) }
            guard count > 0 else { return (received, .reset) }
            received += chunk[..<count]
        }
    }
}
