import CLinux
import Glibc
import SidecarCore
import Synchronization

/// A running loop for one test; `stop` ends and joins its thread.
final class LoopFixture: @unchecked Sendable {
    // SAFETY: immutable.
    let loop: EventLoop
    private let thread: LoopThread

    init() throws {
        loop = try EventLoop()
        thread = try LoopThread(loop, name: "test-loop")
    }

    func stop() {
        loop.stop()
        thread.join()
    }

    /// Runs `body` on the loop and waits for its result.
    func sync<Result>(_ body: () -> Result) -> Result {
        let done = Signal()
        var result: Result?
        withoutActuallyEscaping(body) { body in
            let call = UncheckedCall { result = body() }
            loop.execute {
                call.run()
                done.set()
            }
            precondition(done.wait(), "the loop did not answer")
        }
        guard let result else { preconditionFailure("the loop did not answer") }
        return result
    }
}

final class UncheckedCall: @unchecked Sendable {
    // SAFETY: run once, on the loop, while the caller waits.
    private var body: (() -> Void)?
    init(_ body: @escaping () -> Void) { self.body = body }

    /// The closure is let go of before the caller hears that it has run: one that does not escape
    /// must not be found in the loop's mail afterwards.
    func run() {
        body?()
        body = nil
    }
}

/// Set once; waiters poll with a bound of ten seconds.
final class Signal: Sendable {
    private let flag = Atomic<Bool>(false)
    func set() { flag.store(true, ordering: .sequentiallyConsistent) }
    var isSet: Bool { flag.load(ordering: .sequentiallyConsistent) }

    func wait() -> Bool { eventually { self.isSet } }
}

/// Polls a condition until it holds; false after thirty seconds, because all tests share two cores.
func eventually(_ condition: () -> Bool) -> Bool {
    let end = weir_monotonic_nanoseconds() + 30_000_000_000
    while !condition() {
        if weir_monotonic_nanoseconds() > end { return false }
        // tidy: the pause of the poll itself
        usleep(500)
    }
    return true
}

final class Counter: Sendable {
    private let value = Atomic<Int>(0)
    func increment() { value.add(1, ordering: .relaxed) }
    var count: Int { value.load(ordering: .relaxed) }
}
