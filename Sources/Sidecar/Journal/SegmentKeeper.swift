import Glibc
import Synchronization

/// The helper thread of the log: keeps segments ready ahead of the writer, brings what was written
/// to the disk every 200 ms, unmaps what is full and deletes what is not needed. So the loops make
/// no system call for the log.
final class SegmentKeeper: @unchecked Sendable {
    // SAFETY: every stored property is either constant or read and written under `lock`.
    private let lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let changed = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private let directory: String
    private var ready: [MappedSegment] = []
    private var full: [MappedSegment] = []
    private var current: MappedSegment?
    private var surplus: [UInt64] = []
    private var nextIndex: UInt64
    private var isStopping = false
    private var lastFailure: JournalError?
    private var thread = pthread_t()
    /// Read by the writer on each admission.
    let readyCount = Atomic<Int>(0)

    init(directory: String, nextIndex: UInt64) {
        self.directory = directory
        self.nextIndex = nextIndex
        pthread_mutex_init(lock, nil)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(changed, &attributes)
        pthread_condattr_destroy(&attributes)
        let code = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                Unmanaged<SegmentKeeper>.fromOpaque(argument).takeUnretainedValue().run()
                return nil
            }, Unmanaged.passUnretained(self).toOpaque())
        precondition(code == 0, "the system refuses a thread: \(code)")
    }

    /// Ends the thread and drops the mappings. Files stay as they are.
    func stop() {
        pthread_mutex_lock(lock)
        isStopping = true
        pthread_cond_broadcast(changed)
        pthread_mutex_unlock(lock)
        pthread_join(thread, nil)
        for segment in ready + full + (current.map { [$0] } ?? []) {
            segment.unmap()
            close(segment.descriptor)
        }
        for segment in ready { unlink(segment.path) }
        (ready, full, current) = ([], [], nil)
        pthread_cond_destroy(changed)
        pthread_mutex_destroy(lock)
        changed.deallocate()
        lock.deallocate()
    }

    // MARK: The writer's calls

    /// The next segment. `nil` when none is ready in time: the disk is full or slow.
    func take(waitMilliseconds: Int) -> MappedSegment? {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        let deadline = deadline(afterMilliseconds: waitMilliseconds)
        while ready.isEmpty, waitMilliseconds > 0, lastFailure == nil {
            guard wait(until: deadline) else { break }
        }
        guard !ready.isEmpty else { return nil }
        let next = ready.removeFirst()
        readyCount.store(ready.count, ordering: .relaxed)
        if let current { full.append(current) }
        current = next
        pthread_cond_broadcast(changed)
        return next
    }

    func remove(_ indices: [UInt64]) {
        guard !indices.isEmpty else { return }
        pthread_mutex_lock(lock)
        surplus += indices
        pthread_cond_broadcast(changed)
        pthread_mutex_unlock(lock)
    }

    var failure: JournalError? {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        return lastFailure
    }

    // MARK: The thread

    private func run() {
        pthread_mutex_lock(lock)
        var nextSync = deadline(afterMilliseconds: JournalLimits.syncMilliseconds)
        while !isStopping {
            removeSurplus()
            unmapFull()
            let isFilled = fill()
            if isPast(nextSync) {
                syncCurrent()
                nextSync = deadline(afterMilliseconds: JournalLimits.syncMilliseconds)
            }
            if !isStopping, isFilled || lastFailure != nil, full.isEmpty, surplus.isEmpty {
                _ = wait(until: nextSync)
            }
        }
        pthread_mutex_unlock(lock)
    }

    /// Runs one slow thing without the lock.
    private func unlocked<T>(_ body: () -> T) -> T {
        pthread_mutex_unlock(lock)
        defer { pthread_mutex_lock(lock) }
        return body()
    }

    /// Prepares one segment, if one is missing. `true`: all are there.
    private func fill() -> Bool {
        guard ready.count < JournalLimits.segmentsReady else { return true }
        let index = nextIndex
        let result = unlocked { () -> Result<MappedSegment, JournalError> in
            do throws(JournalError) {
                return .success(try MappedSegment.prepare(directory: directory, index: index))
            } catch { return .failure(error) }
        }
        switch result {
        case .success(let segment):
            nextIndex += 1
            ready.append(segment)
            lastFailure = nil
            readyCount.store(ready.count, ordering: .relaxed)
        case .failure(let error): lastFailure = error
        }
        pthread_cond_broadcast(changed)
        return ready.count >= JournalLimits.segmentsReady
    }

    private func unmapFull() {
        while !full.isEmpty {
            let segment = full.removeFirst()
            unlocked {
                segment.unmap()
                fdatasync(segment.descriptor)
                close(segment.descriptor)
            }
        }
    }

    private func syncCurrent() {
        guard let descriptor = current?.descriptor else { return }
        // Only this thread closes descriptors, so it stays open meanwhile.
        unlocked { _ = fdatasync(descriptor) }
    }

    private func removeSurplus() {
        // The oldest first: whoever is killed in between leaves no gap, which would be a loss.
        while !surplus.isEmpty {
            let index = surplus.removeFirst()
            unlocked { _ = unlink(directory + "/" + SegmentHeader.fileName(index)) }
        }
    }

    // MARK: Time

    private func deadline(afterMilliseconds milliseconds: Int) -> timespec {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        let nanoseconds = now.tv_nsec + (milliseconds % 1_000) * 1_000_000
        return timespec(
            tv_sec: now.tv_sec + milliseconds / 1_000 + nanoseconds / 1_000_000_000,
            tv_nsec: nanoseconds % 1_000_000_000)
    }

    private func isPast(_ deadline: timespec) -> Bool {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return (now.tv_sec, now.tv_nsec) >= (deadline.tv_sec, deadline.tv_nsec)
    }

    /// `false` when the deadline has passed.
    private func wait(until deadline: timespec) -> Bool {
        var deadline = deadline
        return pthread_cond_timedwait(changed, lock, &deadline) == 0
    }
}
