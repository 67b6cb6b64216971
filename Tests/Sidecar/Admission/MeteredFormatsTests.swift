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
}
