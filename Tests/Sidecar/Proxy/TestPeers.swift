import CLinux
import Glibc
import Synchronization

@testable import SidecarCore

/// A blocking socket with a bound on every read, for the two ends of a test.
final class TestSocket: @unchecked Sendable {
    // SAFETY: one thread at a time uses a test's socket.
    let raw: Int32
    private var buffer: [UInt8] = []
    private(set) var isAtEnd = false

    init(raw: Int32) {
        self.raw = raw
        let flags = fcntl(raw, F_GETFL)
        _ = fcntl(raw, F_SETFL, flags & ~O_NONBLOCK)
        setTimeout(milliseconds: 8000)
    }

    func setTimeout(milliseconds: Int) {
        var limit = timeval(tv_sec: milliseconds / 1000, tv_usec: milliseconds % 1000 * 1000)
        setsockopt(raw, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(raw, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    convenience init(to address: SocketAddress) {
        let raw = socket(address.family, Int32(SOCK_STREAM.rawValue), 0)
        precondition(address.withSockaddr { connect(raw, $0, $1) } == 0, "connect")
        self.init(raw: raw)
    }

    deinit { close(raw) }

    /// False when the peer does not take it.
    @discardableResult
    func send(_ bytes: [UInt8]) -> Bool {
        var sent = 0
        while sent < bytes.count {
            let count = bytes[sent...].withUnsafeBytes {
                Glibc.send(raw, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { return false }
            sent += count
        }
        return true
    }

    @discardableResult
    func send(_ text: String) -> Bool { send(Array(text.utf8)) }

    func finishWriting() { shutdown(raw, Int32(SHUT_WR)) }

    /// Closes with a reset.
    func reset() {
        var option = linger(l_onoff: 1, l_linger: 0)
        setsockopt(raw, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
        // The descriptor stays ours until `deinit`; connecting to nowhere resets the connection.
        var nowhere = sockaddr()
        nowhere.sa_family = sa_family_t(AF_UNSPEC)
        connect(raw, &nowhere, socklen_t(MemoryLayout<sockaddr>.size))
    }

    /// False at the end, after an error, or when nothing came in time.
    private func fill() -> Bool {
        var room = [UInt8](repeating: 0, count: 65_536)
        let count = recv(raw, &room, room.count, 0)
        guard count > 0 else {
            isAtEnd = count == 0
            return false
        }
        buffer += room[..<count]
        return true
    }

    func read(_ count: Int) -> [UInt8]? {
        while buffer.count < count { guard fill() else { return nil } }
        defer { buffer.removeFirst(count) }
        return Array(buffer[..<count])
    }

    func readLine() -> String? {
        while true {
            if let index = buffer.firstIndex(of: 10) {
                defer { buffer.removeFirst(index + 1) }
                guard index > 0, buffer[index - 1] == 13 else { return nil }
                return String(decoding: buffer[..<(index - 1)], as: UTF8.self)
            }
            guard fill() else { return nil }
        }
    }

    func readToEnd() -> [UInt8] {
        while fill() {}
        defer { buffer = [] }
        return buffer
    }

    /// Whether the peer closes within the time limit, and sends nothing before it.
    func isClosedByPeer() -> Bool {
        guard buffer.isEmpty else { return false }
        return !fill() && (isAtEnd || errno == ECONNRESET)
    }

    func readHead() -> TestMessage? {
        guard let first = readLine(), !first.isEmpty else { return nil }
        var message = TestMessage(first: first)
        while let line = readLine() {
            if line.isEmpty { return message }
            message.add(line)
        }
        return nil
    }

    func readChunked(into message: inout TestMessage) -> Bool {
        while let line = readLine(), let size = Int(line, radix: 16) {
            if size > 0 {
                guard let bytes = read(size), readLine() == "" else { return false }
                message.body += bytes
                if size < 1000 { message.chunks.append(String(decoding: bytes, as: UTF8.self)) }
                continue
            }
            while let trailer = readLine() {
                if trailer.isEmpty { return true }
                message.trailers.append(trailer)
            }
        }
        return false
    }

    /// A request with its body.
    func readRequest() -> TestMessage? {
        guard var message = readHead() else { return nil }
        return readBody(&message, hasBody: true, untilClose: false) ? message : nil
    }

    /// A response; `isWhole` is false when the body was cut.
    func readResponse(method: String = "GET") -> TestMessage? {
        guard var message = readHead() else { return nil }
        let hasBody =
            method != "HEAD" && ![204, 304].contains(message.status) && message.status >= 200
        message.isWhole = readBody(&message, hasBody: hasBody, untilClose: hasBody)
        return message
    }

    private func readBody(_ message: inout TestMessage, hasBody: Bool, untilClose: Bool) -> Bool {
        guard hasBody else { return true }
        if message["transfer-encoding"] == "chunked" { return readChunked(into: &message) }
        if let length = message["content-length"].flatMap({ Int($0) }) {
            guard let bytes = read(length) else { return false }
            message.body = bytes
            return true
        }
        if untilClose {
            message.body = readToEnd()
            return isAtEnd
        }
        return true
    }
}

struct TestMessage: Sendable {
    let first: String
    private(set) var fields: [(String, String)] = []
    var body: [UInt8] = []
    var chunks: [String] = []
    var trailers: [String] = []
    var isWhole = true

    init(first: String) { self.first = first }

    mutating func add(_ line: String) {
        guard let colon = line.firstIndex(of: ":") else { return }
        let value = line[line.index(after: colon)...].drop { $0 == " " }
        fields.append((line[..<colon].lowercased(), String(value)))
    }

    var status: Int { Int(first.split(separator: " ").dropFirst().first ?? "") ?? 0 }
    var text: String { String(decoding: body, as: UTF8.self) }
    var path: String { String(first.split(separator: " ")[1]) }
    subscript(name: String) -> String? { fields.first { $0.0 == name }?.1 }
    func all(_ name: String) -> [String] { fields.filter { $0.0 == name }.map(\.1) }
}

/// An upstream in the test's process: a thread for each connection, which runs `serve`.
final class TestUpstream: @unchecked Sendable {
    // SAFETY: `listener` is closed once; the rest is atomic or locked.
    private let listener: Int32
    let address: SocketAddress
    let connections = Counter()
    /// Of them, those that this end has closed.
    let closed = Counter()
    let requests = Mutex<[TestMessage]>([])

    init(serve: @escaping @Sendable (TestUpstream, TestSocket) -> Void) throws {
        listener = try Socket.listen(on: .loopback(port: 0), sharesPort: false).take()
        _ = fcntl(listener, F_SETFL, fcntl(listener, F_GETFL) & ~O_NONBLOCK)
        address = Socket.localAddress(listener) ?? .loopback(port: 0)
        let listener = self.listener
        Thread { [self] in
            while true {
                let raw = accept(listener, nil, nil)
                guard raw >= 0 else { return }
                connections.increment()
                Thread {
                    do { serve(self, TestSocket(raw: raw)) }
                    self.closed.increment()
                }.start()
            }
        }.start()
    }

    /// Answers each request of a connection with what `answer` returns; `nil` closes.
    convenience init(answer: @escaping @Sendable (TestMessage) -> String?) throws {
        try self.init { upstream, socket in
            while let request = socket.readRequest() {
                upstream.requests.withLock { $0.append(request) }
                guard let text = answer(request) else { return }
                socket.send(text)
            }
        }
    }

    func close() { shutdown(listener, Int32(SHUT_RDWR)) }
    var requestCount: Int { requests.withLock { $0.count } }
    var lastRequest: TestMessage? { requests.withLock { $0.last } }
}

func okay(_ body: String, _ fields: String = "") -> String {
    "HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\(fields)\r\n\(body)"
}
