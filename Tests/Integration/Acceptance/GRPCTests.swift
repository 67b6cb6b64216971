import Foundation
import Testing
import WeirCore

/// A sidecar between a client and a server of `grpcio`, and before other people's HTTP/2 servers.
@Suite(.timeLimit(.minutes(4)), .serialized)
struct GRPCTests {
    /// A sidecar before an agent of which nothing is known but its address.
    private struct Fixture {
        let folder: TemporaryFolder
        let port: UInt16
        let admin: Endpoint
        let agentPort: UInt16
        let agent: TestProcess
        let sidecar: TestProcess
        /// Where TLS is spoken.
        let authority: String?
        var endpoint: Endpoint { Endpoint(port: port) }

        /// Runs lines of Python against the sidecar and gives what they put into `seen`.
        func see(_ lines: String) async throws -> JSONValue {
            let script = try folder.write(
                "client.py", GRPCPeers.clientPrelude + "\n" + lines + "\nprint(json.dumps(seen))\n")
            let result = try await Tools.run(
                GRPCPeers.package.python,
                [script, "127.0.0.1:\(port)"] + [authority].compactMap { $0 },
                within: .seconds(60))
            guard result.status == 0, let line = result.output.split(separator: "\n").last else {
                throw TestProcess.Failed(description: result.output)
            }
            return try JSON.parse(String(line))
        }

        func metric(_ line: String) async throws -> Bool {
            try await admin.get("/metrics").text.contains(line)
        }
    }

    /// `spec` is added to the agent's. With the scheme "https" TLS is on both sides; the agent has
    /// `server.pem` and `server-key.pem` in the folder's `certificates`.
    private func with(
        agent executable: String? = nil, scheme: String = "h2c", spec: String = "",
        arguments: (UInt16, TemporaryFolder) throws -> [String] = { port, folder in
            [try folder.write("server.py", GRPCPeers.server), String(port)]
        }, _ test: (Fixture) async throws -> Void
    ) async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        var made: String?
        if scheme == "https" {
            made = try await TLSSidecar.makeCertificates(folder.makeFolder("certificates"))
        }
        let ports = [try Ports.free(), try Ports.free(), try Ports.free()]
        let agent = try TestProcess(
            "agent", executable: executable ?? GRPCPeers.package.python,
            arguments: try arguments(ports[0], folder), folder: folder)
        do {
            try await eventually("the agent listens", within: .seconds(15)) {
                (try? RawConnection(port: ports[0])) != nil
            }
            let sidecar = try await sidecar(
                ports, scheme: scheme, spec: spec, certificates: made, folder)
            do {
                try await test(
                    Fixture(
                        folder: folder, port: ports[1], admin: Endpoint(port: ports[2]),
                        agentPort: ports[0], agent: agent, sidecar: sidecar,
                        authority: made.map { $0 + "/ca.pem" }))
            } catch {
                print(sidecar.log, agent.log)
                await sidecar.dispose()
                throw error
            }
            await sidecar.dispose()
        } catch {
            await agent.dispose()
            throw error
        }
        await agent.dispose()
    }

    private func sidecar(
        _ ports: [UInt16], scheme: String, spec: String, certificates made: String?,
        _ folder: TemporaryFolder
    ) async throws -> TestProcess {
        let policies = try folder.makeFolder("policy")
        try """
        apiVersion: weir.mesh/v1
        kind: Agent
        metadata: {name: echo}
        spec:
          protocol: passthrough
          path: /
          timeouts: {connect: "1s", firstByte: "5s", idle: "5s", total: "5s"}
        \(spec)
        ---
        apiVersion: weir.mesh/v1
        kind: PriceTable
        metadata: {name: prices}
        spec:
          dated: "2026-01-01"
          source: the test
          prices: [{model: echo, perRequest: "0.001"}]
        """.write(toFile: policies + "/policy.yaml", atomically: true, encoding: .utf8)
        let policy = folder.path("policy.json")
        let compiled = try await Tools.run(
            Products.path("weir"), ["policy", "compile", policies, "-o", policy])
        guard compiled.status == 0 else { throw TestProcess.Failed(description: compiled.output) }
        let tls = made.map {
            [
                "--tls-certificate", $0 + "/server.pem", "--tls-key", $0 + "/server-key.pem",
                "--upstream-ca", $0 + "/ca.pem",
            ]
        }
        let sidecar = try TestProcess(
            "sidecar", executable: Products.path("weir-sidecar"),
            arguments: [
                "--standalone", "--policy", policy, "--agent", "echo",
                "--listen", "127.0.0.1:\(ports[1])", "--admin", "127.0.0.1:\(ports[2])",
                "--upstream", "\(scheme)://127.0.0.1:\(ports[0])",
                "--data", try folder.makeFolder("data"),
            ] + (tls ?? []), folder: folder)
        try await eventually("the sidecar is ready", within: .seconds(15)) {
            guard sidecar.isRunning else { throw TestProcess.Failed(description: sidecar.log) }
            return (try? await Endpoint(port: ports[2]).get("/readyz").status) == 200
        }
        return sidecar
    }

    private static let isInstalled = ConditionTrait.enabled(
        "grpcio cannot be installed from PyPI; see scripts/test"
    ) {
        await GRPCPeers.package.install()
    }

    // MARK: grpcio

    /// With TLS, both sides are HTTP/2 by ALPN, without which grpcio does not speak.
    @Test(isInstalled, arguments: ["h2c", "https"])
    func `calls of all four kinds pass through`(scheme: String) async throws {
        let arguments = { (port: UInt16, folder: TemporaryFolder) throws -> [String] in
            let server = [try folder.write("server.py", GRPCPeers.server), String(port)]
            guard scheme == "https" else { return server }
            let made = folder.path("certificates")
            return server + [made + "/server.pem", made + "/server-key.pem"]
        }
        try await with(scheme: scheme, arguments: arguments) { fixture in
            let seen = try await fixture.see(
                """
                answer, rpc = unary.with_call(b"hello", timeout=5, metadata=(("x-asked", "this"),))
                seen["unary"] = [answer.decode(), dict(rpc.initial_metadata()).get("x-initial"),
                                 dict(rpc.trailing_metadata()).get("x-trailing")]
                server = call("unary_stream", "ServerStream")(b"5", timeout=5)
                seen["server"] = [message.decode() for message in server]
                client = call("stream_unary", "ClientStream")
                seen["client"] = client(iter([b"a", b"b", b"c"]), timeout=5).decode()
                def questions():
                    yield b"abc"
                    time.sleep(0.1)
                    yield b"def"
                bidi = call("stream_stream", "Bidi")(questions(), timeout=5)
                seen["bidi"] = [message.decode() for message in bidi]
                seen["large"] = len(unary(b"x" * 3_000_000, timeout=5))
                seen["fail"] = failure(lambda: call("unary_unary", "Fail")(b"", timeout=5))
                seen["unknown"] = failure(lambda: call("unary_unary", "Nothing")(b"", timeout=5))
                with futures.ThreadPoolExecutor(100) as pool:
                    answers = list(pool.map(lambda n: unary(b"n%d" % n, timeout=20), range(400)))
                seen["many"] = sum(a == b"N%d" % n for n, a in enumerate(answers))
                """)
            #expect(seen["unary"] == ["HELLO", "seen", "this"])
            #expect(seen["server"] == ["0", "1", "2", "3", "4"])
            #expect(seen["client"] == "a,b,c")
            #expect(seen["bidi"] == ["cba", "fed"])
            #expect(seen["large"] == 3_000_000)
            #expect(seen["fail"]?["code"] == "FAILED_PRECONDITION")
            #expect(seen["fail"]?["details"] == "not now: 100% sure")
            #expect(seen["unknown"]?["code"] == "UNIMPLEMENTED")
            #expect(seen["many"] == 400)
            func counted(_ method: String, _ status: String, _ count: Int) async throws {
                let name = "weir_grpc_requests_total"
                let line =
                    #"\#(name){agent="echo",method="\#(method)",status="\#(status)"} \#(count)"#
                #expect(try await fixture.metric(line), "\(line)")
            }
            try await counted("test.Echo/Unary", "OK", 402)
            try await counted("test.Echo/Fail", "FAILED_PRECONDITION", 1)
            try await counted("other", "UNIMPLEMENTED", 1)
        }
    }

    @Test(isInstalled) func `deadlines and cancellations reach the agent`() async throws {
        try await with { fixture in
            let seen = try await fixture.see(
                """
                began = time.monotonic()
                seen["deadline"] = failure(lambda: call("unary_unary", "Slow")(b"", timeout=0.5))
                seen["waited"] = round((time.monotonic() - began) * 1000)
                stream = call("unary_stream", "Endless")(b"")
                for _ in range(5): next(stream)
                stream.cancel()
                unary(b"", timeout=2, metadata=(("x-deadline", "1"),))
                unary(b"", metadata=(("x-deadline", "1"),))
                # The agent's own limit of 5 s.
                seen["total"] = failure(lambda: call("unary_unary", "Slow")(b""))
                """)
            #expect(seen["deadline"]?["code"] == "DEADLINE_EXCEEDED")
            #expect(try #require(seen["waited"]?.int64) < 3_000)
            #expect(seen["total"]?["code"] == "DEADLINE_EXCEEDED")
            _ = try await fixture.agent.line(containing: "slow cancelled")
            let lines = fixture.agent.log.split(separator: "\n")
            let told = lines.filter { $0.contains("deadline is") }
            // Hearing it costs time, and asking for it rounds.
            let seconds = told.compactMap { line in
                line.split(separator: " ").dropLast().last.flatMap { Double($0) }
            }
            #expect(seconds.count == 2)
            #expect(seconds.first.map { (1.0...2.1).contains($0) } == true)
            #expect(seconds.last.map { (4.0...5.1).contains($0) } == true)
        }
    }

    @Test(isInstalled) func `refusals are statuses of gRPC`() async throws {
        let limits = "  rateLimit: {requestsPerSecond: 0.001, burst: 2}"
        try await with(spec: limits) { fixture in
            let seen = try await fixture.see(
                """
                for name in ["first", "second", "third"]:
                    seen[name] = failure(lambda: unary(b"x", timeout=5))
                """)
            #expect(seen["second"]?["code"] == "OK")
            #expect(seen["third"]?["code"] == "RESOURCE_EXHAUSTED")
            #expect(seen["third"]?["metadata"]?["weir-decision"] == "rate_limited")
        }
        try await with(spec: "  breaker: {consecutiveFailures: 3, open: \"60s\"}") { fixture in
            let seen = try await fixture.see(
                """
                down = call("unary_unary", "Unavailable")
                for number in range(4):
                    seen[str(number)] = failure(lambda: down(b"", timeout=5))
                """)
            #expect(seen["2"]?["details"] == "down")
            // The agent's word is what opens the circuit.
            #expect(seen["3"]?["code"] == "UNAVAILABLE")
            #expect(seen["3"]?["metadata"]?["weir-decision"] == "circuit_open")
        }
        try await with(scheme: "http") { fixture in
            let seen = try await fixture.see(
                #"seen["http"] = failure(lambda: unary(b"", timeout=5))"#)
            #expect(seen["http"]?["code"] == "UNIMPLEMENTED")
            #expect(seen["http"]?["details"]?.string?.contains("HTTP/2") == true)
            await fixture.agent.dispose()
        }
        try await with { fixture in
            await fixture.agent.dispose()
            let seen = try await fixture.see(
                #"seen["gone"] = failure(lambda: unary(b"", timeout=5))"#)
            #expect(seen["gone"]?["code"] == "UNAVAILABLE")
            #expect(seen["gone"]?["metadata"]?["weir-decision"] == "upstream_error")
        }
    }

    // MARK: nghttpd

    /// One stream for each connection, and many clients.
    @Test(arguments: ["100", "1"])
    func `nghttpd serves clients of HTTP 1`(streams: String) async throws {
        let arguments = { (port: UInt16, folder: TemporaryFolder) throws -> [String] in
            try folder.write("small", "small file")
            return [
                "--no-tls", "-m", streams, "-d", folder.path(""), "--echo-upload", String(port),
            ]
        }
        try await with(agent: try Tools.path("nghttpd"), arguments: arguments) { fixture in
            let body = String(repeating: "0123456789", count: 200_000)
            let echoed = try await fixture.endpoint.post("/echo", body)
            #expect(echoed.status == 200 && echoed.text == body)
            try await withThrowingTaskGroup(of: String.self) { group in
                for _ in 0..<100 {
                    group.addTask { try await fixture.endpoint.get("/small").text }
                }
                for try await text in group { #expect(text == "small file") }
            }
        }
    }
}
