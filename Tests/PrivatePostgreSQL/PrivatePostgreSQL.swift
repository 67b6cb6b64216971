import Foundation
import Synchronization

/// A real PostgreSQL server of the tests' own, in a folder of its own: on a unix socket, and on
/// loopback where a test asks for it. It is given to the server's user, because PostgreSQL does not
/// run as root. A shell stands between: when this process ends, in whichever way, the shell's input
/// ends, and it stops the server and removes the folder.
package final class PrivatePostgreSQL: Sendable {
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    /// How a server is stopped: its sessions are ended, or it dies as in a crash.
    package enum Stop: String, Sendable { case fast = "INT", crash = "QUIT" }

    package static let user = "weir"
    /// With what a URL must escape.
    package static let password = "se cret/@:%"

    package let folder: String
    private let port: UInt16?
    private let settings: [String]
    private let shell = Mutex<Shell?>(nil)
    private let databases = Mutex(0)

    /// One server for all tests of this process; each has a database of its own.
    package static let shared = Result { try PrivatePostgreSQL() }

    /// Makes a cluster, and starts the server. `settings`: "name=value".
    package init(port: UInt16? = nil, settings: [String] = []) throws {
        folder = "/tmp/weir-postgres-\(UUID().uuidString.prefix(12))"
        self.port = port
        self.settings = settings
        try FileManager.default.createDirectory(
            atPath: folder, withIntermediateDirectories: false,
            attributes: [.posixPermissions: 0o755])
        try "\(Self.password)\n".write(
            toFile: folder + "/password", atomically: false, encoding: .utf8)
        if geteuid() == 0 { try Self.run("chown", ["-R", "postgres", folder]) }
        // Ordered by a language's rules, as many servers are: what must not matter.
        try Self.run(
            Self.privileged,
            Self.asUser + [
                try Self.program("initdb"), "--pgdata=\(folder)/data", "--username=\(Self.user)",
                "--pwfile=\(folder)/password", "--auth=scram-sha-256", "--encoding=UTF8",
                "--locale-provider=icu", "--icu-locale=en-US", "--no-sync",
            ])
        try start()
    }

    deinit { shell.withLock { $0?.end(with: "") } }

    package func start() throws {
        let script = """
            folder=$1; shift
            "$@" </dev/null >>"$folder/log" 2>&1 &
            read word
            kill -"${word:-QUIT}" $!
            wait $!
            [ -n "$word" ] || rm -rf "$folder"
            """
        let server =
            [
                try Self.program("postgres"), "-D", folder + "/data", "-k", folder,
                "-c", "listen_addresses=\(port == nil ? "" : "127.0.0.1")",
                "-p", String(port ?? 5432), "-c", "fsync=off", "-c", "shared_buffers=16MB",
                "-c", "max_connections=300",
            ] + settings.flatMap { ["-c", $0] }
        let started = try Shell(
            ["/bin/sh", "-c", script, "sh", folder, Self.privileged] + Self.asUser + server)
        shell.withLock { $0 = started }
        try waitUntilReady()
    }

    /// Ends the server and waits until it has; its files stay.
    package func stop(_ stop: Stop = .fast) {
        shell.withLock { shell in
            shell?.end(with: stop.rawValue + "\n")
            shell = nil
        }
    }

    private func waitUntilReady() throws {
        let arguments = [
            "-q", "-h", folder, "-p", String(port ?? 5432), "-U", Self.user, "-d", "postgres",
            "-t", "1",
        ]
        let ready = try Self.program("pg_isready")
        let deadline = ContinuousClock.now + .seconds(20)
        while (try? Self.run(ready, arguments)) == nil {
            guard ContinuousClock.now < deadline else {
                let log = try? String(contentsOfFile: folder + "/log", encoding: .utf8)
                throw Failure(description: "PostgreSQL does not start: \(log ?? "no log")")
            }
        }
    }

    // MARK: - Databases

    /// A new, empty database.
    package func makeDatabase() throws -> String {
        let name = databases.withLock { count in
            count += 1
            return "test_\(count)"
        }
        try sql("CREATE DATABASE \(name)", in: "postgres")
        return name
    }

    package func url(of database: String, query: String = "") -> String {
        url(of: database, password: Self.password, query: query)
    }

    package func url(of database: String, password: String, query: String = "") -> String {
        let allowed = CharacterSet.alphanumerics
        let escaped = password.addingPercentEncoding(withAllowedCharacters: allowed) ?? ""
        let login = "postgresql://\(Self.user):\(escaped)@"
        guard let port else { return login + "/\(database)?host=\(folder)\(query)" }
        return login + "127.0.0.1:\(port)/\(database)?\(query)"
    }

    /// What psql prints, without headings.
    @discardableResult
    package func sql(_ statement: String, in database: String) throws -> String {
        try Self.run(
            try Self.program("psql"),
            [
                "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", folder,
                "-p", String(port ?? 5432), "-U", Self.user, "-d", database, "-c", statement,
            ])
    }

    // MARK: - Programs

    private static let privileged = "env"
    /// Not root, with the groups of that user.
    private static var asUser: [String] {
        geteuid() == 0
            ? ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] : []
    }

    /// Debian keeps the server's programs apart, by version.
    private static func program(_ name: String) throws -> String {
        let root = "/usr/lib/postgresql"
        let versions = (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
        let newest = versions.compactMap { Int($0) }.max()
        let path = newest.map { "\(root)/\($0)/bin/\(name)" }
        guard let path, FileManager.default.isExecutableFile(atPath: path) else {
            throw Failure(description: "there is no \(name) under \(root): install postgresql")
        }
        return path
    }

    @discardableResult
    private static func run(_ program: String, _ arguments: [String]) throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [program] + arguments
        process.currentDirectoryURL = URL(fileURLWithPath: "/")
        var environment = ProcessInfo.processInfo.environment
        environment["PGPASSWORD"] = password
        process.environment = environment
        let output = Pipe()
        let problems = Pipe()
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = output
        process.standardError = problems
        try process.run()
        let text = output.fileHandleForReading.readDataToEndOfFile()
        let words = problems.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw Failure(
                description: "\(program): \(String(decoding: words, as: UTF8.self))")
        }
        return String(decoding: text, as: UTF8.self).trimmingCharacters(in: .newlines)
    }
}
