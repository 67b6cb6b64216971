import Foundation

/// A redis-server of the test's own, on a unix socket in a temporary folder, with the persistence
/// that the ledger demands unless the test wants another.
final class RedisServer: Sendable {
    private let process: Process
    let folder: String

    var url: String { "unix://\(folder)/redis.sock" }

    init(appendFsync: String = "always", starts: Bool = true) throws {
        let folder = "/tmp/weir-server-\(UUID().uuidString.prefix(12))"
        try FileManager.default.createDirectory(
            atPath: folder, withIntermediateDirectories: true)
        self.folder = folder
        process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [
            "redis-server", "--port", "0", "--unixsocket", "\(folder)/redis.sock",
            "--dir", folder, "--appendonly", "yes", "--appendfsync", appendFsync, "--save", "",
            "--maxmemory-policy", "noeviction", "--logfile", "\(folder)/log",
        ]
        if starts { try start() }
    }

    func start() throws { try process.run() }

    func stop() {
        guard process.isRunning else { return }
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
    }

    deinit {
        stop()
        try? FileManager.default.removeItem(atPath: folder)
    }
}
