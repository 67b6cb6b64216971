import Foundation
import Testing
import WeirCore

/// A name that means several addresses, and others later: the sidecar sees a file of names of its
/// own in place of /etc/hosts, and asks the resolver of the system.
@Suite(.timeLimit(.minutes(2)))
struct NamesTests {
    /// Two instances on the same port; each answers with its own address.
    private static let agent = """
        import http.server, threading
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            def do_GET(self):
                body = self.server.server_address[0].encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            def log_message(self, *arguments):
                pass
        def make():
            while True:
                first = http.server.ThreadingHTTPServer(("127.0.0.2", 0), Handler)
                try:
                    return first, http.server.ThreadingHTTPServer(
                        ("127.0.0.3", first.server_address[1]), Handler)
                except OSError:
                    first.server_close()
        servers = make()
        for server in servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        print("listening", servers[0].server_address[1], flush=True)
        threading.Event().wait()
        """

    private static let document = """
        apiVersion: weir.mesh/v1
        kind: Agent
        metadata:
          name: named
        spec:
          protocol: passthrough
          path: /
          timeouts: {connect: 1s, firstByte: 5s, idle: 10s, total: 30s}
        ---
        apiVersion: weir.mesh/v1
        kind: PriceTable
        metadata:
          name: named
        spec:
          dated: "2026-11-01"
          prices:
            - model: named
              perRequest: "0.000001"
        """

    private struct Stage {
        let names: String
        let agent: TestProcess
        let sidecar: TestProcess
        let endpoint: Endpoint
        let admin: Endpoint

        func dispose() async {
            await sidecar.dispose()
            await agent.dispose()
        }

        /// Whom so many requests reach.
        func reached(_ count: Int = 40) async throws -> Set<String> {
            var seen: Set<String> = []
            for _ in 0..<count {
                let answer = try await endpoint.get("/")
                seen.insert(answer.status == 200 ? answer.text : "\(answer.status)")
            }
            return seen
        }
    }

    private func start(_ folder: TemporaryFolder) async throws -> Stage {
        let policy = try AcceptancePolicy(in: folder)
        try policy.add("named.yaml", Self.document)
        try await policy.compile(to: folder.path("policy.json"))
        let names = try folder.write(
            "names", "127.0.0.1 localhost\n127.0.0.2 agents.test\n127.0.0.3 agents.test\n")
        let agent = try TestProcess(
            "agent", executable: try Tools.path("python3"),
            arguments: [try folder.write("agent.py", Self.agent)], folder: folder)
        do {
            let line = try await agent.line(containing: "listening")
            let agentPort = try #require(line.split(separator: " ").last)
            let port = try Ports.free()
            let adminPort = try Ports.free()
            let sidecar = try TestProcess(
                "sidecar", executable: try Tools.path("unshare"),
                arguments: [
                    getuid() == 0 ? "-m" : "-rm", "/bin/sh", "-c",
                    "mount --bind \"$0\" /etc/hosts && exec \"$@\"", names,
                    Products.path("weir-sidecar"), "--standalone", "--policy",
                    folder.path("policy.json"), "--agent", "named", "--listen",
                    "127.0.0.1:\(port)", "--admin", "127.0.0.1:\(adminPort)", "--upstream",
                    "http://agents.test:\(agentPort)", "--data", try folder.makeFolder("data"),
                    "--allowance", "1",
                ], folder: folder)
            let admin = Endpoint(port: adminPort)
            try await eventually("the sidecar is ready, or has ended") {
                guard sidecar.isRunning else { return true }
                return try await admin.get("/readyz").status == 200
            }
            try #require(sidecar.isRunning, "\(sidecar.log)")
            return Stage(
                names: names, agent: agent, sidecar: sidecar, endpoint: Endpoint(port: port),
                admin: admin)
        } catch {
            await agent.dispose()
            throw error
        }
    }

    /// In place, because the sidecar sees this very file and no other of its name.
    private func write(_ text: String, to path: String) throws {
        let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        try file.truncate(atOffset: 0)
        try file.write(contentsOf: Data(text.utf8))
        try file.close()
    }

    @Test func `requests follow what a name means`() async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let stage = try await start(folder)
        do {
            #expect(try await stage.reached() == ["127.0.0.2", "127.0.0.3"])
            try write("127.0.0.1 localhost\n127.0.0.3 agents.test\n", to: stage.names)
            try await eventually("the name has lost an address", within: .seconds(30)) {
                try await stage.reached() == ["127.0.0.3"]
            }
            // Nobody is there; the others carry on, and no request is lost.
            try write(
                "127.0.0.1 localhost\n127.0.0.4 agents.test\n127.0.0.2 agents.test\n",
                to: stage.names)
            try await eventually("the name means others", within: .seconds(30)) {
                try await stage.reached() == ["127.0.0.2"]
            }
            // No name any more: the last addresses hold.
            try write("127.0.0.1 localhost\n", to: stage.names)
            let end = ContinuousClock.now + .seconds(8)
            while ContinuousClock.now < end {
                #expect(try await stage.reached(20) == ["127.0.0.2"])
            }
        } catch {
            print(stage.sidecar.log)
            await stage.dispose()
            throw error
        }
        await stage.dispose()
    }
}
