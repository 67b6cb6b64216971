import Foundation

/// A program under test: started by path, its output kept in files, ended by its own id.
final class TestProcess: Sendable {
    struct Failed: Error, CustomStringConvertible {
        let description: String
    }

    let name: String
    let logPath: String
    private let process: Process

    var pid: pid_t { process.processIdentifier }
    var isRunning: Bool { process.isRunning }

    /// Both streams go to one file, `NAME.log` in `folder`, in the order of writing.
    ///
    /// - Parameter environment: the whole environment but for `PATH`, so that nothing of the
    ///   developer's own (a key, a Redis) reaches a program under test.
    init(
        _ name: String, executable: String, arguments: [String],
        environment: [String: String] = [:], folder: TemporaryFolder
    ) throws {
        self.name = name
        logPath = folder.path(name + ".log")
        if !FileManager.default.fileExists(atPath: logPath) { try folder.write(name + ".log", "") }
        let log = try FileHandle(forWritingTo: URL(fileURLWithPath: logPath))
        try log.seekToEnd()
        process = Process()
        process.executableURL = URL(fileURLWithPath: executable)
        process.arguments = arguments
        let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
        process.environment = ["PATH": path].merging(environment) { $1 }
        process.currentDirectoryURL = folder.url
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = log
        process.standardError = log
        try Self.withoutBlockedSignals { try process.run() }
        try log.close()
    }

    /// A child begins with the signal mask of the thread that starts it, and threads of the
    /// concurrency pool block nearly all: redis-server would never hear SIGTERM.
    private static func withoutBlockedSignals(_ body: () throws -> Void) throws {
        var none = sigset_t()
        var before = sigset_t()
        sigemptyset(&none)
        pthread_sigmask(SIG_SETMASK, &none, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        try body()
    }

    var log: String { (try? String(contentsOfFile: logPath, encoding: .utf8)) ?? "" }

    func signal(_ number: Int32) {
        guard process.isRunning else { return }
        Glibc.kill(pid, number)
    }

    /// As a machine that loses power for this one process: nothing of its own runs any more.
    func killAtOnce() async throws {
        signal(SIGKILL)
        try await exited(within: .seconds(5))
    }

    func pause() { signal(SIGSTOP) }
    func resume() { signal(SIGCONT) }

    /// SIGTERM, and the exit status. Fails when the process takes longer than `bound`.
    @discardableResult
    func terminate(within bound: Duration = .seconds(10)) async throws -> Int32 {
        signal(SIGTERM)
        return try await exited(within: bound)
    }

    @discardableResult
    func exited(within bound: Duration = .seconds(10)) async throws -> Int32 {
        try await eventually("\(name) (\(pid)) ends", within: bound) { !process.isRunning }
        return process.terminationStatus
    }

    /// The clean-up at the end of a test: cannot fail, and leaves nothing behind.
    func dispose() async {
        guard process.isRunning else { return }
        resume()
        if (try? await terminate(within: .seconds(3))) == nil { try? await killAtOnce() }
    }

    /// The first line of the output that contains `text`, once it is there.
    func line(containing text: String, within bound: Duration = .seconds(15)) async throws -> String
    {
        try await eventually("\(name) writes \"\(text)\"", within: bound) { () throws -> String? in
            if let line = log.split(separator: "\n").first(where: { $0.contains(text) }) {
                return String(line)
            }
            return nil
        }
    }
}
