import Glibc

@testable import ControlPlaneStore

/// A redis-server of the test's own, on a unix socket in a folder of its own, with the persistence
/// that the ledger demands. It can be killed as a crash kills, and started again on its files.
final class PrivateRedis: @unchecked Sendable {
    // SAFETY: `process` changes only in `start`, `kill` and `deinit`, which a test calls in order.
    let folder: String
    private let password: String?
    private let port: UInt16
    private let extraArguments: [String]
    private var process: pid_t = 0

    var url: String { "unix://\(password.map { ":\($0)@" } ?? "")\(folder)/redis.sock" }

    /// `port`: listens on loopback too.
    init(password: String? = nil, port: UInt16 = 0, arguments: [String] = []) throws {
        self.password = password
        self.port = port
        extraArguments = arguments
        var template = Array("/tmp/weir-redis-XXXXXX".utf8CString)
        guard let made = mkdtemp(&template) else { throw Failure("no folder") }
        folder = String(cString: made)
        try start()
    }

    deinit {
        kill()
        Self.remove(folder)
    }

    /// A port of loopback that nobody has now.
    static func freePort() throws -> UInt16 {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(listener) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = withUnsafeMutablePointer(to: &address) { pointer in
            // SAFETY: every socket address may be looked at as the generic one.
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, length) == 0 && getsockname(listener, $0, &length) == 0
            }
        }
        guard result else { throw Failure("no free port") }
        return UInt16(bigEndian: address.sin_port)
    }

    struct Failure: Error, CustomStringConvertible {
        let description: String
        init(_ description: String) { self.description = description }
    }

    func start() throws {
        precondition(process == 0, "started twice")
        unlink("\(folder)/redis.sock")
        let arguments =
            [
                "redis-server", "--port", String(port), "--bind", "127.0.0.1", "--unixsocket",
                "\(folder)/redis.sock",
                "--dir", folder, "--appendonly", "yes", "--appendfsync", "always",
                "--save", "", "--maxmemory-policy", "noeviction", "--loglevel", "warning",
                "--logfile", "\(folder)/log",
            ] + (password.map { ["--requirepass", $0] } ?? []) + extraArguments
        var pointers: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for pointer in pointers { free(pointer) } }
        guard posix_spawnp(&process, "redis-server", nil, nil, &pointers, environ) == 0 else {
            throw Failure("redis-server cannot be started")
        }
        let endpoint = RedisEndpoint(
            address: .unix(path: "\(folder)/redis.sock"),
            login: RedisURL.Login(password: password))
        try eventually("redis-server answers") {
            if case .success = RedisSession.open(endpoint) { true } else { false }
        }
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

    static func remove(_ path: String) {
        guard let directory = opendir(path) else { return }
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            guard name != ".", name != ".." else { continue }
            let inner = path + "/" + name
            if unlink(inner) != 0 { remove(inner) }
        }
        closedir(directory)
        rmdir(path)
    }
}
