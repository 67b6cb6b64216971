import CLinux
import Glibc

/// A thread of its own for a loop. `join` waits for the end after `EventLoop.stop`.
package final class LoopThread: @unchecked Sendable {
    // SAFETY: `thread` is written in `init` and read in `join`, by the owner.
    package let loop: EventLoop
    private var thread = pthread_t()
    private var isJoined = false

    private final class Start {
        let loop: EventLoop
        let name: String
        init(loop: EventLoop, name: String) {
            self.loop = loop
            self.name = name
        }
    }

    /// `name` is what `top -H` shows: at most 15 bytes count.
    package init(_ loop: EventLoop, name: String) throws(SystemError) {
        self.loop = loop
        let start = Unmanaged.passRetained(Start(loop: loop, name: String(name.prefix(15))))
        let result = pthread_create(
            &thread, nil,
            { raw in
                guard let raw else { return nil }
                let start = Unmanaged<Start>.fromOpaque(raw).takeRetainedValue()
                weir_name_thread(start.name)
                start.loop.run()
                return nil
            }, start.toOpaque())
        guard result == 0 else {
            start.release()
            throw SystemError("pthread_create", code: result)
        }
    }

    package func join() {
        guard !isJoined else { return }
        isJoined = true
        pthread_join(thread, nil)
    }
}
