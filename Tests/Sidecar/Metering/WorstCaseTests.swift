import Testing
import WeirCore
import WeirPolicy

@testable import SidecarCore

private let chatPath = "/v1/chat/completions"

private func bounder(
    outputTokensMax: Int64? = nil, ceiling: NanoUSD? = nil,
    change: (inout AgentPolicy) -> Void = { _ in }
) -> WorstCase {
    var agent = AgentPolicy(
        name: "gpt4-turbo", wireProtocol: .openai, path: chatPath,
        models: [.init(id: "gpt-4-turbo-2024-04-09", aliases: ["gpt-4-turbo"])])
    agent.outputTokensMax = 100
    agent.unmeteredCeiling = ceiling
    change(&agent)
    var price = ModelPrice(model: "gpt-4-turbo-2024-04-09")
    price.tokens.input = NanoUSD(1_000_000)
    price.tokens.output = NanoUSD(10_000_000)
    return WorstCase(
        agent: agent, prices: [price.model: price], outputTokensMax: outputTokensMax)
}

private func bound(
    _ body: String, _ bounder: WorstCase = bounder(), path: String = chatPath
) throws(BoundRefusal) -> AttemptBound {
    try bounder.bound(method: "POST", path: path, body: Array(body.utf8))
}

private func refusal(
    _ body: String, _ bounder: WorstCase = bounder(), method: String = "POST",
    path: String = chatPath
) -> BoundRefusal? {
    do {
        _ = try bounder.bound(method: method, path: path, body: Array(body.utf8))
        return nil
    } catch {
        return error
    }
}

private let messages = #"[{"role":"user","content":"Hello"}]"#

@Suite struct WorstCaseTests {
    @Test func aChatCostsItsTextAndItsOutputBound() throws {
        let bound = try bound(
            #"{"model":"gpt-4-turbo-2024-04-09","messages":\#(messages),"max_tokens":50}"#)
        let input = Int64(messages.utf8.count) + WorstCase.templateTokens
        #expect(bound.inputTokensMax == input)
        #expect(bound.outputTokensMax == 50)
        #expect(bound.worstCase == NanoUSD(input + 500))
        #expect(bound.body == nil, "nothing to change")
    }

    @Test func theBoundIsWrittenIntoTheBody() throws {
        let bound = try bound(
            #"{"model":"gpt-4-turbo","temperature":0.70,"messages":\#(messages)}"#)
        let body = try JSON.parse(try #require(bound.body))
        #expect(body["model"] == "gpt-4-turbo-2024-04-09")
        #expect(body["max_tokens"]?.int64 == 100)
        #expect(body["temperature"]?.number?.literal == "0.70", "numbers keep their spelling")
        #expect(bound.outputTokensMax == 100)
    }

    @Test func theTierLowersTheOutput() throws {
        let tier = bounder(outputTokensMax: 20)
        for field in ["max_tokens", "max_completion_tokens"] {
            let bound = try bound(#"{"messages":\#(messages),"\#(field)":5000}"#, tier)
            #expect(bound.outputTokensMax == 20)
            #expect(try JSON.parse(try #require(bound.body))[field]?.int64 == 20)
        }
        #expect(try bound(#"{"messages":\#(messages)}"#, tier).outputTokensMax == 20)
        #expect(try bound(#"{"messages":\#(messages),"max_tokens":7}"#, tier).outputTokensMax == 7)
    }

    @Test func choicesMultiplyTheOutput() throws {
        #expect(try bound(#"{"messages":\#(messages),"n":4,"max_tokens":5}"#).outputTokensMax == 20)
        let completions = "/v1/completions"
        let texts = #"{"prompt":["a","b","c"],"best_of":2,"max_tokens":5}"#
        #expect(try bound(texts, path: completions).outputTokensMax == 30)
        let tokens = #"{"prompt":[1,2,3],"max_tokens":5}"#
        #expect(try bound(tokens, path: completions).outputTokensMax == 5)
        #expect(refusal(#"{"messages":\#(messages),"n":9000000000000000000}"#)?.reason == .invalid)
    }

    @Test func streamsAreAskedForTheirUsage() throws {
        let plain = try bound(#"{"messages":\#(messages),"stream":true}"#)
        let body = try JSON.parse(try #require(plain.body))
        #expect(plain.isStream)
        #expect(body["stream_options"]?["include_usage"] == true)
        let refusing = try bound(
            #"{"messages":[],"stream":true,"stream_options":{"include_usage":false,"x":1}}"#
        )
        let changed = try JSON.parse(try #require(refusing.body))["stream_options"]
        #expect(changed == ["include_usage": true, "x": 1])
    }

    /// Gateways bound first and sidecars bound what gateways wrote: both must find the same.
    @Test(arguments: [
        #"{"messages":\#(messages)}"#,
        #"{"model":"gpt-4-turbo","stream":true,"messages":[{"content":"é\u00e9\n\ud83d\ude00"}]}"#,
        #"{"model":"gpt4-turbo","messages":\#(messages),"max_tokens":900,"n":3}"#,
    ])
    func boundingIsIdempotent(_ text: String) throws {
        let tier = bounder(outputTokensMax: 64)
        let first = try bound(text, tier)
        var second = try tier.bound(
            method: "POST", path: chatPath, body: try #require(first.body))
        #expect(second.body == nil)
        #expect(second.writtenOutputMax == nil)
        second.body = first.body
        second.writtenOutputMax = first.writtenOutputMax
        #expect(!second.hidesUsage, "who asked was the gateway, which takes it out")
        second.hidesUsage = first.hidesUsage
        #expect(first == second)
    }

    /// A tokenizer that takes each byte as a token is the worst that there is.
    @Test func textNeverHasMoreBytesThanItsBound() throws {
        var random = SplitMix64(seed: 5)
        for _ in 0..<200 {
            let scalars = (0..<40).compactMap { _ in
                Unicode.Scalar(UInt32.random(in: 0...0x1_0FFFF, using: &random))
            }
            var text = String.UnicodeScalarView()
            text.append(contentsOf: scalars)
            let message: JSONValue = ["role": "user", "content": .string(String(text))]
            let body: JSONValue = ["messages": [message]]
            let bound = try bounder().bound(method: "POST", path: chatPath, body: body.bytes)
            #expect(bound.inputTokensMax >= Int64(String(text).utf8.count))
        }
    }

    @Test(arguments: [
        (#"{"messages":\#(messages),"background":true}"#, "/background"),
        (#"{"messages":\#(messages),"web_search_options":{}}"#, "/web_search_options"),
        (#"{"messages":\#(messages),"Max_Tokens":100000}"#, "/Max_Tokens"),
        (#"{"messages":\#(messages),"service_tier":"priority"}"#, "/service_tier"),
        (#"{"messages":\#(messages),"modalities":["text","audio"]}"#, "/modalities"),
        (#"{"messages":\#(messages),"tools":[{"type":"web_search"}]}"#, "/tools/0/type"),
        (
            #"{"messages":[{"content":[{"type":"image_url","image_url":{"url":"u"}}]}]}"#,
            "/messages/0/content/0/type"
        ),
        (#"{"messages":[{"role":"user","content":"x","audio":{"id":"a"}}]}"#, "/messages/0/audio"),
    ])
    func whatIsNotKnownToBeHarmlessIsRefused(_ body: String, _ path: String) {
        let found = refusal(body)
        #expect(found?.reason == .unmeteredPath)
        #expect(found?.problem?.path == path)
    }

    @Test func thePolicyMayStateACeiling() throws {
        let ceiling = bounder(ceiling: NanoUSD(7))
        let bound = try bound(#"{"messages":\#(messages),"background":true}"#, ceiling)
        #expect(bound.isPolicyCeiling)
        #expect(bound.worstCase == NanoUSD(7))
    }

    @Test func nullCountsAsAbsent() throws {
        let bound = try bound(
            #"{"messages":\#(messages),"audio":null,"max_tokens":null,"n":null,"stream":null}"#)
        #expect(bound.outputTokensMax == 100)
        #expect(!bound.isStream)
    }

    @Test(arguments: [
        (#"{"messages":[],"max_tokens":1,"max_tokens":100000}"#, Reason.duplicateKey),
        (#"{"messages":[],"max_tokens":1,"max_tok\u0065ns":100000}"#, .duplicateKey),
        (#"{"messages":["#, .malformed), (#"[]"#, .invalid),
        (#"{"messages":[],"max_tokens":"5"}"#, .invalid),
        (#"{"messages":[],"max_tokens":1.5}"#, .invalid),
        (#"{"messages":[],"max_tokens":0}"#, .invalid),
        (#"{"messages":[],"max_tokens":-5}"#, .invalid),
        (#"{"messages":[],"stream":"yes"}"#, .invalid), (#"{"model":"gpt-5"}"#, .invalid),
        (#"{"model":5}"#, .invalid),
    ])
    func wrongBodiesAreRefused(_ body: String, _ reason: Reason) {
        #expect(refusal(body)?.reason == reason)
    }

    @Test(arguments: [
        ("POST", "/v1/batches"), ("POST", "/v1/files"), ("GET", chatPath),
        ("POST", "/chat/completions"),
        ("GET", "/v1/realtime"), ("POST", "/v1/../v1/chat/completions"), ("DELETE", "/v1/models"),
        ("POST", "/v1/chat%2fcompletions"),
    ])
    func pathsWithoutAPriceAreRefused(_ method: String, _ path: String) {
        #expect(refusal("{}", method: method, path: path)?.reason == .unmeteredPath)
    }

    @Test func listingModelsCostsNothing() throws {
        let bound = try bounder().bound(method: "GET", path: "/v1/models", body: [])
        #expect(bound.worstCase == .zero)
    }

    @Test func aModelWithoutAPriceIsNeverFree() {
        let agent = bounder().agent
        let unpriced = WorstCase(agent: agent, prices: [:], outputTokensMax: nil)
        #expect(refusal(#"{"messages":[]}"#, unpriced)?.reason == .unmeteredPath)
    }

    @Test func responsesAreBoundedByTheirOwnField() throws {
        let bound = try bound(#"{"input":"Hello"}"#, path: "/v1/responses")
        #expect(try JSON.parse(try #require(bound.body))["max_output_tokens"]?.int64 == 100)
        for body in [
            #"{"input":"x","previous_response_id":"r"}"#, #"{"input":"x","background":true}"#,
            #"{"input":[{"type":"item_reference","id":"m"}]}"#,
        ] {
            #expect(refusal(body, path: "/v1/responses")?.reason == .unmeteredPath)
        }
    }

    @Test func aFixedPriceNeedsNoBody() throws {
        var agent = AgentPolicy(
            name: "finbert", wireProtocol: .huggingface, path: "/models/finbert",
            models: [.init(id: "finbert", aliases: [])])
        agent.timeouts.totalMilliseconds = 1_500
        var price = ModelPrice(model: "finbert")
        price.perRequest = NanoUSD(120_000)
        price.perSecond = NanoUSD(1_000)
        let prices = ["finbert": price]
        #expect(!WorstCase.needsBody(agent: agent, prices: prices))
        let bounder = WorstCase(agent: agent, prices: prices, outputTokensMax: nil)
        let bound = try bounder.bound(method: "POST", path: "/models/finbert", body: [])
        #expect(bound.worstCase == NanoUSD(121_500))
        price.tokens.output = NanoUSD(1)
        let unbounded = WorstCase(agent: agent, prices: ["finbert": price], outputTokensMax: nil)
        #expect(refusal("{}", unbounded, path: "/models/other")?.reason == .unmeteredPath)
    }
}
