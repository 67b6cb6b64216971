import CLinux
import Glibc

/// A thread of its own for work that waits in system calls, which Swift's cooperative threads must
/// not do.
enum Thread {
    private final class Body {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    /// Starts a detached thread; `name` has at most 15 bytes.
    static func start(_ name: String, _ run: @escaping @Sendable () -> Void) {
        precondition(name.utf8.count <= 15, "a thread's name has at most 15 bytes")
        let body = Unmanaged.passRetained(
            Body {
                weir_name_thread(name)
                run()
            }
        ).toOpaque()
        var thread = pthread_t()
        // SAFETY: the body is retained until the new thread takes it over, exactly once.
        let result = pthread_create(
            &thread, nil,
            { raw in
                guard let raw else { return nil }
                Unmanaged<Body>.fromOpaque(raw).takeRetainedValue().run()
                return nil
            }, body)
        precondition(result == 0, "no thread can be started")
        pthread_detach(thread)
    }
}

/// An eventfd: any thread wakes the one that polls it.
final class WakeUp: Sendable {
    let descriptor: Int32

    init() {
        descriptor = eventfd(0, Int32(EFD_NONBLOCK) | Int32(EFD_CLOEXEC))
        precondition(descriptor >= 0, "no eventfd can be made")
    }

    deinit { close(descriptor) }

    func signal() {
        var one: UInt64 = 1
        // A full counter (EAGAIN) is a signal already.
        _ = write(descriptor, &one, 8)
    }

    func drain() {
        var count: UInt64 = 0
        _ = read(descriptor, &count, 8)
    }
}

/// Counts signals, and lets one waiting thread go on for each.
final class CountingSignal: Sendable {
    private let descriptor: Int32

    init() {
        descriptor = eventfd(0, Int32(EFD_SEMAPHORE) | Int32(EFD_CLOEXEC))
        precondition(descriptor >= 0, "no eventfd can be made")
    }

    deinit { close(descriptor) }

    func signal() {
        var one: UInt64 = 1
        write(descriptor, &one, 8)
    }

    func wait() {
        var one: UInt64 = 0
        while read(descriptor, &one, 8) < 0, errno == EINTR {}
    }
}

enum MonotonicClock {
    static var nowNanoseconds: UInt64 { weir_monotonic_nanoseconds() }
}
