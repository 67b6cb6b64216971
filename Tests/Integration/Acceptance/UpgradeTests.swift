import Foundation
import Testing
import WeirCore

/// WebSockets through a sidecar, spoken by a client and a server of others: over TCP and over Unix
/// sockets, admitted, limited and charged like every request.
@Suite(.timeLimit(.minutes(3)), .serialized)
struct UpgradeTests {
    private static let package = PythonTool(name: "websockets", requirement: "websockets==15.0.1")

    private static let agent = """
        import asyncio, sys
        from websockets.asyncio.server import serve, unix_serve
        async def echo(socket):
            async for message in socket:
                await socket.send(message)
        async def main(where):
            server = (unix_serve(echo, where) if where.startswith("/")
                      else serve(echo, "127.0.0.1", int(where)))
            async with server:
                print("listening", flush=True)
                await asyncio.get_running_loop().create_future()
        asyncio.run(main(sys.argv[1]))
        """

    private static let client = """
        import json, sys
        from websockets.exceptions import InvalidStatus
        from websockets.sync.client import connect, unix_connect
        where = sys.argv[1]
        def open_one():
            if where.startswith("/"):
                return unix_connect(where, uri="ws://agent/chat")
            return connect("ws://127.0.0.1:" + where + "/chat")
        seen = {}
        with open_one() as socket:
            socket.send("hello")
            seen["text"] = socket.recv()
            sent = bytes(range(256)) * 2000
            for _ in range(8):
                socket.send(sent)
            seen["whole"] = all(socket.recv() == sent for _ in range(8))
            seen["pong"] = socket.ping().wait(5)
            try:
                open_one()
                seen["second"] = 101
            except InvalidStatus as refused:
                seen["second"] = refused.response.status_code
        seen["close"] = socket.close_code
        with open_one() as socket:
            socket.send("again")
            seen["again"] = socket.recv()
        print(json.dumps(seen))
        """

    private struct Stage {
        let folder: TemporaryFolder
        let listen: String
        let admin: Endpoint
    }

    /// A sidecar before the WebSocket server; both listen on Unix sockets, or on ports.
    private func withStage(
        onUnixSockets: Bool, price: String, _ test: (Stage) async throws -> Void
    ) async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.add("echo.yaml", Self.document(price: price))
        try await policy.compile(to: folder.path("policy.json"))
        let upstream = onUnixSockets ? folder.path("agent.sock") : String(try Ports.free())
        let listen = onUnixSockets ? folder.path("weir.sock") : String(try Ports.free())
        let adminPort = try Ports.free()
        let agent = try TestProcess(
            "agent", executable: Self.package.python,
            arguments: [try folder.write("agent.py", Self.agent), upstream], folder: folder)
        do {
            _ = try await agent.line(containing: "listening")
            let part = try MeshPart(
                "sidecar", product: "weir-sidecar",
                arguments: [
                    "--standalone", "--policy", folder.path("policy.json"), "--agent", "echo",
                    "--listen", onUnixSockets ? "unix:\(listen)" : "127.0.0.1:\(listen)",
                    "--admin", "127.0.0.1:\(adminPort)", "--upstream",
                    onUnixSockets ? "unix:\(upstream)" : "http://127.0.0.1:\(upstream)",
                    "--data", try folder.makeFolder("data"), "--allowance", "1",
                ], environment: [:], folder: folder,
                isReady: { try await Endpoint(port: adminPort).get("/readyz").status == 200 })
            do {
                try await part.ready()
                try await test(
                    Stage(folder: folder, listen: listen, admin: Endpoint(port: adminPort)))
            } catch {
                print(part.log)
                await part.process.dispose()
                throw error
            }
            await part.process.dispose()
        } catch {
            print(agent.log)
            await agent.dispose()
            throw error
        }
        await agent.dispose()
    }

    private static func document(price: String) -> String {
        """
        apiVersion: weir.mesh/v1
        kind: Agent
        metadata:
          name: echo
        spec:
          protocol: passthrough
          path: /chat
          timeouts: {connect: 1s, firstByte: 5s, idle: 10s, total: 30s}
          concurrency: {requestsMax: 1}
        ---
        apiVersion: weir.mesh/v1
        kind: PriceTable
        metadata:
          name: echo
        spec:
          dated: "2026-11-01"
          prices:
            - model: echo
              \(price)
        """
    }

    private func cost(_ stage: Stage) async throws -> NanoUSD {
        try await stage.admin.get("/metrics").text.split(separator: "\n")
            .filter { $0.hasPrefix("cost_usd_total{") }
            .compactMap { $0.split(separator: " ").last.flatMap { NanoUSD(usd: String($0)) } }
            .reduce(.zero, +)
    }

    @Test(
        .enabled("the websockets package cannot be installed from PyPI; see scripts/test") {
            await Self.package.install()
        }, arguments: [false, true])
    func `the websockets package talks to itself through a sidecar`(
        onUnixSockets: Bool
    ) async throws {
        try await withStage(onUnixSockets: onUnixSockets, price: #"perRequest: "0.001""#) { stage in
            let script = try stage.folder.write("client.py", Self.client)
            let result = try await Tools.run(
                Self.package.python, [script, stage.listen], environment: ["NO_PROXY": "*"],
                within: .seconds(40))
            try #require(result.status == 0, "\(result.output)")
            let last = result.output.split(separator: "\n").last.map(String.init) ?? ""
            let seen = try JSON.parse(last)
            #expect(seen["text"]?.string == "hello" && seen["again"]?.string == "again")
            #expect(seen["whole"]?.bool == true && seen["pong"]?.bool == true, "\(last)")
            // A tunnel has the agent's only place as long as it is open.
            #expect(seen["second"]?.int64 == 503)
            #expect(seen["close"]?.int64 == 1000)
            // Two tunnels; what was refused costs nothing.
            try await eventually("both are charged") {
                try await cost(stage) == NanoUSD(2_000_000)
            }
            let metrics = try await stage.admin.get("/metrics").text
            #expect(metrics.contains("weir_requests_in_flight{agent=\"echo\"} 0\n"))
            #expect(metrics.contains("outcome=\"admitted\"} 2\n"), "\(metrics)")
            if onUnixSockets { try await plainRequests(stage) }
        }
    }

    /// curl is told by the server that it wants an upgrade, which is an answer like any other.
    private func plainRequests(_ stage: Stage) async throws {
        let attributes = try FileManager.default.attributesOfItem(atPath: stage.listen)
        #expect(attributes[.posixPermissions] as? Int == 0o660)
        let result = try await Tools.run(
            try Tools.path("curl"),
            [
                "-sS", "--max-time", "10", "--unix-socket", stage.listen, "-o", "/dev/null", "-w",
                "%{http_code}", "http://agent/chat",
            ])
        #expect(result.output.hasSuffix("426"), "\(result.output)")
    }

    @Test(
        .enabled("the websockets package cannot be installed from PyPI; see scripts/test") {
            await Self.package.install()
        })
    func `tokens in a tunnel cannot be counted`() async throws {
        try await withStage(onUnixSockets: false, price: #"tokens: {input: "1", output: "0"}"#) {
            stage in
            let port = try #require(UInt16(stage.listen))
            let plain = try await Endpoint(port: port).get("/chat")
            #expect(plain.status == 426)
            let connection = try RawConnection(port: port)
            try connection.send(
                "GET /chat HTTP/1.1\r\nHost: agent\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
                    + "Sec-WebSocket-Version: 13\r\n"
                    + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
            let answer = String(decoding: connection.readToEnd().bytes, as: UTF8.self)
            #expect(answer.hasPrefix("HTTP/1.1 403 "), "\(answer)")
            #expect(answer.contains("unmetered_path"))
        }
    }
}
