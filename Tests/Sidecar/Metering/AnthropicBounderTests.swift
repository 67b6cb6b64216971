import Testing
import WeirCore
import WeirPolicy

@testable import SidecarCore

private func bounder(outputTokensMax: Int64? = nil, ceiling: NanoUSD? = nil) -> WorstCase {
    var agent = AgentPolicy(
        name: "claude", wireProtocol: .anthropic, path: "/v1/messages",
        models: [.init(id: "claude-sonnet-4-5", aliases: ["sonnet"])])
    agent.outputTokensMax = 100
    agent.unmeteredCeiling = ceiling
    var price = ModelPrice(model: "claude-sonnet-4-5")
    price.tokens.input = NanoUSD(4_000_000)
    price.tokens.cachedInput = NanoUSD(400_000)
    price.tokens.cacheWrite = NanoUSD(5_000_000)
    price.tokens.output = NanoUSD(20_000_000)
    return WorstCase(
        agent: agent, prices: [price.model: price], outputTokensMax: outputTokensMax)
}

private func bound(
    _ body: String, _ bounder: WorstCase = bounder(), path: String = "/v1/messages"
) throws(BoundRefusal) -> AttemptBound {
    try bounder.bound(method: "POST", path: path, body: Array(body.utf8))
}

private func refusal(
    _ body: String, method: String = "POST", path: String = "/v1/messages"
) -> BoundRefusal? {
    do {
        _ = try bounder().bound(method: method, path: path, body: Array(body.utf8))
        return nil
    } catch {
        return error
    }
}

private let messages = #"[{"role":"user","content":"Hello"}]"#

/// LEDGER, "Worst case of an attempt", for the API of Anthropic.
@Suite struct AnthropicBounderTests {
    /// Any token may be written to the cache, which is the dearest that can become of it.
    @Test func aMessageCostsItsTextAtTheDearestPriceAndItsOutputBound() throws {
        let bound = try bound(
            #"{"model":"claude-sonnet-4-5","max_tokens":50,"messages":\#(messages)}"#)
        let input = Int64(messages.utf8.count) + 256
        #expect(bound.inputTokensMax == input && bound.outputTokensMax == 50)
        #expect(bound.worstCase == NanoUSD(input * 5 + 50 * 20))
        #expect(bound.body == nil && bound.writtenOutputMax == nil)
    }

    @Test func theBoundIsWrittenIntoTheBody() throws {
        let none = try bound(#"{"model":"sonnet","messages":\#(messages),"stream":true}"#)
        let body = try JSON.parse(try #require(none.body))
        #expect(body["model"] == "claude-sonnet-4-5" && body["max_tokens"]?.int64 == 100)
        #expect(body["stream_options"] == nil, "usage comes without being asked for")
        #expect(none.isStream && none.writtenOutputMax == 100)
        let lowered = try bound(
            #"{"messages":\#(messages),"max_tokens":900}"#, bounder(outputTokensMax: 20))
        #expect(lowered.outputTokensMax == 20 && lowered.writtenOutputMax == 20)
    }

    @Test func thinkingBeyondTheOutputIsOutputAsWell() throws {
        func output(_ budget: Int) throws -> Int64 {
            try bound(
                #"{"messages":\#(messages),"max_tokens":50,"#
                    + #""thinking":{"type":"enabled","budget_tokens":\#(budget)}}"#
            ).outputTokensMax
        }
        #expect(try output(40) == 50)
        #expect(try output(5_000) == 5_050)
        #expect(
            refusal(#"{"messages":[],"thinking":{"budget_tokens":"many"}}"#)?.reason == .invalid)
    }

    @Test(arguments: [
        #"[{"role":"user","content":[{"type":"text","text":"a","#
            + #""cache_control":{"type":"ephemeral"}}]}]"#,
        #"[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","#
            + #""content":[{"type":"text","text":"a"}]}]}]"#,
        #"[{"role":"assistant","content":[{"type":"thinking","thinking":"a","signature":"b"},"#
            + #"{"type":"tool_use","id":"t","name":"n","input":{"a":1}}]}]"#,
    ])
    func whateverIsTextIsBoundedByIt(_ messages: String) throws {
        let tools = #"[{"name":"n","input_schema":{"type":"object"}}]"#
        let bound = try bound(
            #"{"messages":\#(messages),"system":"Be brief.","tools":\#(tools)}"#)
        #expect(bound.inputTokensMax >= Int64(messages.utf8.count + tools.utf8.count))
    }

    @Test(arguments: [
        (#"{"messages":[],"mcp_servers":[{"url":"u"}]}"#, "/mcp_servers"),
        (#"{"messages":[],"container":"c"}"#, "/container"),
        (#"{"messages":[],"service_tier":"fast"}"#, "/service_tier"),
        (
            #"{"messages":[],"tools":[{"type":"web_search_20250305","name":"w"}]}"#,
            "/tools/0/type"
        ),
        (
            #"{"messages":[],"tools":[{"name":"w","allowed_callers":[]}]}"#,
            "/tools/0/allowed_callers"
        ),
        (
            #"{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url"}}]}]}"#,
            "/messages/0/content/0/type"
        ),
        (
            #"{"messages":[{"role":"user","content":[{"type":"tool_result","#
                + #""content":[{"type":"document"}]}]}]}"#,
            "/messages/0/content/0/content/0/type"
        ),
        (
            #"{"messages":[],"system":[{"type":"text","text":"a","#
                + #""cache_control":{"type":"ephemeral","ttl":"1h"}}]}"#,
            "/system/0/cache_control/ttl"
        ),
    ])
    func whatIsNotKnownToBeHarmlessIsUnmetered(_ body: String, _ path: String) {
        let found = refusal(body)
        #expect(found?.reason == .unmeteredPath && found?.problem?.path == path)
    }

    @Test func onlyMessagesCostAndOnlyTheyAreCalled() throws {
        #expect(try bound("{}", path: "/v1/messages/count_tokens").worstCase == .zero)
        #expect(refusal("{}", path: "/v1/messages/batches")?.reason == .unmeteredPath)
        #expect(refusal("{}", path: "/v1/complete")?.reason == .unmeteredPath)
        #expect(refusal("{}", method: "GET")?.reason == .unmeteredPath)
        #expect(
            try bounder().bound(method: "GET", path: "/v1/models", body: []).worstCase == .zero)
        #expect(refusal(#"{"messages":[],"max_tokens":1,"max_tokens":9}"#)?.reason == .duplicateKey)
        let ceiling = try bound(
            #"{"messages":[],"container":"c"}"#, bounder(ceiling: NanoUSD(7)))
        #expect(ceiling.isPolicyCeiling && ceiling.worstCase == NanoUSD(7))
    }

    /// Gateways bound first and sidecars bound what gateways wrote: both must find the same.
    @Test func boundingIsIdempotent() throws {
        let tier = bounder(outputTokensMax: 64)
        let first = try bound(#"{"model":"claude","messages":\#(messages),"max_tokens":900}"#, tier)
        let second = try tier.bound(
            method: "POST", path: "/v1/messages", body: try #require(first.body))
        #expect(second.body == nil && second.worstCase == first.worstCase)
    }
}
