import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarCore

@Suite struct MeteredFormatsTests {
    private func anthropic() -> AgentPolicy {
        var agent = AgentPolicy(
            name: "claude", wireProtocol: .anthropic, path: "/v1/messages",
            models: [.init(id: "claude-sonnet-4-5", aliases: [])])
        agent.outputTokensMax = 50
        return agent
    }

    private func price() -> ModelPrice {
        var price = ModelPrice(model: "claude-sonnet-4-5")
        price.tokens.input = NanoUSD(4_000_000)
        price.tokens.cachedInput = NanoUSD(400_000)
        price.tokens.cacheWrite = NanoUSD(5_000_000)
        price.tokens.output = NanoUSD(20_000_000)
        return price
    }

    @Test func aStreamOfAnthropicsIsMeteredWithItsCache() throws {
        let text = RecordedAnswers.anthropicStream
        let upstream = try TestUpstream { _ in
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: "
                + "\(text.utf8.count)\r\n\r\n" + text
        }
        let fixture = try AdmissionFixture(
            upstream.address, credential: "key", agent: anthropic(), price: price())
        let client = fixture.proxy.client()
        client.send(
            post(
                "/v1/messages",
                #"{"model":"claude","stream":true,"messages":[{"role":"user","content":"Hi"}]}"#,
                "Content-Type: application/json\r\nx-api-key: mine\r\n"
                    + fixture.delegation(child: 1, path: "/v1/messages")))
        let response = try #require(client.readResponse())
        #expect(response.status == 200 && response.text == text)
        #expect(response["weir-max-tokens"] == "50")
        // 25 plain, 300 from the cache, 40 into it, 15 of output.
        let settlement = try #require(AdmissionFixture.settlement(response))
        #expect(settlement.consumed == NanoUSD(25 * 4 + 120 + 40 * 5 + 15 * 20))
        #expect(settlement.source == .reported)
        let seen = try #require(upstream.lastRequest)
        #expect(seen.all("x-api-key") == ["key"] && seen["authorization"] == nil)
        #expect(seen.all("anthropic-version") == ["2023-06-01"])
        let record = try #require(fixture.waitForRecords(1).first)
        #expect(record.tokens.cachedInput == 300 && record.tokens.cacheWrite == 40)
    }

    @Test func refusalsHaveTheFormOfTheApi() throws {
        let upstream = try TestUpstream { _ in okay("{}") }
        let fixture = try AdmissionFixture(upstream.address, agent: anthropic(), price: price())
        let client = fixture.proxy.client()
        client.send(
            post(
                "/v1/messages", #"{"messages":[],"container":"c"}"#,
                "anthropic-version: 2023-06-01\r\n"
                    + fixture.delegation(child: 1, path: "/v1/messages")))
        let response = try #require(client.readResponse())
        #expect(response.status == 403 && response["weir-decision"] == "unmetered_path")
        let body = try JSON.parse(response.body)
        #expect(body["type"] == "error" && body["error"]?["type"] == "permission_error")
        #expect(body["error"]?["code"] == "unmetered_path")
        #expect(upstream.requestCount == 0)
    }

    /// LEDGER, "Worst case of an attempt": lowered to what the delegation covers, and said.
    @Test func theOutputIsLoweredToWhatTheDelegationCovers() throws {
        let upstream = try TestUpstream { _ in okay(chatAnswer) }
        let fixture = try AdmissionFixture(upstream.address)
        let client = fixture.proxy.client()
        client.send(
            chatRequest(
                fixture.delegation(child: 1, amount: 400),
                #"{"messages":[{"role":"user","content":"Hi"}],"max_tokens":50}"#))
        let response = try #require(client.readResponse())
        #expect(response.status == 200)
        let said = try #require(response["weir-max-tokens"].flatMap { Int64($0) })
        let sent = try JSON.parse(try #require(upstream.lastRequest).body)
        #expect(sent["max_tokens"]?.int64 == said)
        let input =
            WorstCase.templateTokens + Int64(#"[{"role":"user","content":"Hi"}]"#.utf8.count)
        #expect(said == (400 - input) / 10 && said < 50)
    }

    private func streaming(_ text: String, length: Bool) -> String {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        if length { return head + "Content-Length: \(text.utf8.count)\r\n\r\n\(text)" }
        let bytes = Array(text.utf8)
        let chunks = stride(from: 0, to: bytes.count, by: 97).map { start in
            let piece = bytes[start..<min(start + 97, bytes.count)]
            return String(piece.count, radix: 16) + "\r\n"
                + String(decoding: piece, as: UTF8.self) + "\r\n"
        }
        return head + "Transfer-Encoding: chunked\r\n\r\n" + chunks.joined() + "0\r\n\r\n"
    }

    @Test(arguments: [true, false])
    func usageThatTheClientDidNotAskForIsReadAndTakenOut(_ length: Bool) throws {
        let text = RecordedAnswers.chatStream
        let upstream = try TestUpstream { _ in streaming(text, length: length) }
        let fixture = try AdmissionFixture(upstream.address, allowance: NanoUSD(1_000_000))
        let client = fixture.proxy.client()
        let usage = try #require(text.firstRange(of: #""choices":[]"#))
        let begin = try #require(text[..<usage.lowerBound].ranges(of: "data: ").last)
        let done = try #require(text.firstRange(of: "data: [DONE]"))
        let without = String(text[..<begin.lowerBound] + text[done.lowerBound...])
        for (options, expected) in [
            ("", without), (#","stream_options":{"include_usage":false}"#, without),
            (#","stream_options":{"include_usage":true}"#, text),
        ] {
            let messages =
                #"[{"role":"user","content":"\#(String(repeating: "a", count: 1_200))"}]"#
            client.send(
                chatRequest("", #"{"messages":\#(messages),"stream":true\#(options)}"#))
            let response = try #require(client.readResponse())
            #expect(response.text == expected)
            let sent = try JSON.parse(try #require(upstream.lastRequest).body)
            #expect(sent["stream_options"]?["include_usage"] == true)
        }
        let records = fixture.waitForRecords(3)
        #expect(records.map(\.cost) == Array(repeating: NanoUSD(1_200 + 340), count: 3))
    }

    /// LEDGER, "Worst case of an attempt": nobody has set money aside for what an agent writes
    /// beyond its bound, so the stream ends there, and says why.
    @Test func aStreamIsCutAtTheEdgeOfItsDelegation() throws {
        let event = #"data: {"choices":[{"index":0,"delta":{"content":"a"}}]}"# + "\n\n"
        let upstream = try TestUpstream { _ in
            streaming(String(repeating: event, count: 5_000), length: false)
        }
        let fixture = try AdmissionFixture(upstream.address)
        let client = fixture.proxy.client()
        let body = #"{"messages":[{"role":"user","content":"Hi"}],"stream":true}"#
        client.send(chatRequest(fixture.delegation(child: 1, amount: 2_000), body))
        let response = try #require(client.readResponse())
        let events = response.text.split(separator: "\n\n")
        let last = try #require(events.last)
        let error = try JSON.parse(Array(last.dropFirst("data: ".utf8.count).utf8))["error"]
        #expect(error?["code"] == "budget_exhausted")
        // 2,000 n$ are 200 tokens of output; three quarters of the events are proof.
        #expect(events.count > 200 && events.count < 5_000)
        let settlement = try #require(AdmissionFixture.settlement(response))
        #expect(settlement.source == .ceiling && settlement.consumed <= NanoUSD(2_000))
        let record = try #require(fixture.waitForRecords(1).first)
        #expect(record.reason == .budgetExhausted)
    }

    /// LEDGER, "Worst case of an attempt": an overrun shuts (agent, model) until an operator opens
    /// it.
    @Test func anOverrunShutsTheModelUntilItsPriceIsLookedAt() throws {
        let much = #"{"usage":{"prompt_tokens":12,"completion_tokens":3000}}"#
        let upstream = try TestUpstream { _ in okay(much) }
        let fixture = try AdmissionFixture(upstream.address)
        let client = fixture.proxy.client()
        client.send(chatRequest(fixture.delegation(child: 1)))
        let first = try #require(client.readResponse())
        #expect(AdmissionFixture.settlement(first)?.consumed == NanoUSD(30_012))
        #expect(fixture.waitForRecords(1).first?.flags.contains(.overrun) == true)
        for child in 2...3 {
            client.send(chatRequest(fixture.delegation(child: Int64(child))))
            let shut = try #require(client.readResponse())
            #expect(shut.status == 503 && shut["weir-decision"] == "circuit_open")
            #expect(AdmissionFixture.settlement(shut)?.consumed == .zero)
        }
        #expect(upstream.requestCount == 1)
        fixture.change(
            AdmissionFixture.openAI(), AdmissionFixture.price { $0.version = 2 }, number: 8)
        client.send(chatRequest(fixture.delegation(child: 4)))
        #expect(client.readResponse()?.status == 200)
    }
}
