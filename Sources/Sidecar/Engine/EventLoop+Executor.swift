/// `async` code on the loop. A serial executor alone is not enough: children of task groups leave
/// it unless a task-executor preference is set too, so the loop is both, and `spawn` sets it. On a
/// loop there is no `Task.sleep` and no `Task.detached`; `sleep(nanoseconds:)` is the loop's own.
extension EventLoop {
    package func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        if isInLoop {
            enqueueInLoop(job)
        } else {
            post(.job(job))
        }
    }

    package func checkIsolated() {
        precondition(isInLoop, "not on the loop's thread")
    }

    /// Starts `body` on the loop, with its children; from any thread.
    @discardableResult
    package func spawn(_ body: @escaping @Sendable () async -> Void) -> Task<Void, Never> {
        Task(executorPreference: self) { await body() }
    }

    /// Suspends the calling task, which must run on this loop; throws when it is cancelled.
    package func sleep(nanoseconds: UInt64) async throws(CancellationError) {
        let sleeper = Sleeper(loop: self)
        let completed = await withTaskCancellationHandler {
            await withUnsafeContinuation { continuation in
                sleeper.begin(nanoseconds, continuation)
            }
        } onCancel: {
            self.execute { sleeper.end(completed: false) }
        }
        if !completed { throw CancellationError() }
    }
}

/// One suspended `sleep`: ended once, by its timer or by cancellation, whichever is first.
private final class Sleeper: @unchecked Sendable {
    // SAFETY: touched on the loop's thread only.
    private let loop: EventLoop
    private var continuation: UnsafeContinuation<Bool, Never>?
    private var timer: Timer?
    private var isCancelled = false

    init(loop: EventLoop) { self.loop = loop }

    func begin(_ nanoseconds: UInt64, _ continuation: UnsafeContinuation<Bool, Never>) {
        loop.preconditionInLoop()
        if isCancelled { return continuation.resume(returning: false) }
        self.continuation = continuation
        timer = loop.schedule(afterNanoseconds: nanoseconds) { self.end(completed: true) }
    }

    func end(completed: Bool) {
        if !completed { isCancelled = true }
        timer?.cancel()
        timer = nil
        continuation?.resume(returning: completed)
        continuation = nil
    }
}

/// Carries something that belongs to a loop into a `@Sendable` closure that runs on that loop.
package struct LoopBound<Value>: @unchecked Sendable {
    // SAFETY: the value is reached on the loop's thread only, which `value` checks.
    private let loop: EventLoop
    private let stored: Value

    package init(_ value: Value, loop: EventLoop) {
        self.loop = loop
        stored = value
    }

    package var value: Value {
        loop.preconditionInLoop()
        return stored
    }
}
