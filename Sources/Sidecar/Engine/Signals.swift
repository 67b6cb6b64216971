import CLinux
import Glibc

/// Signals as events of a loop. Make it before other threads are started, because they inherit the
/// mask that keeps the signals for the descriptor.
package final class SignalSource: EventHandler {
    private let loop: EventLoop
    private let descriptor: FileDescriptor
    private let received: (Int32) -> Void

    package init(
        _ signals: [Int32], loop: EventLoop, received: @escaping (Int32) -> Void
    ) throws(SystemError) {
        let raw = weir_signal_descriptor(signals + [0])
        guard raw >= 0 else { throw SystemError("signalfd") }
        descriptor = FileDescriptor(owning: raw)
        self.loop = loop
        self.received = received
        super.init()
        try loop.register(self, raw)
    }

    package func close() { loop.deregister(self) }

    override package func ready(_ events: Readiness) {
        var information = signalfd_siginfo()
        let size = MemoryLayout<signalfd_siginfo>.size
        while read(descriptor.raw, &information, size) == size {
            received(Int32(bitPattern: information.ssi_signo))
        }
    }
}
