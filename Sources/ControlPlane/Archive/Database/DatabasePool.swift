import Glibc
import Synchronization

/// Connections to one database, each on a thread of its own, because their calls wait. Jobs come
/// in one bounded queue, and a thread is started only when all others are busy. A connection is
/// opened when its thread has its first job, asked whether it still answers when it was idle, and
/// replaced when it broke. While the database cannot be reached, jobs are refused at once, and it
/// is tried again after a growing pause.
final class DatabasePool: Sendable {
    /// Answers whether it is done; if it is not the last try, a job whose connection broke is not.
    private typealias Job =
        @Sendable (_ connection: Result<ConnectionBox, ArchiveError>, _ isLastTry: Bool) -> Bool

    /// A connection on its way to a job, which is the only one to see it then.
    final class ConnectionBox {
        let database: any SQLConnection
        init(_ database: any SQLConnection) { self.database = database }
    }

    private struct State {
        var jobs: [(deadlineNanoseconds: UInt64, job: Job)] = []
        var threads = 0
        var busy = 0
        var isClosed = false
        var backoffNanoseconds: UInt64 = 0
        var retryAtNanoseconds: UInt64 = 0
        var lastFailure = ArchiveError.closed
    }

    private let name: String
    private let size: Int
    private let open: @Sendable () throws(ArchiveError) -> any SQLConnection
    private let state = Mutex(State())
    private let jobsWaiting = CountingSignal()

    /// At most `size` connections, made by `open` on their own threads. The name has at most 15
    /// bytes.
    init(
        name: String, size: Int,
        open: @escaping @Sendable () throws(ArchiveError) -> any SQLConnection
    ) {
        self.name = name
        self.size = size
        self.open = open
    }

    func close() {
        let threads = state.withLock { state in
            state.isClosed = true
            return state.threads
        }
        for _ in 0..<threads { jobsWaiting.signal() }
    }

    /// Runs a body on a connection. If that breaks meanwhile, the body runs once more on a new one,
    /// so it must be a read, or a transaction that may be repeated.
    func perform<T: Sendable>(
        _ body: @escaping @Sendable (any SQLConnection) throws(ArchiveError) -> T
    ) async throws(ArchiveError) -> T {
        let deadline = MonotonicClock.nowNanoseconds &+ StoreLimits.archiveWaitNanoseconds
        let result: Result<T, ArchiveError> = await withCheckedContinuation { continuation in
            let refusal = enqueue(deadline) { connection, isLastTry in
                let result = Self.result(of: body, on: connection)
                if case .failure(.unreachable) = result, !isLastTry { return false }
                continuation.resume(returning: result)
                return true
            }
            if let refusal { continuation.resume(returning: .failure(refusal)) }
        }
        return try result.get()
    }

    private func enqueue(_ deadline: UInt64, _ job: @escaping Job) -> ArchiveError? {
        let (refusal, startsThread): (ArchiveError?, Bool) = state.withLock { state in
            guard !state.isClosed else { return (.closed, false) }
            guard state.jobs.count < StoreLimits.archiveJobsMax else { return (.busy, false) }
            state.jobs.append((deadline, job))
            let isNeeded = state.jobs.count > state.threads - state.busy
            guard isNeeded, state.threads < size else { return (nil, false) }
            state.threads += 1
            return (nil, true)
        }
        guard refusal == nil else { return refusal }
        if startsThread { Thread.start(name) { self.run() } }
        jobsWaiting.signal()
        return nil
    }

    private static func result<T>(
        of body: (any SQLConnection) throws(ArchiveError) -> T,
        on connection: Result<ConnectionBox, ArchiveError>
    ) -> Result<T, ArchiveError> {
        do throws(ArchiveError) {
            return .success(try body(try connection.get().database))
        } catch {
            return .failure(error)
        }
    }

    // MARK: - Threads

    private func run() {
        var connection: ConnectionBox?
        var usedAtNanoseconds: UInt64 = 0
        while true {
            jobsWaiting.wait()
            guard let (deadline, job) = nextJob() else {
                if state.withLock({ $0.isClosed }) { return }
                continue
            }
            let now = MonotonicClock.nowNanoseconds
            if now > deadline {
                _ = job(.failure(.busy), true)
            } else {
                let idle = now &- usedAtNanoseconds
                if idle > StoreLimits.databaseIdleCheckNanoseconds,
                    connection?.database.answers() == false
                {
                    connection = nil
                }
                serve(job, &connection)
                usedAtNanoseconds = MonotonicClock.nowNanoseconds
            }
            state.withLock { $0.busy -= 1 }
        }
    }

    private func nextJob() -> (UInt64, Job)? {
        state.withLock { state in
            guard !state.jobs.isEmpty else { return nil }
            state.busy += 1
            return state.jobs.removeFirst()
        }
    }

    private func serve(_ job: Job, _ connection: inout ConnectionBox?) {
        for isLastTry in [false, true] {
            let result = connection.map { .success($0) } ?? connect()
            guard case .success(let box) = result else {
                _ = job(result, true)
                return
            }
            let isDone = job(result, isLastTry)
            connection = box.database.isUsable ? box : nil
            if isDone { return }
        }
    }

    private func connect() -> Result<ConnectionBox, ArchiveError> {
        let refusal: ArchiveError? = state.withLock { state in
            MonotonicClock.nowNanoseconds < state.retryAtNanoseconds ? state.lastFailure : nil
        }
        if let refusal { return .failure(refusal) }
        do throws(ArchiveError) {
            let database = try open()
            state.withLock { $0.backoffNanoseconds = 0 }
            return .success(ConnectionBox(database))
        } catch {
            state.withLock { state in
                state.backoffNanoseconds = min(
                    max(state.backoffNanoseconds * 2, StoreLimits.databaseBackoffFirstNanoseconds),
                    StoreLimits.databaseBackoffMaxNanoseconds)
                state.retryAtNanoseconds =
                    MonotonicClock.nowNanoseconds &+ state.backoffNanoseconds
                state.lastFailure = error
            }
            return .failure(error)
        }
    }
}
