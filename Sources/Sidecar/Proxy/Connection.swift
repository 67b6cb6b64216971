import CLinux
import Glibc

/// What a codec (HTTP/1.1, HTTP/2) hears from the connection below it. An abstract class and not a
/// protocol: a call through a class costs one indirect jump, an existential several.
package class ConnectionOwner {
    /// Takes bytes in; returns how many were used up. The rest is kept and offered again with what
    /// follows, or after `resume`.
    func received(_ bytes: UnsafeRawBufferPointer) -> Int { preconditionFailure("abstract") }
    /// The peer sends no more.
    func ended() { preconditionFailure("abstract") }
    /// The connection is broken; `code` is an errno. Nothing can be sent or received any more.
    func failed(_ code: Int32) { preconditionFailure("abstract") }
    /// What was sent did not fit into the socket: the source should be paused.
    func congested() {}
    /// All of it has left now.
    func drained() {}
    /// A connect has succeeded, and the TLS handshake where there is one.
    func connected() {}
    func deadlinePassed() {}
    /// The turn that was asked for with `EventLoop.runAgain`, behind all events of a batch.
    func turn() {}

    package init() {}
}

/// A codec that decides for itself what goes out next, because many streams share its connection.
/// Whoever has something for it asks the worker for a turn (`Worker.produceLater`).
package class OutputSource: ConnectionOwner {
    var isWaiting = false
    /// Writes what can be written now. May be called inside of a call of its own library: then it
    /// does nothing, and asks again when that has returned.
    func produce() { preconditionFailure("abstract") }
}

/// A stream socket between the loop and a codec: reading into the loop's scratch, keeping what the
/// codec leaves, corked writing, back-pressure. TLS stands in `receive` and `send`, so that neither
/// the codec nor the cork knows of it.
///
///     connecting ──► handshaking ──► open        (each but the last may be left out)
///
/// Output is corked: it gathers in the worker's write scratch until the end of the turn, so that a
/// head and the body behind it leave in one system call. What the socket does not take waits in
/// `pending`; then the owner hears `congested` and stops its source, so `pending` holds at most
/// about one read.
package final class Connection: EventHandler {
    private enum Stage { case connecting, handshaking, open }

    unowned(unsafe) let worker: Worker
    private let descriptor: Int32
    private(set) var owner: ConnectionOwner?
    /// `nil` in plaintext. Gone when the connection is closed.
    private(set) var tls: TLSSession?
    /// Why there is no session, where `failed` was heard for that reason.
    private(set) var tlsFailure: TLSFailure?

    private var pending = ByteQueue()
    private var unread = ByteQueue()
    /// Bytes that the kernel took from us; with TLS, those that were in the records that it took.
    private(set) var bytesWritten: UInt64 = 0
    private var writeFailure: Int32 = 0

    private var stage: Stage
    /// The end of what we send was not taken by the socket yet.
    private var owesCloseNotify = false
    private var mayHaveMore = false
    private var sawPeerClose = false
    private var isDelivering = false
    private(set) var isPaused = false
    private(set) var isClosed = false
    /// The peer's end of stream has been passed on.
    private(set) var hasEnded = false
    /// While reading is paused, a hang-up is reported as a failure. For the downstream side, where
    /// it means that nobody waits for the answer; an upstream that hung up may have left us data.
    var failsOnHangup = false

    init(
        worker: Worker, descriptor: Int32, owner: ConnectionOwner, isConnecting: Bool,
        tls: TLSSession? = nil
    ) throws(SystemError) {
        self.worker = worker
        self.descriptor = descriptor
        self.owner = owner
        self.tls = tls
        stage = isConnecting ? .connecting : tls == nil ? .open : .handshaking
        super.init()
        if let tls, !tls.attach(descriptor) { throw SystemError("TLS", code: ENOMEM) }
        try worker.loop.register(self, descriptor)
    }

    var isCongested: Bool { !pending.isEmpty || owesCloseNotify }
    var hasUnread: Bool { !unread.isEmpty }

    // MARK: Events

    override package func ready(_ events: Readiness) {
        guard !isClosed else { return }
        if stage != .open {
            guard advance(events) else { return worker.flush() }
        }
        if events.contains(.writable) { becameWritable() }
        if !events.isDisjoint(with: [.readable, .peerClosed, .failed]) {
            mayHaveMore = true
            if !events.isDisjoint(with: [.peerClosed, .failed]) { sawPeerClose = true }
        }
        if isPaused, failsOnHangup, !events.isDisjoint(with: [.hungUp, .failed]) {
            fail(ECONNRESET)
        } else {
            // After a failed write, what the peer sent before is still readable: an early answer.
            if writeFailure != 0 { mayHaveMore = true }
            readTurn()
            if writeFailure != 0, !isClosed { fail(writeFailure) }
        }
        if events.contains(.again) { owner?.turn() }
        worker.flush()
    }

    override package func deadlinePassed() {
        owner?.deadlinePassed()
        worker.flush()
    }

    /// True when the connection is open, and `ready` may go on.
    private func advance(_ events: Readiness) -> Bool {
        if stage == .connecting {
            guard !events.isDisjoint(with: [.writable, .failed, .hungUp]) else { return false }
            let code = Socket.pendingError(descriptor)
            if code != 0 {
                fail(code)
                return false
            }
            stage = tls == nil ? .open : .handshaking
        }
        if let tls, stage == .handshaking {
            if !events.isDisjoint(with: [.peerClosed, .failed]) { sawPeerClose = true }
            switch tls.handshake() {
            case .incomplete: return false
            case .failed(let failure):
                tlsFailure = failure
                fail(EPROTO)
                return false
            case .done:
                stage = .open
                // What came behind the handshake has been read already, and is no event any more.
                mayHaveMore = true
            }
        }
        owner?.connected()
        return !isClosed
    }

    /// Another owner hears what follows. For a codec that is made when the peer has chosen it.
    func handOver(to owner: ConnectionOwner) { self.owner = owner }

    private func fail(_ code: Int32) {
        let owner = self.owner
        close()
        owner?.failed(code)
    }

    // MARK: Reading

    /// No more `received` until `resume`.
    func pause() { isPaused = true }

    func resume() {
        guard isPaused else { return }
        isPaused = false
        worker.loop.runAgain(self)
    }

    /// What was kept is not wanted any more. Not from inside of `received`.
    func discardUnread() {
        precondition(!isDelivering, "the owner is reading it")
        unread.discard(pool: worker.loop.pool)
    }

    /// Offers what was kept again, soon.
    func offerAgain() {
        if hasUnread { worker.loop.runAgain(self) }
    }

    private func readTurn() {
        if !isPaused, !unread.isEmpty, !hasEnded { deliverUnread() }
        var reads = 0
        while mayHaveMore, !isPaused, !isClosed {
            if reads == Limits.readsPerTurn { return worker.loop.runAgain(self) }
            reads += 1
            let isFresh = unread.isEmpty
            guard let room = isFresh ? worker.loop.readScratch : unreadRoom() else {
                return fail(ENOBUFS)
            }
            let count = receive(room)
            if count > 0 {
                if !sawPeerClose { mayHaveMore = tls?.mayHaveMore ?? (count == room.count) }
                if isFresh {
                    deliver(
                        UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(room)[..<count]))
                } else {
                    unread.added(count)
                    deliverUnread()
                }
                worker.flush()
            } else if count == 0 {
                mayHaveMore = false
                hasEnded = true
                owner?.ended()
            } else if errno == EAGAIN {
                mayHaveMore = false
            } else if errno != EINTR {
                fail(errno)
            }
        }
    }

    private func unreadRoom() -> UnsafeMutableRawBufferPointer? {
        unread.reserve(Limits.readBytes, pool: worker.loop.pool).map {
            UnsafeMutableRawBufferPointer(start: $0, count: Limits.readBytes)
        }
    }

    private func deliver(_ bytes: UnsafeRawBufferPointer) {
        guard let owner else { return }
        let used = owner.received(bytes)
        guard used < bytes.count, !isClosed else { return }
        let rest = UnsafeRawBufferPointer(rebasing: bytes[used...])
        if !unread.append(rest, pool: worker.loop.pool) { fail(ENOBUFS) }
    }

    private func deliverUnread() {
        guard let owner else { return }
        isDelivering = true
        let used = owner.received(unread.bytes)
        isDelivering = false
        if isClosed {
            unread.discard(pool: worker.loop.pool)
        } else {
            unread.consume(used, pool: worker.loop.pool)
        }
    }

    private func receive(_ room: UnsafeMutableRawBufferPointer) -> Int {
        if let tls { return tls.read(room) }
        return recv(descriptor, room.baseAddress, room.count, 0)
    }

    /// Whether an idle connection is still open, as far as the kernel knows: no data, no end.
    func isQuiet() -> Bool {
        var byte: UInt8 = 0
        let count = recv(descriptor, &byte, 1, Int32(MSG_PEEK))
        return count < 0 && errno == EAGAIN
    }

    // MARK: Writing

    /// Room for a head; say with `commit` how much of it was used. `nil`: no memory to lend.
    func reserve(_ count: Int) -> UnsafeMutableRawBufferPointer? {
        if pending.isEmpty { return worker.scratch.reserve(count, for: self) }
        return pending.reserve(count, pool: worker.loop.pool).map {
            UnsafeMutableRawBufferPointer(start: $0, count: count)
        }
    }

    func commit(_ count: Int) {
        if pending.isEmpty { worker.scratch.commit(count) } else { pending.added(count) }
    }

    /// Sends bytes behind everything before them. Large ones do not pass through the scratch.
    func emit(_ bytes: UnsafeRawBufferPointer) {
        guard !isClosed, writeFailure == 0, bytes.count > 0 else { return }
        if !pending.isEmpty {
            if !pending.append(bytes, pool: worker.loop.pool) { writeBroke(ENOBUFS) }
        } else if bytes.count >= WriteScratch.copiesBelow {
            worker.scratch.flush(for: self, with: bytes)
        } else {
            worker.scratch.append(bytes, for: self)
        }
    }

    func emit(_ text: StaticString) {
        emit(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    /// Called by the scratch: sends two pieces as one, and keeps what the socket does not take.
    func transmit(_ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer) {
        guard !isClosed, writeFailure == 0 else { return }
        var sent = 0
        if stage == .open {
            let count = send(first, second)
            if count < 0 {
                guard errno == EAGAIN || errno == EINTR else { return writeBroke(errno) }
            } else {
                sent = count
                bytesWritten += UInt64(count)
            }
        }
        guard sent < first.count + second.count else { return }
        let pool = worker.loop.pool
        let rest1 = UnsafeRawBufferPointer(rebasing: first[min(sent, first.count)...])
        let rest2 = UnsafeRawBufferPointer(rebasing: second[max(sent - first.count, 0)...])
        guard pending.append(rest1, pool: pool), pending.append(rest2, pool: pool) else {
            return writeBroke(ENOBUFS)
        }
        owner?.congested()
    }

    private func send(_ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer) -> Int {
        if let tls { return tls.write(first, second) }
        let flags = Int32(MSG_NOSIGNAL)
        if second.isEmpty { return Glibc.send(descriptor, first.baseAddress, first.count, flags) }
        if first.isEmpty { return Glibc.send(descriptor, second.baseAddress, second.count, flags) }
        return withUnsafeTemporaryAllocation(of: iovec.self, capacity: 2) { vectors in
            vectors[0] = iovec(
                iov_base: UnsafeMutableRawPointer(mutating: first.baseAddress), iov_len: first.count
            )
            vectors[1] = iovec(
                iov_base: UnsafeMutableRawPointer(mutating: second.baseAddress),
                iov_len: second.count)
            var message = msghdr()
            message.msg_iov = vectors.baseAddress
            message.msg_iovlen = 2
            return sendmsg(descriptor, &message, flags)
        }
    }

    /// A failed write is reported from the next turn and not from here, where the caller is in the
    /// middle of its work.
    private func writeBroke(_ code: Int32) {
        writeFailure = code
        pending.discard(pool: worker.loop.pool)
        worker.loop.runAgain(self)
    }

    private func becameWritable() {
        if tls?.readAwaitsWritable == true { mayHaveMore = true }
        if !pending.isEmpty { return flushPending() }
        guard owesCloseNotify, endOutput() else { return }
        owner?.drained()
    }

    private func flushPending() {
        let count = send(pending.bytes, UnsafeRawBufferPointer(start: nil, count: 0))
        if count < 0 {
            if errno != EAGAIN, errno != EINTR { writeBroke(errno) }
            return
        }
        bytesWritten += UInt64(count)
        pending.consume(count, pool: worker.loop.pool)
        if pending.isEmpty {
            owner?.drained()
        } else {
            owner?.congested()
        }
    }

    // MARK: The end

    /// No more is sent; what was sent leaves first. Reading goes on.
    func shutDownWriting() {
        worker.flush()
        if pending.isEmpty, !isClosed { _ = endOutput() }
    }

    private func endOutput() -> Bool {
        owesCloseNotify = tls?.closeNotify() == false
        if !owesCloseNotify { shutdown(descriptor, Int32(SHUT_WR)) }
        return !owesCloseNotify
    }

    /// Closes at once; what was not sent is lost. With `resets`, the peer sees a reset and not an
    /// orderly end, so that it cannot take a cut message for a whole one.
    func close(resets: Bool = false) {
        guard !isClosed else { return }
        isClosed = true
        worker.scratch.forget(self)
        worker.loop.deregister(self)
        // Behind bytes that were lost, it would say that nothing was.
        if !resets, pending.isEmpty, writeFailure == 0 { _ = tls?.closeNotify() }
        tls = nil
        if resets {
            var option = linger(l_onoff: 1, l_linger: 0)
            setsockopt(
                descriptor, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
        }
        _ = Glibc.close(descriptor)
        pending.discard(pool: worker.loop.pool)
        if !isDelivering { unread.discard(pool: worker.loop.pool) }
        owner = nil
    }
}
