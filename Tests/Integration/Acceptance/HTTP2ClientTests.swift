import Foundation
import Testing
import WeirCore

/// Other people's HTTP/2 clients before a real sidecar.
@Suite(.timeLimit(.minutes(3)), .serialized)
struct HTTP2ClientTests {
    private static let python = PythonTool(
        name: "httpx", requirement: "httpx[http2]==0.28.1", hasProgram: false)

    private static let isInstalled = ConditionTrait.enabled(
        "httpx[http2] cannot be installed from PyPI"
    ) {
        await python.install()
    }

    private func curl(_ arguments: [String]) async throws -> String {
        let result = try await Tools.run(
            try Tools.path("curl"),
            ["--silent", "--show-error", "--max-time", "20", "--http2-prior-knowledge"] + arguments)
        guard result.status == 0 else { throw TestProcess.Failed(description: result.output) }
        return result.output
    }

    @Test func `curl: completions, streams, refusals and the admin pages`() async throws {
        try await Standalone.run(allowance: "0.0002") { alone in
            let url = "http://127.0.0.1:\(alone.port)/v1/chat/completions"
            let type = [
                "-H", "Content-Type: application/json", "-w", "\n%{http_version} %{http_code}",
            ]
            let whole = try await curl([url, "-d", Standalone.body()] + type)
            #expect(whole.hasSuffix("\n2 200") && whole.contains("completion_tokens"))
            let stream = try await curl([url, "-N", "-d", Standalone.body(stream: true)] + type)
            #expect(stream.contains("data: [DONE]\n\n") && stream.hasSuffix("\n2 200"))
            try await eventually("the allowance is spent", every: .zero) {
                try await curl([url, "-d", Standalone.body()] + type).hasSuffix("\n2 402")
            }
            let refused = try await curl([url, "-i", "-d", Standalone.body()])
            #expect(refused.contains("weir-decision: ") && refused.contains("HTTP/2 402"))
            let page = try await curl(["http://127.0.0.1:\(alone.adminPort)/metrics"] + type)
            #expect(page.contains("agent_invocations_total{") && page.hasSuffix("\n2 200"))
            // The body is refused while it is still on its way.
            let folder = try TemporaryFolder()
            defer { folder.remove() }
            let large = try folder.write("large", String(repeating: "x", count: 17 << 20))
            let refusal = try await curl([url, "--data-binary", "@\(large)"] + type)
            #expect(refusal.hasSuffix("\n2 413"), "\(refusal.suffix(300))")
        }
    }

    @Test func `curl: a gateway's analyses and streams, and what they cost`() async throws {
        try await Mesh.run(Mesh.Options(agents: ["finbert", "llama2-7b"])) { mesh in
            let base = "http://127.0.0.1:\(mesh.gatewayPort)"
            var fields = [
                "-H", "Content-Type: application/json", "-w", "\n%{http_version} %{http_code}",
            ]
            for (name, value) in mesh.userHeaders("alice", tier: "premium") {
                fields += ["-H", "\(name): \(value)"]
            }
            let analysis = try await curl(
                [base + "/analyze", "-i", "-d", AcceptancePolicy.newsAnalysis] + fields)
            #expect(analysis.hasSuffix("\n2 200"), "\(analysis)")
            #expect(analysis.contains("\nweir-policy-version: 1"))
            let stream = try await curl(
                [base + "/v1/chat/completions", "-N", "-d", Standalone.body(stream: true)] + fields)
            #expect(stream.contains("data: [DONE]\n\n") && stream.hasSuffix("\n2 200"), "\(stream)")
            #expect(try await mesh.settledBooks(of: "alice").consumed > .zero)
            let refused = try await curl([base + "/analyze", "-d", "{"] + fields)
            #expect(refused.hasSuffix("\n2 400"), "\(refused)")
            let nobody = try await curl([base + "/stats", "-w", "\n%{http_code}"])
            #expect(nobody.hasSuffix("\n401"), "\(nobody)")
        }
    }

    @Test func `nghttp and h2load: many streams at once`() async throws {
        try await Standalone.run(allowance: "1000", latency: "none") { alone in
            let folder = try TemporaryFolder()
            defer { folder.remove() }
            let body = try folder.write("body.json", Standalone.body())
            let url = "http://127.0.0.1:\(alone.port)/v1/chat/completions"
            let one = try await Tools.run(
                try Tools.path("nghttp"),
                ["-v", "-d", body, "-H", "content-type: application/json", url])
            #expect(one.status == 0 && one.output.contains(":status: 200"))
            let many = try await Tools.run(
                try Tools.path("h2load"),
                [
                    "-n", "400", "-c", "2", "-m", "50", "-d", body, "-H",
                    "content-type: application/json", url,
                ],
                within: .seconds(60))
            #expect(
                many.output.contains("400 succeeded, 0 failed, 0 errored, 0 timeout"),
                "\(many.output)")
        }
    }

    /// SIGTERM while requests are on their way: each that the last GOAWAY names is answered.
    @Test(isInstalled) func `a drain loses no request of a client of its own frames`()
        async throws
    {
        try await Standalone.run(allowance: "1000", latency: "300") { alone in
            let folder = try TemporaryFolder()
            defer { folder.remove() }
            let script = try folder.write("drain.py", Self.drain)
            let result = try await Tools.run(
                Self.python.python,
                [script, "\(alone.port)", "\(alone.part.process.pid)", Standalone.body()],
                within: .seconds(30))
            #expect(result.status == 0, "\(result.output)")
            #expect(result.output.contains("lost 0"), "\(result.output)")
        }
    }

    private static let drain = """
        import os, signal, socket, sys, time
        import h2.config, h2.connection, h2.events, h2.settings
        port, pid, body = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode()
        sock = socket.create_connection(("127.0.0.1", port)); sock.settimeout(15)
        conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        conn.initiate_connection(); sock.sendall(conn.data_to_send())
        sent, ended, last = [], set(), None
        def ask():
            stream = conn.get_next_available_stream_id()
            conn.send_headers(stream, [(":method", "POST"), (":scheme", "http"),
                (":authority", "llama"), (":path", "/v1/chat/completions"),
                ("content-type", "application/json"), ("content-length", str(len(body)))])
            conn.send_data(stream, body, end_stream=True)
            sock.sendall(conn.data_to_send())
            sent.append(stream)
        for _ in range(20): ask()
        os.kill(pid, signal.SIGTERM)
        raw = b""
        # The first GOAWAY would make the library refuse new streams: frames are read by hand.
        for _ in range(20): ask()
        goaways = []
        while True:
            try: data = sock.recv(65536)
            except (TimeoutError, ConnectionResetError): break
            if not data: break
            raw += data
            while len(raw) >= 9:
                size = int.from_bytes(raw[:3], "big")
                if len(raw) < 9 + size: break
                kind, flags = raw[3], raw[4]
                stream = int.from_bytes(raw[5:9], "big") & 0x7FFFFFFF
                payload, raw = raw[9:9 + size], raw[9 + size:]
                if kind == 6 and not flags & 1:
                    sock.sendall(b"\\0\\0\\x08\\6\\1\\0\\0\\0\\0" + payload)
                if kind == 7: goaways.append(int.from_bytes(payload[:4], "big") & 0x7FFFFFFF)
                if kind in (0, 1) and flags & 1: ended.add(stream)
        lost = [stream for stream in sent if stream <= goaways[-1] and stream not in ended]
        print("goaways", goaways, "answered", len(ended), "lost", len(lost))
        assert len(goaways) == 2 and goaways[0] == 0x7FFFFFFF and len(ended) >= 20
        """

    @Test(isInstalled) func `httpx: a hundred at once, and a stream that is left`()
        async throws
    {
        try await Standalone.run(allowance: "1000", latency: "100") { alone in
            let folder = try TemporaryFolder()
            defer { folder.remove() }
            let script = try folder.write("many.py", Self.many)
            let result = try await Tools.run(
                Self.python.python,
                [
                    script, "http://127.0.0.1:\(alone.port)", Standalone.body(),
                    Standalone.body(stream: true),
                ], within: .seconds(60))
            #expect(result.status == 0, "\(result.output)")
            #expect(result.output.contains("HTTP/2 {200: 100}"), "\(result.output)")
            try await eventually("nothing is left at the agent") {
                try await alone.agents.stats(Standalone.agent)["inFlight"]?.int64 == 0
            }
        }
    }

    private static let many = """
        import asyncio, collections, sys, httpx
        base, body, stream = sys.argv[1:4]
        url, fields = base + "/v1/chat/completions", {"content-type": "application/json"}
        async def main():
            limits = httpx.Limits(max_connections=1)
            fresh = dict(http1=False, http2=True, limits=limits, timeout=30)
            async with httpx.AsyncClient(**fresh) as client:
                answers = await asyncio.gather(
                    *[client.post(url, content=body, headers=fields) for _ in range(100)])
                codes = collections.Counter(answer.status_code for answer in answers)
                print(answers[0].http_version, dict(codes))
                async with client.stream("POST", url, content=stream, headers=fields) as answer:
                    async for line in answer.aiter_lines(): break
                again = await client.post(url, content=body, headers=fields)
                assert again.status_code == 200
        asyncio.run(main())
        """
}
