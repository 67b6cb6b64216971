import CLinux
import Glibc
import Synchronization

/// What the kernel reported of a descriptor, as the epoll bits.
package struct Readiness: OptionSet, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package static let readable = Readiness(rawValue: EPOLLIN.rawValue)
    package static let writable = Readiness(rawValue: EPOLLOUT.rawValue)
    /// The peer has sent its last byte (or reset the connection): reading will meet the end.
    package static let peerClosed = Readiness(rawValue: EPOLLRDHUP.rawValue | EPOLLHUP.rawValue)
    /// Both directions are over: nothing can be sent any more either.
    package static let hungUp = Readiness(rawValue: EPOLLHUP.rawValue)
    package static let failed = Readiness(rawValue: EPOLLERR.rawValue)
    /// Not from the kernel: the handler asked for another turn with `runAgain`.
    package static let again = Readiness(rawValue: 1 << 20)
}

/// Who hears of a descriptor's events. One registration for its whole life, edge-triggered for both
/// directions, so that no `epoll_ctl` is needed afterwards: a handler must remember what it did not
/// finish, and ask for another turn with `EventLoop.runAgain`.
package class EventHandler: Timed {
    fileprivate var slot: Int32 = -1
    fileprivate var asksForTurn = false

    package func ready(_ events: Readiness) {
        preconditionFailure("a subclass handles events")
    }
}

/// One thread, one epoll instance, and everything that runs on it. What belongs to a loop (all
/// connections do, for ever) is touched on its thread only and needs no lock; other threads reach
/// it through `execute`. The loop is also an executor, so that `async` code can run on its thread.
package final class EventLoop: SerialExecutor, TaskExecutor, @unchecked Sendable {
    // SAFETY: everything but `mailbox`, `owner` and `stopping` is touched on the loop's thread
    // only, or before `run`.

    private struct Slot {
        var handler: EventHandler?
        var generation: UInt32 = 0
    }

    enum Work {
        case job(UnownedJob)
        case closure(@Sendable () -> Void)
    }

    private let poll: FileDescriptor
    private let wakeup: FileDescriptor
    private static let wakeupWord = UInt64.max

    private var slots: ContiguousArray<Slot> = []
    private var freeSlots: ContiguousArray<Int32> = []
    private var timers = TimerHeap()
    private var turns: ContiguousArray<EventHandler> = []
    private var spareTurns: ContiguousArray<EventHandler> = []
    private var jobs: ContiguousArray<UnownedJob> = []
    private var spareJobs: ContiguousArray<UnownedJob> = []

    private let mailbox = Mutex<ContiguousArray<Work>>([])
    private let owner = Atomic<UInt>(0)
    private let stopping = Atomic<Bool>(false)

    package let pool: BufferPool
    /// Where every connection of the loop reads to. What is not used up before the handler returns
    /// must be copied.
    package let readScratch: UnsafeMutableRawBufferPointer
    /// CLOCK_MONOTONIC, read once per batch of events.
    package private(set) var nowNanoseconds: UInt64

    package init(pool: BufferPool = BufferPool()) throws(SystemError) {
        poll = try Self.open(epoll_create1(Int32(EPOLL_CLOEXEC)), "epoll_create1")
        wakeup = try Self.open(eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK)), "eventfd")
        readScratch = .allocate(byteCount: Limits.readBytes, alignment: 64)
        self.pool = pool
        nowNanoseconds = weir_monotonic_nanoseconds()
        var event = epoll_event()
        // Edge-triggered: each write to the eventfd is an edge, so it is never read.
        event.events = EPOLLIN.rawValue | EPOLLET.rawValue
        event.data.u64 = Self.wakeupWord
        guard epoll_ctl(poll.raw, EPOLL_CTL_ADD, wakeup.raw, &event) == 0 else {
            throw SystemError("epoll_ctl")
        }
    }

    deinit { readScratch.deallocate() }

    private static func open(_ raw: Int32, _ call: String) throws(SystemError) -> FileDescriptor {
        guard raw >= 0 else { throw SystemError(call) }
        return FileDescriptor(owning: raw)
    }

    // MARK: The thread

    /// Runs until `stop`; the calling thread is the loop's from now on.
    package func run() {
        let claimed = owner.compareExchange(
            expected: 0, desired: UInt(weir_thread_identity()), ordering: .sequentiallyConsistent)
        precondition(claimed.exchanged, "a loop runs on one thread")
        let events = UnsafeMutablePointer<epoll_event>.allocate(capacity: Limits.eventsPerWait)
        defer {
            events.deallocate()
            owner.store(0, ordering: .sequentiallyConsistent)
        }
        nowNanoseconds = weir_monotonic_nanoseconds()
        takeMail()
        while !stopping.load(ordering: .relaxed) {
            runJobs()
            wait(events)
            fireTimers()
            takeTurns()
        }
    }

    /// Ends `run` after the current batch; from any thread.
    package func stop() {
        stopping.store(true, ordering: .relaxed)
        wake()
    }

    package var isInLoop: Bool {
        owner.load(ordering: .relaxed) == UInt(weir_thread_identity())
    }

    /// Traps elsewhere than on the loop's thread; before `run`, setting up is anybody's.
    package func preconditionInLoop() {
        precondition(isInLoop || owner.load(ordering: .relaxed) == 0, "not on the loop's thread")
    }

    private func wait(_ events: UnsafeMutablePointer<epoll_event>) {
        let count = epoll_wait(
            poll.raw, events, Int32(Limits.eventsPerWait), waitMilliseconds())
        nowNanoseconds = weir_monotonic_nanoseconds()
        // Interrupted by a signal (a debugger, SIGSTOP and SIGCONT): nothing was reported.
        guard count > 0 else { return }
        var mail = false
        for index in 0..<Int(count) {
            let word = events[index].data.u64
            if word == Self.wakeupWord {
                mail = true
                continue
            }
            let position = Int(word & 0xFFFF_FFFF)
            // A descriptor closed earlier in this batch, its slot perhaps taken again.
            guard slots[position].generation == UInt32(word >> 32),
                let handler = slots[position].handler
            else { continue }
            handler.ready(Readiness(rawValue: events[index].events))
        }
        if mail { takeMail() }
    }

    private func waitMilliseconds() -> Int32 {
        if !turns.isEmpty || !jobs.isEmpty { return 0 }
        let next = timers.nextNanoseconds
        if next == .max { return -1 }
        if next <= nowNanoseconds { return 0 }
        // Rounded up, or the loop would wake early and spin until the deadline.
        return Int32(min((next - nowNanoseconds + 999_999) / 1_000_000, 60_000))
    }

    // MARK: Descriptors

    /// From now on `handler` hears of the descriptor, and the loop keeps it alive. Events come at
    /// once for what is ready already.
    package func register(_ handler: EventHandler, _ descriptor: Int32) throws(SystemError) {
        preconditionInLoop()
        precondition(handler.slot < 0, "one registration for each handler")
        guard slots.count - freeSlots.count < Limits.registrationsPerLoop else {
            throw SystemError("epoll_ctl", code: ENOSPC)
        }
        let position: Int32
        if let free = freeSlots.popLast() {
            position = free
        } else {
            position = Int32(slots.count)
            slots.append(Slot())
        }
        var event = epoll_event()
        event.events =
            EPOLLIN.rawValue | EPOLLOUT.rawValue | EPOLLRDHUP.rawValue | EPOLLET.rawValue
        event.data.u64 = UInt64(slots[Int(position)].generation) << 32 | UInt64(position)
        guard epoll_ctl(poll.raw, EPOLL_CTL_ADD, descriptor, &event) == 0 else {
            let error = SystemError("epoll_ctl")
            freeSlots.append(position)
            throw error
        }
        slots[Int(position)].handler = handler
        handler.slot = position
    }

    /// Before the descriptor is closed (closing removes it from the epoll set). Events that are
    /// already in this batch are dropped, the deadline is cleared.
    package func deregister(_ handler: EventHandler) {
        preconditionInLoop()
        timers.remove(handler)
        let position = Int(handler.slot)
        guard position >= 0 else { return }
        handler.slot = -1
        slots[position].generation &+= 1
        slots[position].handler = nil
        freeSlots.append(Int32(position))
    }

    /// `handler.ready(.again)` after the events of this batch: how work is continued without
    /// recursion, and how a busy connection lets others have their turn.
    package func runAgain(_ handler: EventHandler) {
        guard !handler.asksForTurn else { return }
        handler.asksForTurn = true
        turns.append(handler)
    }

    private func takeTurns() {
        guard !turns.isEmpty else { return }
        swap(&turns, &spareTurns)
        for handler in spareTurns {
            handler.asksForTurn = false
            if handler.slot >= 0 { handler.ready(.again) }
        }
        spareTurns.removeAll(keepingCapacity: true)
    }

    // MARK: Time

    /// A cold timer. Hot deadlines belong to their connection: `setDeadline`.
    @discardableResult
    package func schedule(
        afterNanoseconds delay: UInt64, _ action: @escaping () -> Void
    ) -> Timer {
        preconditionInLoop()
        let timer = Timer(loop: self, action: action)
        setDeadline(timer, afterNanoseconds: delay)
        return timer
    }

    /// Replaces the deadline of a connection or timer. `UInt64.max` clears it.
    package func setDeadline(_ timed: Timed, afterNanoseconds delay: UInt64) {
        let (due, overflow) = nowNanoseconds.addingReportingOverflow(delay)
        timers.set(timed, due: overflow ? .max : due)
    }

    package func setDeadline(_ timed: Timed, atNanoseconds due: UInt64) {
        timers.set(timed, due: due)
    }

    package func clearDeadline(_ timed: Timed) { timers.remove(timed) }

    private func fireTimers() {
        while let timed = timers.popDue(now: nowNanoseconds) { timed.deadlinePassed() }
    }

    // MARK: From other threads

    /// Runs `closure` on the loop, soon; from any thread. Never runs it before returning.
    package func execute(_ closure: @escaping @Sendable () -> Void) { post(.closure(closure)) }

    func post(_ work: Work) {
        let wasEmpty = mailbox.withLock { waiting -> Bool in
            waiting.append(work)
            return waiting.count == 1
        }
        if wasEmpty { wake() }
    }

    private func wake() {
        var one: UInt64 = 1
        _ = write(wakeup.raw, &one, MemoryLayout<UInt64>.size)
    }

    private func takeMail() {
        let mail = mailbox.withLock { waiting -> ContiguousArray<Work> in
            let mail = waiting
            waiting = []
            return mail
        }
        for work in mail {
            switch work {
            case .job(let job): jobs.append(job)
            case .closure(let closure): closure()
            }
        }
    }

    // MARK: Jobs of the concurrency runtime

    func enqueueInLoop(_ job: UnownedJob) { jobs.append(job) }

    private func runJobs() {
        guard !jobs.isEmpty else { return }
        swap(&jobs, &spareJobs)
        for job in spareJobs {
            job.runSynchronously(
                isolatedTo: asUnownedSerialExecutor(), taskExecutor: asUnownedTaskExecutor())
        }
        spareJobs.removeAll(keepingCapacity: true)
    }
}
