import CLinux
import Glibc

/// One HTTP/2 connection of a client with prior knowledge (RFC 9113 §3.3): a socket of a loop and
/// the session that its bytes belong to. When it has failed it is over; its owner makes another
/// one.
///
/// Belongs to its loop. `heard` may be called inside any call that reads or writes, and the owner
/// may close the connection in it.
package final class HTTP2ClientConnection {
    package enum Signal {
        /// The socket is connected; the peer has not said anything yet.
        case connected
        /// Bytes came: a sign of life, before the events that they hold.
        case alive
        case event(HTTP2Event)
        /// The last signal, sent once, unless `close` came before.
        case failed
    }

    private let loop: EventLoop
    private let session: HTTP2ClientSession
    private let heard: (Signal) -> Void
    private let unsentBytesMax: Int
    private var socket: HTTP2Socket?
    private var isConnecting = true
    private var unsent: [UInt8] = []

    /// Begins to connect.
    package init(
        loop: EventLoop, to address: SocketAddress, limits: HTTP2Limits = HTTP2Limits(),
        heard: @escaping (Signal) -> Void
    ) throws {
        self.loop = loop
        self.heard = heard
        unsentBytesMax = limits.outgoingBytesMax
        session = try HTTP2ClientSession(limits: limits)
        let socket = HTTP2Socket(try Socket.connect(to: address))
        socket.connection = self
        self.socket = socket
        try loop.register(socket, socket.raw)
    }

    package var isClosed: Bool { socket == nil }

    package func submit(_ head: HTTP2RequestHead, body: [UInt8]) throws(HTTP2Error) -> Int32 {
        let stream = try session.submit(head, body: body)
        flushSoon()
        return stream
    }

    package func consume(stream: Int32, _ count: Int) {
        session.consume(stream: stream, count)
        flushSoon()
    }

    package func cancel(stream: Int32) {
        session.cancel(stream: stream)
        flushSoon()
    }

    package func ping(_ opaque: UInt64) {
        session.ping(opaque)
        flushSoon()
    }

    /// Says goodbye as far as the socket takes it, and closes. No signal follows.
    package func close() {
        guard let socket else { return }
        if !isConnecting {
            session.shutDown()
            _ = write(to: socket)
        }
        release()
    }

    private func release() {
        if let socket { loop.deregister(socket) }
        socket = nil
        unsent = []
    }

    private func fail() {
        guard socket != nil else { return }
        release()
        heard(.failed)
    }

    // MARK: The socket

    /// After the events of this batch, so that what was submitted together is written together and
    /// nothing is sent from inside a call of the owner.
    private func flushSoon() {
        if let socket { loop.runAgain(socket) }
    }

    fileprivate func ready(_ events: Readiness) {
        guard let socket else { return }
        if isConnecting {
            guard !events.isDisjoint(with: [.writable, .failed, .peerClosed]) else { return }
            guard Socket.pendingError(socket.raw) == 0 else { return fail() }
            isConnecting = false
            heard(.connected)
        }
        if events != .again { readAll() }
        flush()
    }

    private func readAll() {
        while let socket {
            let scratch = loop.readScratch
            let count = recv(socket.raw, scratch.baseAddress, scratch.count, 0)
            if count < 0 && errno == EINTR { continue }
            if count < 0 && errno == EAGAIN { return }
            guard count > 0 else { return fail() }
            heard(.alive)
            guard received(UnsafeRawBufferPointer(start: scratch.baseAddress, count: count)) else {
                flush()
                return fail()
            }
        }
    }

    /// False when the peer broke the protocol.
    private func received(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var isWhole = true
        do {
            try session.receive(bytes)
        } catch {
            isWhole = false
        }
        deliverEvents()
        return isWhole
    }

    private func deliverEvents() {
        for event in session.takeEvents() where socket != nil { heard(.event(event)) }
    }

    private func flush() {
        guard let socket, !isConnecting else { return }
        let isWhole = write(to: socket)
        // Sending can end streams, too.
        deliverEvents()
        if !isWhole || session.isFinished { fail() }
    }

    /// False when the connection is broken.
    private func write(to socket: HTTP2Socket) -> Bool {
        do {
            while unsent.count < unsentBytesMax,
                try session.takeOutput({ unsent.append(contentsOf: $0) })
            {}
        } catch {
            return false
        }
        var sent = 0
        defer { unsent.removeFirst(sent) }
        while sent < unsent.count {
            let count = unsent.withUnsafeBytes {
                send(
                    socket.raw, $0.baseAddress.map { $0 + sent }, $0.count - sent,
                    Int32(MSG_NOSIGNAL))
            }
            if count < 0 && errno == EINTR { continue }
            if count < 0 && errno == EAGAIN { return true }
            guard count > 0 else { return false }
            sent += count
        }
        return true
    }
}

/// The registered end of a connection.
private final class HTTP2Socket: EventHandler {
    private let descriptor: FileDescriptor
    weak var connection: HTTP2ClientConnection?
    var raw: Int32 { descriptor.raw }

    init(_ descriptor: consuming FileDescriptor) {
        self.descriptor = descriptor
        super.init()
    }

    override func ready(_ events: Readiness) { connection?.ready(events) }
}
