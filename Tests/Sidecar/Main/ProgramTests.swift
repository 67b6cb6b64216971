import Glibc
import SidecarCore
import Testing
import WeirCore
import WeirCrypto
import WeirPolicy

/// The program itself, as a process: exit codes, serving, and the orderly end.
@Suite(.serialized) struct ProgramTests {
    @Test func helpGoesToStandardOutput() throws {
        let run = try SidecarProcess(["--help"])
        #expect(run.wait() == 0)
        #expect(run.output.contains("--listen ADDR"))
    }

    @Test func wrongSettingsAreAllSaid() throws {
        let run = try SidecarProcess(["--standalone", "--listen", "nowhere"])
        #expect(run.wait() == 2)
        for option in ["--listen", "--agent", "--policy", "--upstream"] {
            #expect(run.output.contains("weir-sidecar: \(option): "))
        }
    }

    @Test func aPolicyThatCannotBeUsedEndsTheStart() throws {
        let folder = TemporaryFolder()
        let gone = try SidecarProcess(Self.arguments(folder, policy: folder.path + "/gone.json"))
        #expect(gone.wait() == 3)
        let other = try Self.writePolicy(folder, hash: "00")
        let run = try SidecarProcess(Self.arguments(folder, policy: other))
        #expect(run.wait() == 3)
        #expect(run.output.contains("the hash is not that of the documents"))
    }

    @Test func aTakenAddressEndsTheStart() throws {
        let folder = TemporaryFolder()
        let taken = try Socket.listen(on: .loopback(port: 0), sharesPort: false)
        let address = try #require(Socket.localAddress(taken.raw))
        let policy = try Self.writePolicy(folder)
        let run = try SidecarProcess(
            Self.arguments(folder, policy: policy, listen: address.description))
        #expect(run.wait() == 4)
    }

    @Test func servesAndEndsWhenTold() async throws {
        let folder = TemporaryFolder()
        let policy = try Self.writePolicy(folder)
        let upstream = try Socket.listen(on: .loopback(port: 0))
        let address = try #require(Socket.localAddress(upstream.raw))
        let run = try SidecarProcess(
            Self.arguments(folder, policy: policy, upstream: address.description))
        let listen = try #require(await run.servingAddress())
        // Told once with nothing in flight: at once and in order.
        #expect(connectsTo(listen))
        run.signal(SIGHUP)
        run.signal(SIGTERM)
        #expect(run.wait() == 0)
        #expect(run.output.contains("drained"))

        // What a journal holds does not keep the next life from beginning.
        let again = try SidecarProcess(
            Self.arguments(folder, policy: policy, upstream: address.description))
        let second = try #require(await again.servingAddress())
        // A request that its agent never answers holds the drain; a second signal ends it.
        let client = try Socket.connect(to: try #require(SocketAddress(second)))
        let request = Array("GET / HTTP/1.1\r\nhost: a\r\n\r\n".utf8)
        #expect(await becomesTrue { send(client.raw, request, request.count, 0) == request.count })
        var poll = pollfd(fd: upstream.raw, events: Int16(POLLIN), revents: 0)
        #expect(Glibc.poll(&poll, 1, 5_000) == 1, "the request is on its way")
        again.signal(SIGTERM)
        #expect(await becomesTrue { again.output.contains("draining") })
        #expect(!again.output.contains("drained"))
        again.signal(SIGTERM)
        #expect(again.wait() == 5)
    }

    /// Nobody is at the agent's address: its checks fail, and the process goes on and says so.
    @Test func anAgentThatFailsItsChecksIsShown() async throws {
        let folder = TemporaryFolder()
        let policy = try Self.writePolicy(
            folder, healthCheck: ["path": "/health", "interval": "100ms", "unhealthyAfter": 2])
        let admin = "unix:" + folder.path + "/admin"
        let run = try SidecarProcess(Self.arguments(folder, policy: policy) + ["--admin", admin])
        #expect(await run.servingAddress() != nil)
        #expect(await becomesTrue { run.output.contains("the agent fails its health checks") })
        let client = TestSocket(to: try #require(SocketAddress(admin)))
        client.send(get("/metrics"))
        let text = try #require(client.readResponse()).text
        for line in [
            #"weir_agent_healthy{agent="files"} 0"#, "weir_journal_failed 0",
            #"circuit_breaker_state{agent="files",endpoint="127.0.0.1:1"} 0"#,
            #"weir_policy_info{version="1","#, "weir_log_lines_dropped_total 0",
        ] {
            #expect(text.contains("\n" + line), "\(text)")
        }
        client.send(get("/readyz"))
        #expect(client.readResponse()?.status == 200, "the breaker decides, not the checks")
        run.signal(SIGTERM)
        #expect(run.wait() == 0)
    }

    @Test func settingsStandInWhereThePolicyIsSilent() async throws {
        let folder = TemporaryFolder()
        let policy = try Self.writePolicy(folder)
        let config = folder.path + "/config.json"
        let raw = open(config, O_CREAT | O_WRONLY, 0o600)
        let bytes = Array(#"{"breaker-threshold": 1}"#.utf8)
        #expect(write(raw, bytes, bytes.count) == bytes.count)
        close(raw)
        let run = try SidecarProcess(
            Self.arguments(folder, policy: policy) + ["--config", config])
        let address = try #require(await run.servingAddress())
        let client = TestSocket(to: try #require(SocketAddress(address)))
        let decisions = (0..<2).map { _ -> String? in
            client.send(get("/"))
            return client.readResponse()?["weir-decision"]
        }
        #expect(decisions == ["upstream_error", "circuit_open"])
        run.signal(SIGTERM)
        #expect(run.wait() == 0)
    }

    private func connectsTo(_ address: String) -> Bool {
        guard let address = SocketAddress(address) else { return false }
        let raw = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(raw) }
        return address.withSockaddr { Glibc.connect(raw, $0, $1) } == 0
    }

    private static func arguments(
        _ folder: TemporaryFolder, policy: String, listen: String = "127.0.0.1:0",
        upstream: String = "127.0.0.1:1"
    ) -> [String] {
        [
            "--standalone", "--policy", policy, "--agent", "files", "--listen", listen,
            "--upstream", "http://\(upstream)", "--data", folder.path + "/data",
        ]
    }

    private static func writePolicy(
        _ folder: TemporaryFolder, hash: String? = nil, healthCheck: JSONValue? = nil
    ) throws -> String {
        var spec: JSONObject = [
            "protocol": "passthrough", "path": "/", "models": [["id": "files"]],
        ]
        spec["healthCheck"] = healthCheck
        let documents: [JSONValue] = [
            [
                "apiVersion": "weir.mesh/v1", "kind": "Agent", "metadata": ["name": "files"],
                "spec": .object(spec),
            ],
            [
                "apiVersion": "weir.mesh/v1", "kind": "PriceTable", "metadata": ["name": "p"],
                "spec": [
                    "dated": "2026-11-01",
                    "prices": [["model": "files", "perRequest": "0.000120"]],
                ],
            ],
        ]
        let own = Hex.encode(Crypto.sha256(CompiledPolicy.canonicalBytes(of: documents)))
        let compiled = CompiledPolicy(
            version: PolicyVersion(epoch: 0, number: 1, hash: hash ?? own), documents: documents)
        let path = folder.path + "/policy.json"
        let raw = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0o600)
        let bytes = compiled.json.bytes
        guard write(raw, bytes, bytes.count) == bytes.count else { throw SystemError("write") }
        close(raw)
        return path
    }
}

/// One run of the binary that lies beside the tests; killed with the object if it still runs.
private final class SidecarProcess {
    private let process: pid_t
    private let outputPath: String
    private let folder: TemporaryFolder
    private var status: Int32?

    init(_ arguments: [String]) throws {
        folder = TemporaryFolder()
        outputPath = folder.path + "/output"
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawn_file_actions_addopen(&actions, 1, outputPath, O_CREAT | O_WRONLY, 0o600)
        posix_spawn_file_actions_adddup2(&actions, 1, 2)
        defer { posix_spawn_file_actions_destroy(&actions) }
        let binary = Self.binary()
        let words: [String] = [binary] + arguments
        var argv: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        var environment: [UnsafeMutablePointer<CChar>?] = [strdup("PATH=/usr/bin:/bin")]
        // How a sanitizer in both of them is told what counts as a failure.
        for name in ["ASAN_OPTIONS", "TSAN_OPTIONS"] {
            if let value = getenv(name) {
                environment.append(strdup(name + "=" + String(cString: value)))
            }
        }
        environment.append(nil)
        defer { for text in argv + environment { free(text) } }
        var process = pid_t()
        let code = posix_spawn(&process, binary, &actions, nil, &argv, &environment)
        guard code == 0 else { throw SystemError("posix_spawn \(binary)", code: code) }
        self.process = process
    }

    deinit {
        if status == nil {
            kill(process, SIGKILL)
            waitpid(process, nil, 0)
        }
    }

    private static func binary() -> String {
        var path = [CChar](repeating: 0, count: 4_096)
        let count = readlink("/proc/self/exe", &path, path.count - 1)
        let own = String(
            decoding: path.prefix(max(count, 0)).map(UInt8.init(bitPattern:)), as: UTF8.self)
        // The test bundle is a binary of its own, or is loaded by a helper of the toolchain.
        for start in [own] + CommandLine.arguments {
            guard let slash = start.lastIndex(of: "/") else { continue }
            let candidate = start[..<slash] + "/weir-sidecar"
            if access(String(candidate), X_OK) == 0 { return String(candidate) }
        }
        return "weir-sidecar"
    }

    var output: String {
        let raw = open(outputPath, O_RDONLY)
        guard raw >= 0 else { return "" }
        defer { close(raw) }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let count = read(raw, &bytes, bytes.count)
        return String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self)
    }

    func signal(_ number: Int32) { kill(process, number) }

    /// The exit code; -1 when it ended otherwise or not within ten seconds.
    func wait() -> Int32 {
        var raw: Int32 = 0
        for _ in 0..<5_000 {
            if waitpid(process, &raw, WNOHANG) == process {
                status = raw
                return raw & 0x7F == 0 ? raw >> 8 & 0xFF : -1
            }
            // tidy: the pause of a poll with a bound
            usleep(2_000)
        }
        return -1
    }

    /// From the log, once it serves.
    func servingAddress() async -> String? {
        var found: String?
        _ = await becomesTrue {
            let marker = "\"message\":\"serving\",\"agent\":\"files\",\"address\":\""
            let text = self.output
            guard let start = text.firstRange(of: marker) else { return false }
            found = String(text[start.upperBound...].prefix { $0 != "\"" })
            return true
        }
        return found
    }
}
