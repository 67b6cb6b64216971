import CNghttp2
import Glibc
import SidecarCore
import Synchronization

/// A small HTTP/2 server for tests: real frames over real sockets, one thread for each connection.
/// It answers with what the test's closure says, and can keep an answer open to add to it later.
final class HTTP2TestServer: Sendable {
    struct Request: Sendable {
        var method = ""
        var path = ""
        var fields: [String: String] = [:]
        var body: [UInt8] = []
    }

    struct Response: Sendable {
        var status = 200
        var body: [UInt8] = []
        /// Not ended: `push` adds to it.
        var isOpen = false

        static func text(_ status: Int, _ text: String) -> Response {
            Response(status: status, body: Array(text.utf8))
        }
    }

    typealias Handler = @Sendable (Request) -> Response?

    private struct State {
        var isStopping = false
        var refusesConnections = false
        var generation = 0
        var pushed: [[UInt8]] = []
        var connections = 0
        var live = 0
    }

    let address: SocketAddress
    private let listener: Int32
    private let handler: Handler
    private let state = Mutex(State())

    /// `nil` from the handler leaves the request without an answer.
    init(handler: @escaping Handler) throws {
        self.handler = handler
        let descriptor = try Socket.listen(on: .loopback(port: 0))
        guard let address = Socket.localAddress(descriptor.raw) else {
            throw SystemError("getsockname")
        }
        self.address = address
        listener = descriptor.take()
        DetachedThread.start { self.accept() }
    }

    var connectionCount: Int { state.withLock { $0.connections } }

    /// To every open answer, of this and later connections.
    func push(_ bytes: [UInt8]) { state.withLock { $0.pushed.append(bytes) } }
    func push(line: String) { push(Array((line + "\n").utf8)) }

    /// Breaks the connections that there are.
    func breakConnections() { state.withLock { $0.generation += 1 } }

    /// New connections are closed at once.
    func refuseConnections(_ refuses: Bool) { state.withLock { $0.refusesConnections = refuses } }

    func stop() {
        state.withLock {
            $0.isStopping = true
            $0.generation += 1
        }
        // tidy: the pause of a poll
        while state.withLock({ $0.live > 0 }) { usleep(1_000) }
    }

    private func accept() {
        state.withLock { $0.live += 1 }
        defer {
            close(listener)
            state.withLock { $0.live -= 1 }
        }
        while !state.withLock({ $0.isStopping }) {
            var poll = pollfd(fd: listener, events: Int16(POLLIN), revents: 0)
            guard Glibc.poll(&poll, 1, 5) > 0 else { continue }
            let raw = Glibc.accept(listener, nil, nil)
            guard raw >= 0 else { continue }
            let (refuses, generation) = state.withLock { state -> (Bool, Int) in
                if !state.refusesConnections {
                    state.connections += 1
                    state.live += 1
                }
                return (state.refusesConnections, state.generation)
            }
            if refuses {
                close(raw)
            } else {
                DetachedThread.start { self.serve(raw, generation) }
            }
        }
    }

    private func serve(_ raw: Int32, _ generation: Int) {
        let connection = ServerConnection(handler)
        var pushedCount = state.withLock { $0.pushed.count }
        var buffer = [UInt8](repeating: 0, count: 65_536)
        defer {
            close(raw)
            state.withLock { $0.live -= 1 }
        }
        while state.withLock({ $0.generation == generation }) {
            var poll = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
            if Glibc.poll(&poll, 1, 2) > 0 {
                let count = recv(raw, &buffer, buffer.count, 0)
                guard count > 0, connection.receive(Array(buffer.prefix(count))) else { return }
            }
            let news = state.withLock { Array($0.pushed[pushedCount...]) }
            pushedCount += news.count
            for bytes in news { connection.push(bytes) }
            var output = connection.output()[...]
            while !output.isEmpty {
                let count = output.withUnsafeBytes {
                    send(raw, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
                }
                guard count > 0 else { return }
                output = output.dropFirst(count)
            }
        }
    }
}

/// The server's side of one connection; used by one thread.
private final class ServerConnection {
    private final class Body {
        var bytes: [UInt8]
        var isOpen: Bool
        init(_ response: HTTP2TestServer.Response) {
            bytes = response.body
            isOpen = response.isOpen
        }
    }

    private let handler: HTTP2TestServer.Handler
    private var session: OpaquePointer?
    private var requests: [Int32: HTTP2TestServer.Request] = [:]
    private var bodies: [Int32: Body] = [:]
    private var complete: [Int32] = []

    init(_ handler: @escaping HTTP2TestServer.Handler) {
        self.handler = handler
        var callbacks: OpaquePointer?
        nghttp2_session_callbacks_new(&callbacks)
        nghttp2_session_callbacks_set_on_header_callback(callbacks) {
            _, frame, name, nameCount, value, valueCount, _, user in
            let name = String(
                decoding: UnsafeBufferPointer(start: name, count: nameCount), as: UTF8.self)
            let value = String(
                decoding: UnsafeBufferPointer(start: value, count: valueCount), as: UTF8.self)
            frame.map { of(user)?.header($0.pointee.hd.stream_id, name, value) }
            return 0
        }
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks) {
            _, _, stream, data, count, user in
            of(user)?.requests[stream]?.body.append(
                contentsOf: UnsafeBufferPointer(start: data, count: count))
            return 0
        }
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks) { _, frame, user in
            guard let head = frame?.pointee.hd else { return 0 }
            if head.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0 {
                of(user)?.complete.append(head.stream_id)
            }
            return 0
        }
        let user = Unmanaged.passUnretained(self).toOpaque()
        nghttp2_session_server_new(&session, callbacks, user)
        nghttp2_session_callbacks_del(callbacks)
        nghttp2_submit_settings(session, 0, nil, 0)
    }

    deinit { nghttp2_session_del(session) }

    private func header(_ stream: Int32, _ name: String, _ value: String) {
        switch name {
        case ":method": requests[stream, default: .init()].method = value
        case ":path": requests[stream, default: .init()].path = value
        default: requests[stream, default: .init()].fields[name] = value
        }
    }

    func receive(_ bytes: [UInt8]) -> Bool {
        guard nghttp2_session_mem_recv(session, bytes, bytes.count) == bytes.count else {
            return false
        }
        for stream in complete {
            guard let request = requests.removeValue(forKey: stream) else { continue }
            if let response = handler(request) { answer(stream, response) }
        }
        complete = []
        return true
    }

    private func answer(_ stream: Int32, _ response: HTTP2TestServer.Response) {
        bodies[stream] = Body(response)
        var provider = nghttp2_data_provider()
        provider.read_callback = { _, stream, buffer, capacity, flags, _, user in
            guard let body = of(user)?.bodies[stream], let buffer else { return 0 }
            let count = min(capacity, body.bytes.count)
            if count == 0 && body.isOpen { return Int(NGHTTP2_ERR_DEFERRED.rawValue) }
            buffer.update(from: Array(body.bytes.prefix(count)), count: count)
            body.bytes.removeFirst(count)
            if body.bytes.isEmpty && !body.isOpen {
                flags?.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue
            }
            return count
        }
        var name = Array(":status".utf8)
        var value = Array(String(response.status).utf8)
        name.withUnsafeMutableBufferPointer { name in
            value.withUnsafeMutableBufferPointer { value in
                var pair = nghttp2_nv(
                    name: name.baseAddress, value: value.baseAddress, namelen: name.count,
                    valuelen: value.count, flags: 0)
                nghttp2_submit_response(session, stream, &pair, 1, &provider)
            }
        }
    }

    func push(_ bytes: [UInt8]) {
        for (stream, body) in bodies where body.isOpen {
            body.bytes += bytes
            nghttp2_session_resume_data(session, stream)
        }
    }

    func output() -> [UInt8] {
        var bytes: [UInt8] = []
        var data: UnsafePointer<UInt8>?
        while case let count = nghttp2_session_mem_send(session, &data), count > 0 {
            bytes.append(contentsOf: UnsafeBufferPointer(start: data, count: count))
        }
        return bytes
    }
}

private func of(_ user: UnsafeMutableRawPointer?) -> ServerConnection? {
    user.map { Unmanaged<ServerConnection>.fromOpaque($0).takeUnretainedValue() }
}

/// A detached thread.
enum DetachedThread {
    static func start(_ body: @escaping @Sendable () -> Void) {
        var thread = pthread_t()
        let boxed = Unmanaged.passRetained(Box(body)).toOpaque()
        pthread_create(
            &thread, nil,
            { argument in
                if let argument { Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().body() }
                return nil
            }, boxed)
        pthread_detach(thread)
    }

    private final class Box {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
}

/// Waits for a condition without sleeping longer than it takes; false after the bound.
func becomesTrue(
    within seconds: Double = 30, _ condition: () async throws -> Bool
) async rethrows -> Bool {
    let end = ContinuousClock.now + .seconds(seconds)
    while ContinuousClock.now < end {
        if try await condition() { return true }
        // tidy: the pause of the poll itself
        try? await Task.sleep(for: .milliseconds(2))
    }
    return try await condition()
}
