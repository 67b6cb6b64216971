import Foundation
import Testing
import WeirCore

/// The sample agents over HTTP: what the demo and the other tests rely on.
@Suite(.timeLimit(.minutes(1)))
struct SampleAgentsTests {
    private static let chat =
        #"{"messages":[{"role":"user","content":"Explain: Apple surged 5%"}],"max_tokens":4"#

    private func withAgents(
        latency: String = "none", faults: [String: String] = [:],
        _ test: (SampleAgentsProcess) async throws -> Void
    ) async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let agents = try await SampleAgentsProcess(latency: latency, faults: faults, folder: folder)
        do {
            try await test(agents)
        } catch {
            await agents.process.dispose()
            throw error
        }
        let status = try await agents.process.terminate()
        #expect(status == 0, "\(agents.process.log)")
    }

    @Test func `FinBERT answers as Hugging Face's inference API does`() async throws {
        try await withAgents { agents in
            let finbert = try agents.endpoint("finbert")
            for path in ["/", "/models/ProsusAI/finbert"] {
                let answer = try await finbert.post(
                    path, #"{"inputs": ["Profits surged", "Profits plunged"]}"#)
                #expect(answer.status == 200)
                #expect(answer.header("sample") == "true")
                let texts = try #require(try answer.json().array)
                #expect(texts.map { $0.array?.first?["label"] } == ["positive", "negative"])
                for scores in texts {
                    let values = (scores.array ?? []).compactMap { $0["score"]?.double }
                    #expect(values.count == 3)
                    #expect(values == values.sorted(by: >))
                    #expect(abs(values.reduce(0, +) - 1) < 1e-9)
                }
            }
        }
    }

    @Test(arguments: ["gpt4-turbo", "llama2-7b"])
    func `chat models honour max_tokens and report usage`(agent: String) async throws {
        try await withAgents { agents in
            let model = try agents.endpoint(agent)
            let answer = try await model.post("/v1/chat/completions", Self.chat + "}").json()
            #expect(answer["sample"] == true)
            let choice = try #require(answer["choices"]?.array?.first)
            #expect(choice["finish_reason"] == "length")
            #expect(choice["message"]?["content"] == "The news about Apple")
            #expect(answer["usage"]?["completion_tokens"] == 4)
            let prompt = try #require(answer["usage"]?["prompt_tokens"]?.int64)
            #expect(answer["usage"]?["total_tokens"]?.int64 == prompt + 4)
            let stats = try await agents.stats(agent)
            #expect(stats["outputTokens"] == 4)
            #expect(stats["inputTokens"]?.int64 == prompt)

            let models = try await model.get("/v1/models").json()
            #expect(models["data"]?.array?.count == 1)
        }
    }

    @Test func `a stream carries the same text, and usage where it was asked for`() async throws {
        try await withAgents { agents in
            let llama = try agents.endpoint("llama2-7b")
            let plain = try await llama.post(
                "/v1/chat/completions", Self.chat + #","stream":true}"#)
            #expect(plain.header("content-type") == "text/event-stream")
            let events = Self.events(plain.text)
            #expect(events.last == "[DONE]")
            let chunks = try events.dropLast().map { try JSON.parse($0) }
            let text = chunks.compactMap {
                $0["choices"]?.array?.first?["delta"]?["content"]?.string
            }
            #expect(text.joined() == "The news about Apple")
            #expect(chunks.allSatisfy { $0["usage"] == nil && $0["sample"] == true })

            let asked = try await llama.post(
                "/v1/chat/completions",
                Self.chat + #","stream":true,"stream_options":{"include_usage":true}}"#)
            let last = try JSON.parse(Self.events(asked.text).dropLast().last ?? "")
            #expect(last["usage"]?["completion_tokens"] == 4)
            #expect(last["choices"] == [])
        }
    }

    @Test func `the forecaster and the risk agent compute from what they are given`() async throws {
        try await withAgents { agents in
            let history = (0..<30).map { #"{"t":"\#($0)","close":\#(100 + $0)}"# }
                .joined(separator: ",")
            let forecast = try await agents.endpoint("tft").post(
                "/forecast",
                #"{"symbol":"AAPL","horizon_days":3,"history":[\#(history)]}"#
            ).json()
            #expect(forecast["direction"] == "up")
            #expect(forecast["forecast"]?.array?.count == 3)
            #expect(forecast["sample"] == true)

            let risk = try agents.endpoint("risk")
            let position =
                #"{"symbol":"A","quantity":1,"price":100,"returns":[-0.1,0,0,0,0,0]}"#
            let report = try await risk.post("/analyze", #"{"positions":[\#(position)]}"#).json()
            #expect(report["portfolio"]?["concentration"] == 1)
            #expect(report["portfolio"]?["max_drawdown"]?.double == 0.1)
            #expect(try await risk.post("/", "{}").status == 422)
            #expect(try await risk.post("/", "not JSON").status == 400)
        }
    }

    @Test func `faults change status, head, usage and body`() async throws {
        try await withAgents { agents in
            let llama = try agents.endpoint("llama2-7b")
            func send(_ fault: String) async throws -> Endpoint.Answer {
                try await llama.post(
                    "/v1/chat/completions", Self.chat + "}", headers: ["sample-fault": fault])
            }
            #expect(try await send("fail:503").status == 503)
            let limited = try await send("429:7")
            #expect(limited.status == 429)
            #expect(limited.header("retry-after") == "7")
            let wrong = try await send("wrong-usage").json()
            #expect(wrong["usage"]?["completion_tokens"]?.int64 ?? 0 > 4)
            let silent = try await send("no-usage").json()
            #expect(silent["usage"] == nil)
            #expect(silent["choices"] != nil)
            let garbage = try await send("garbage")
            #expect(garbage.status == 200)
            #expect(throws: (any Error).self) { try garbage.json() }
            let clock = ContinuousClock()
            let took = try await clock.measure { _ = try await send("slow:300") }
            #expect(took >= .milliseconds(300))
        }
    }

    @Test func `stalls and deaths show on the wire`() async throws {
        try await withAgents { agents in
            let port = try agents.port("finbert")
            func exchange(_ fault: String, quiet: Int) throws -> (String, RawConnection.End) {
                let connection = try RawConnection(port: port)
                let body = #"{"inputs":"up"}"#
                try connection.send(
                    "POST / HTTP/1.1\r\nhost: a\r\nsample-fault: \(fault)\r\n"
                        + "content-length: \(body.utf8.count)\r\n\r\n\(body)")
                let answer = connection.readToEnd(quietMilliseconds: quiet)
                return (String(decoding: answer.bytes, as: UTF8.self), answer.end)
            }
            #expect(try exchange("stall", quiet: 200) == ("", .timedOut))
            let head = try exchange("stall-head", quiet: 200)
            #expect(head.0.hasPrefix("HTTP/1.1 200 OK\r\n"))
            #expect(head.0.hasSuffix("\r\n\r\n"))
            #expect(head.1 == .timedOut)
            let death = try exchange("die:5", quiet: 2_000)
            #expect(death.0.hasSuffix("\r\n\r\n[[{\"l"))
            #expect(death.1 != .timedOut)
            let twoLengths = try exchange("garbage-head", quiet: 200)
            #expect(twoLengths.0.components(separatedBy: "Content-Length:").count == 3)
            // Who stalls before the head sees that nobody waits; in mid-answer nobody looks.
            try await eventually("one goes on") {
                try await agents.count("inFlight", of: "finbert") == 1
            }
        }
    }

    @Test func `a fault can be set for all, for some requests, and from the start`() async throws {
        try await withAgents(faults: ["risk": "fail:500"]) { agents in
            let finbert = try agents.endpoint("finbert")
            func status() async throws -> Int {
                try await finbert.post("/", #"{"inputs":"up"}"#).status
            }
            try await agents.setFault("finbert", "fail", argument: 502, times: 2)
            #expect(try await [status(), status(), status()] == [502, 502, 200])
            try await agents.setFault("finbert", "429")
            #expect(try await [status(), status()] == [429, 429])
            try await agents.setFault("finbert", "none")
            #expect(try await status() == 200)
            #expect(try await finbert.put("/__fault", #"{"kind":"nonsense"}"#).status == 422)
            #expect(try await agents.endpoint("risk").post("/", "{}").status == 500)

            try await agents.setFault("finbert", "unhealthy")
            #expect(try await finbert.get("/health").status == 503)
            #expect(try await status() == 200)
        }
    }

    @Test func `what arrived is counted and shown`() async throws {
        try await withAgents { agents in
            let finbert = try agents.endpoint("finbert")
            _ = try await finbert.post("/", #"{"inputs":"up"}"#, headers: ["x-one": "1"])
            _ = try await finbert.get("/health")
            let stats = try await agents.stats("finbert")
            #expect(stats["requests"] == 1)
            #expect(stats["bodies"] == 1)
            #expect(stats["completed"] == 1)
            #expect(stats["last"]?["body"] == #"{"inputs":"up"}"#)
            #expect(stats["last"]?["headers"]?.array?.contains(["x-one", "1"]) == true)
            try await agents.reset("finbert")
            #expect(try await agents.count("requests", of: "finbert") == 0)
        }
    }

    @Test func `the platform's latencies are the default`() async throws {
        try await withAgents(latency: "seed") { agents in
            let clock = ContinuousClock()
            let took = try await clock.measure {
                _ = try await agents.endpoint("llama2-7b").post(
                    "/v1/chat/completions", Self.chat + "}")
            }
            #expect(took >= .milliseconds(210))
        }
    }

    private static func events(_ text: String) -> [String] {
        text.components(separatedBy: "\n\n").filter { !$0.isEmpty }
            .map { String($0.dropFirst("data: ".count)) }
    }
}
