import Glibc
import Synchronization

/// One thread with one connection to the database. Jobs come in a bounded queue and are done in
/// their order.
final class ArchiveThread: Sendable {
    private struct State {
        var jobs: [@Sendable (Result<ConnectionBox, ArchiveError>) -> Void] = []
        var isClosed = false
    }

    /// The connection, which only this thread's jobs see.
    final class ConnectionBox {
        let database: any SQLConnection
        init(_ database: any SQLConnection) { self.database = database }
    }

    private let state = Mutex(State())
    private let wakeUp = WakeUp()

    init(name: String, path: String, isReadOnly: Bool) {
        Thread.start(name) { self.run(path: path, isReadOnly: isReadOnly) }
    }

    func close() {
        state.withLock { $0.isClosed = true }
        wakeUp.signal()
    }

    func perform<T: Sendable>(
        _ body: @escaping @Sendable (any SQLConnection) throws(ArchiveError) -> T
    ) async throws(ArchiveError) -> T {
        let result: Result<T, ArchiveError> = await withCheckedContinuation { continuation in
            let refusal: ArchiveError? = state.withLock { state in
                guard !state.isClosed else { return .closed }
                guard state.jobs.count < StoreLimits.archiveJobsMax else { return .busy }
                state.jobs.append { connection in
                    continuation.resume(returning: Self.result(of: body, on: connection))
                }
                return nil
            }
            if let refusal {
                continuation.resume(returning: .failure(refusal))
            } else {
                wakeUp.signal()
            }
        }
        return try result.get()
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

    private func run(path: String, isReadOnly: Bool) {
        var connection = open(path, isReadOnly)
        while true {
            let (jobs, isClosed) = state.withLock { state in
                defer { state.jobs = [] }
                return (state.jobs, state.isClosed)
            }
            for job in jobs {
                if case .failure = connection { connection = open(path, isReadOnly) }
                job(connection)
            }
            if isClosed { return }
            if jobs.isEmpty {
                var entry = pollfd(fd: wakeUp.descriptor, events: Int16(POLLIN), revents: 0)
                poll(&entry, 1, -1)
                wakeUp.drain()
            }
        }
    }

    private func open(_ path: String, _ isReadOnly: Bool) -> Result<ConnectionBox, ArchiveError> {
        do throws(ArchiveError) {
            return .success(ConnectionBox(try SQLite(path: path, isReadOnly: isReadOnly)))
        } catch {
            return .failure(error)
        }
    }
}
