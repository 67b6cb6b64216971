import Foundation
import Testing
import WeirCore

/// One service behind a sidecar without a mesh.
@Suite(.timeLimit(.minutes(3)), .serialized)
struct StandaloneTests {
    /// The objects of a stream of events, without its end mark.
    private func events(_ text: String) throws -> [JSONValue] {
        try text.components(separatedBy: "\n\n").filter { $0.hasPrefix("data: {") }
            .map { try JSON.parse(String($0.dropFirst(6))) }
    }

    @Test func `completions are metered to the n$, whole and streamed`() async throws {
        try await Standalone.run { alone in
            let whole = try await alone.complete()
            try #require(whole.status == 200, "\(whole.text)")
            #expect(whole.header("weir-decision") == "admitted")
            #expect(whole.header("weir-model") == "llama-2-7b-chat")
            let first = try #require(Standalone.cost(try whole.json()["usage"]))
            #expect(first > .zero)
            try await eventually("the cost is counted") { try await alone.charged() == first }

            let streamed = try await alone.complete(stream: true)
            try #require(streamed.status == 200)
            #expect(streamed.header("content-type") == "text/event-stream")
            #expect(streamed.text.hasSuffix("data: [DONE]\n\n"))
            let last = try #require(try events(streamed.text).last)
            let second = try #require(Standalone.cost(last["usage"]))
            try await eventually("the stream is counted, too") {
                try await alone.charged(source: "reported") == first + second
            }
            let metrics = try await alone.admin.get("/metrics").text
            #expect(
                metrics.contains(
                    "agent_invocations_total{agent=\"llama2-7b\",model=\"llama-2-7b-chat\""))
            #expect(metrics.contains("weir_tokens_total{"))
        }
    }

    @Test func `a stream arrives piece by piece`() async throws {
        // A first byte after 0.6 s, the rest within the 1.4 s that follow.
        try await Standalone.run(latency: "2000") { alone in
            let stream = try alone.openStream()
            let early = try stream.read(until: "data: {")
            #expect(early.hasPrefix("HTTP/1.1 200 OK\r\n"))
            // The agent is still writing while its first words are here.
            let stats = try await alone.agents.stats(Standalone.agent)
            #expect(stats["inFlight"]?.int64 == 1)
            #expect(stats["completed"]?.int64 == 0)
            let rest = try stream.read(until: "data: [DONE]")
            #expect(rest.contains("\"completion_tokens\":"))
        }
    }

    @Test func `an allowance ends with 402, also after a restart`() async throws {
        let allowance = NanoUSD(200_000)
        try await Standalone.run(allowance: allowance.usd) { alone in
            var served = NanoUSD.zero
            let refused = try await eventually("the allowance is spent", every: .zero) {
                let answer = try await alone.complete()
                guard answer.status == 200 else { return Endpoint.Answer?.some(answer) }
                served += try #require(Standalone.cost(try answer.json()["usage"]))
                return nil
            }
            #expect(refused.status == 402)
            let error = try refused.json()["error"]
            #expect(error?["code"]?.string == "budget_exhausted")
            #expect(error?["type"]?.string == "insufficient_quota")
            #expect(refused.header("x-should-retry") == "false")
            #expect(served > .zero && served <= allowance)
            let calls = try await alone.agents.count("requests", of: Standalone.agent)

            #expect(try await alone.part.process.terminate() == 0)
            try alone.part.startAgain()
            try await alone.part.ready()
            // The journal goes on where it was: what is spent stays spent.
            #expect(try await alone.complete().status == 402)
            #expect(try await alone.agents.count("requests", of: Standalone.agent) == calls)
            // What is left is enough for a shorter answer.
            #expect(try await alone.complete(outputTokensMax: 1).status == 200)
            try await alone.part.process.killAtOnce()
            try alone.part.startAgain()
            try await alone.part.ready()
            #expect(try await alone.complete().status == 402)
        }
    }

    @Test func `two workers share one allowance`() async throws {
        try await Standalone.run(workers: 2) { alone in
            let costs = try await withThrowingTaskGroup(of: NanoUSD?.self) { group in
                for index in 0..<64 {
                    group.addTask {
                        let answer = try await alone.complete(outputTokensMax: 1 + index % 8)
                        return Standalone.cost(try answer.json()["usage"])
                    }
                }
                return try await group.reduce(into: [NanoUSD?]()) { $0.append($1) }
            }
            let sum = costs.compactMap { $0 }.reduce(.zero, +)
            #expect(costs.count { $0 != nil } == 64)
            try await eventually("both workers' costs are shown") {
                try await alone.charged() == sum
            }
            #expect(alone.part.log.contains("\"workers\":\"2\""))
        }
    }

    @Test func `SIGTERM lets a running stream end`() async throws {
        try await Standalone.run(latency: "2000") { alone in
            let stream = try alone.openStream()
            _ = try stream.read(until: "data: {")
            alone.part.process.signal(SIGTERM)
            try await eventually("nothing new is taken") {
                (try? RawConnection(port: alone.port)) == nil
            }
            #expect(alone.part.process.isRunning)
            let rest = try stream.read(until: "data: [DONE]")
            #expect(rest.contains("\"completion_tokens\":"))
            #expect(try await alone.part.process.exited(within: .seconds(5)) == 0)
            #expect(try await alone.agents.count("completed", of: Standalone.agent) == 1)
            #expect(try await alone.agents.count("aborted", of: Standalone.agent) == 0)
        }
    }

    @Test func `a stream that dies is cut here, too, and costs the worst case`() async throws {
        try await Standalone.run { alone in
            try await alone.agents.setFault(Standalone.agent, "die", argument: 600, times: 1)
            let stream = try alone.openStream()
            let (bytes, end) = stream.readToEnd(quietMilliseconds: 5_000)
            let text = String(decoding: bytes, as: UTF8.self)
            #expect(end != .timedOut)
            #expect(text.contains("data: {"))
            // Without the last chunk, no client takes it for a whole answer.
            #expect(!text.contains("[DONE]") && !text.hasSuffix("0\r\n\r\n"), "\(text)")
            try await eventually("the ceiling is charged") {
                // 400 output tokens are what the policy allows where a request states none.
                try await alone.charged(source: "ceiling")
                    > NanoUSD(400 * Standalone.outputPrice)
            }
            #expect(try await alone.complete().status == 200)
        }
    }

    @Test func `Prometheus reads the metrics, and the settings show no secret`() async throws {
        try await Standalone.run { alone in
            _ = try await alone.complete()
            _ = try await alone.complete(stream: true)
            let folder = try TemporaryFolder()
            defer { folder.remove() }
            let file = try folder.write(
                "metrics.txt", try await alone.admin.get("/metrics").text)
            let result = try await Tools.run(
                "/bin/sh", ["-c", "promtool check metrics < \(file)"])
            #expect(result.status == 0, "\(result.output)")
            let settings = try await alone.admin.get("/config")
            #expect(settings.text.contains("openai-api-key"))
            #expect(settings.text.contains("[redacted]"))
            #expect(!settings.text.contains(Standalone.secret))
            #expect(!alone.part.log.contains(Standalone.secret))
        }
    }

    private static let hostileFields = [
        "Host: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked",
        "Host: a\r\nContent-Length: 2\r\nContent-Length: 3",
        "Host: a\r\nContent-Length : 2",
        "Host: a\r\nContent-Length: +2",
        "Host: a\r\nHost: b\r\nContent-Length: 2",
        "Content-Length: 2",
        "Host: a\r\nContent-Length: 2\r\n folded: yes",
        "Host: a\r\nContent-Length: 2\nX: bare line feed",
        "Host: a\r\nTransfer-Encoding: chunked, identity",
    ]

    @Test func `hostile heads are refused and nothing of them is forwarded`() async throws {
        try await Standalone.run { alone in
            for fields in Self.hostileFields {
                let connection = try RawConnection(port: alone.port)
                try connection.send("POST /v1/chat/completions HTTP/1.1\r\n\(fields)\r\n\r\n{}")
                let (bytes, end) = connection.readToEnd(quietMilliseconds: 5_000)
                let text = String(decoding: bytes, as: UTF8.self)
                #expect(text.hasPrefix("HTTP/1.1 400 "), "\(fields): \(text)")
                #expect(end != .timedOut, "\(fields): the connection stays open")
                // Bytes behind an ambiguous head are never read as another request.
                #expect(text.components(separatedBy: "HTTP/1.1 ").count == 2, "\(text)")
            }
            #expect(try await alone.agents.count("requests", of: Standalone.agent) == 0)
            #expect(try await alone.complete().status == 200)
        }
    }
}
