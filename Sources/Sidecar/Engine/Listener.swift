import Glibc

/// Accepts connections and hands them on. Without descriptors left (EMFILE) it rests and tries
/// again: the connections wait in the kernel's queue, and the loop neither spins nor forgets them.
package final class Listener: EventHandler {
    private let loop: EventLoop
    private let descriptor: FileDescriptor
    private let accepted: (Int32, SocketAddress) -> Void
    private var isOpen = true
    package let address: SocketAddress
    /// How often there was no descriptor for a waiting connection.
    package private(set) var rests = 0

    /// `accepted` becomes the owner of the descriptor.
    package init(
        _ descriptor: consuming FileDescriptor, loop: EventLoop,
        accepted: @escaping (Int32, SocketAddress) -> Void
    ) throws(SystemError) {
        guard let address = Socket.localAddress(descriptor.raw) else {
            throw SystemError("getsockname")
        }
        self.address = address
        self.descriptor = descriptor
        self.loop = loop
        self.accepted = accepted
        super.init()
        try loop.register(self, self.descriptor.raw)
    }

    /// Takes no further connections; those in the kernel's queue are reset when the descriptor is
    /// closed with the last reference.
    package func close() {
        isOpen = false
        loop.deregister(self)
        shutdown(descriptor.raw, Int32(SHUT_RDWR))
    }

    override package func ready(_ events: Readiness) { acceptWaiting() }
    override package func deadlinePassed() { acceptWaiting() }

    private func acceptWaiting() {
        guard isOpen else { return }
        var peer = address
        for _ in 0..<Limits.acceptsPerTurn {
            let (raw, code) = Socket.accept(descriptor.raw, peer: &peer)
            if raw >= 0 {
                accepted(raw, peer)
                guard isOpen else { return }
                continue
            }
            switch code {
            case EAGAIN: return
            case EINTR, ECONNABORTED, EPROTO: continue
            default:
                // EMFILE, ENFILE, ENOBUFS, ENOMEM.
                rests += 1
                loop.setDeadline(self, afterNanoseconds: Limits.acceptRestNanoseconds)
                return
            }
        }
        loop.runAgain(self)
    }
}
