import Foundation

/// A redis-server of the test's own, set up as the ledger demands.
final class PrivateRedis: Sendable {
    let folder: TemporaryFolder
    let port: UInt16
    let process: TestProcess

    var url: String { "redis://127.0.0.1:\(port)/0" }

    /// - Parameters:
    ///   - folder: its data stays there, so that another one can be started on it.
    ///   - port: nil takes a free one.
    init(folder: TemporaryFolder, port: UInt16? = nil) async throws {
        self.folder = folder
        self.port = try port ?? Ports.free()
        let data = try folder.makeFolder("redis")
        process = try TestProcess(
            "redis", executable: try Tools.path("redis-server"),
            arguments: [
                "--port", String(self.port), "--bind", "127.0.0.1", "--dir", data,
                "--unixsocket", folder.path("redis.sock"), "--appendonly", "yes",
                "--appendfsync", "always", "--maxmemory-policy", "noeviction", "--save", "",
                "--daemonize", "no",
            ], folder: folder)
        do {
            try await eventually("redis answers") { try await run(["PING"]) == "PONG" }
        } catch {
            await process.dispose()
            throw TestProcess.Failed(description: "\(error)\n\(process.log)")
        }
    }

    /// The same data on the same port, after this one was killed.
    func restarted() async throws -> PrivateRedis {
        try await PrivateRedis(folder: folder, port: port)
    }

    /// What redis-cli prints for a command.
    func run(_ command: [String]) async throws -> String {
        let result = try await Tools.run(
            try Tools.path("redis-cli"), ["-h", "127.0.0.1", "-p", String(port)] + command)
        guard result.status == 0 else { throw TestProcess.Failed(description: result.output) }
        return result.output.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    func keys(_ pattern: String) async throws -> [String] {
        try await run(["--scan", "--pattern", pattern]).split(separator: "\n").map(String.init)
    }

    func hash(_ key: String) async throws -> [String: String] {
        let lines = try await run(["HGETALL", key]).split(
            separator: "\n", omittingEmptySubsequences: false)
        var result: [String: String] = [:]
        for index in stride(from: 0, to: lines.count - 1, by: 2) {
            result[String(lines[index])] = String(lines[index + 1])
        }
        return result
    }
}
