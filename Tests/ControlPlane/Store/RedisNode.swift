import Glibc

@testable import ControlPlaneStore

/// A server of the test's own on ports of loopback: a Redis of any kind, or a Sentinel. It can be
/// killed as a crash kills, paused as a partition silences, and started again on its files.
final class RedisNode: @unchecked Sendable {
    // SAFETY: `process` changes only in `start`, `kill` and `deinit`, which a test calls in order.
    let folder: String
    let port: UInt16
    private let arguments: [String]
    private let tls: TestRedisTLS?
    private var process: pid_t = 0

    struct Ports { var port, bus: UInt16 }

    /// `answer`: what it says to this test's plain greeting, where that is no welcome. Another
    /// process may take a
    /// free port before the server does; then others are tried.
    static func start(
        tls: TestRedisTLS? = nil, expecting answer: String? = nil,
        _ arguments: @escaping (Ports, _ folder: String) throws -> [String]
    ) throws -> RedisNode {
        for _ in 0..<5 {
            let ports = Ports(
                port: try PrivateRedis.freePort(), bus: try PrivateRedis.freePort())
            let node = try RedisNode(ports, tls, arguments)
            if node.isServing(answer) {
                return node
            }
        }
        throw PrivateRedis.Failure("no server could be started")
    }

    private init(
        _ ports: Ports, _ tls: TestRedisTLS?, _ arguments: (Ports, String) throws -> [String]
    ) throws {
        var template = Array("/tmp/weir-redis-XXXXXX".utf8CString)
        guard let made = mkdtemp(&template) else { throw PrivateRedis.Failure("no folder") }
        folder = String(cString: made)
        port = ports.port
        self.tls = tls
        self.arguments = try arguments(ports, folder)
        try spawn()
    }

    deinit {
        kill()
        PrivateRedis.remove(folder)
    }

    /// A data node with the persistence that the ledger demands.
    static func server(
        tls: TestRedisTLS? = nil, expecting answer: String? = nil, _ extra: [String] = []
    ) throws -> RedisNode {
        try start(tls: tls, expecting: answer) { ports, folder in
            durable(ports, folder, tls) + extra
        }
    }

    static func durable(
        _ ports: Ports, _ folder: String, _ tls: TestRedisTLS?, certificate: String = "server"
    ) -> [String] {
        let listens =
            tls.map {
                ["--port", "0", "--tls-port", "\(ports.port)"] + $0.serverArguments(certificate)
            }
            ?? ["--port", "\(ports.port)"]
        return ["redis-server"] + listens + [
            "--bind", "127.0.0.1", "--dir", folder, "--appendonly", "yes", "--appendfsync",
            "always", "--save", "", "--maxmemory-policy", "noeviction",
            "--repl-diskless-sync-delay", "0", "--loglevel", "warning",
            "--logfile", "\(folder)/log",
        ]
    }

    private func spawn() throws {
        precondition(process == 0, "started twice")
        var pointers: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for pointer in pointers { free(pointer) } }
        guard posix_spawnp(&process, arguments[0], nil, nil, &pointers, environ) == 0 else {
            throw PrivateRedis.Failure("\(arguments[0]) cannot be started")
        }
    }

    var address: RedisURL.Address { .tcp(host: "127.0.0.1", port: port) }

    private func isServing(_ answer: String?) -> Bool {
        (try? eventually("a server answers") { () -> Bool in
            var status: Int32 = 0
            if waitpid(process, &status, WNOHANG) == process {
                process = 0
                return true
            }
            switch RedisSession.open(RedisEndpoint(address: address, tls: tls?.context)) {
            case .success: return true
            case .failure(let failure): return answer.map { failure.detail.contains($0) } ?? false
            }
        }) != nil && process > 0
    }

    func startAgain() throws {
        try spawn()
        guard isServing(nil) else { throw PrivateRedis.Failure("it does not start again") }
    }

    /// SIGKILL, and waits until the process is gone.
    func kill() {
        guard process > 0 else { return }
        Glibc.kill(process, SIGKILL)
        var status: Int32 = 0
        waitpid(process, &status, 0)
        process = 0
    }

    func pause() { Glibc.kill(process, SIGSTOP) }
    func resume() { Glibc.kill(process, SIGCONT) }

    /// One command on a connection of its own.
    @discardableResult
    func ask(_ command: [String]) throws -> RedisReply {
        let endpoint = RedisEndpoint(address: address, tls: tls?.context)
        let session = try RedisSession.open(endpoint).get()
        let deadline = MonotonicClock.nowNanoseconds + 10_000_000_000
        guard let reply = session.ask(command, deadlineNanoseconds: deadline) else {
            throw PrivateRedis.Failure("no answer to \(command[0])")
        }
        if case .error(let text) = reply { throw PrivateRedis.Failure(text) }
        return reply
    }

    func info(_ field: String) throws -> String? {
        RedisPersistence.fields(ofInfo: try ask(["INFO", "replication"]).text ?? "")[field]
    }
}

/// Runs a program to its end and throws where it fails.
func runTool(_ arguments: [String]) throws {
    var pointers: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    defer { for pointer in pointers { free(pointer) } }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
    var process: pid_t = 0
    guard posix_spawnp(&process, arguments[0], &actions, nil, &pointers, environ) == 0 else {
        throw PrivateRedis.Failure("\(arguments[0]) cannot be started")
    }
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0, errno == EINTR {}
    guard status == 0 else { throw PrivateRedis.Failure("\(arguments[0]) ended with \(status)") }
}

/// An authority of the tests' own, with a server's and a client's certificate, made by OpenSSL.
final class TestRedisTLS: Sendable {
    let folder: String
    let context: RedisTLS

    init() throws {
        var template = Array("/tmp/weir-redis-tls-XXXXXX".utf8CString)
        guard let made = mkdtemp(&template) else { throw PrivateRedis.Failure("no folder") }
        folder = String(cString: made)
        let root = #filePath.split(separator: "/").dropLast(3)
        let script = "/" + root.joined(separator: "/") + "/TLS/make-certificates"
        try runTool(["bash", script, folder])
        context = try RedisTLS(Self.files(folder))
    }

    deinit { PrivateRedis.remove(folder) }

    private static func files(_ folder: String) -> RedisTLSFiles {
        RedisTLSFiles(
            authorities: "\(folder)/ca.pem", certificate: "\(folder)/client.pem",
            key: "\(folder)/client-key.pem")
    }

    var files: RedisTLSFiles { Self.files(folder) }

    func serverArguments(_ name: String) -> [String] {
        [
            "--tls-cert-file", "\(folder)/\(name).pem", "--tls-key-file",
            "\(folder)/\(name)-key.pem", "--tls-ca-cert-file", "\(folder)/ca.pem",
            "--tls-replication", "yes", "--tls-cluster", "yes",
        ]
    }
}
