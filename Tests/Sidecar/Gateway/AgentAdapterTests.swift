import Testing
import WeirCore
import WeirPolicy

@testable import SidecarGateway

@Suite struct AgentAdapterTests {
    private func adapter(
        _ agent: String, prompt: PromptTemplate? = nil, outputTokensMax: Int64? = nil,
        output: RequestTypePolicy.Output = .text, resultSchema: JSONSchema? = nil
    ) throws -> AgentAdapter {
        let agent = try #require(try GatewayFixture.policy().agents[agent])
        var step = RequestTypePolicy.Step(name: "s", agentsByTier: [:])
        step.prompt = prompt
        step.output = output
        step.resultSchema = resultSchema
        return AgentAdapter(agent: agent, step: step, outputTokensMax: outputTokensMax)
    }

    @Test func chatStatesItsOutputLimit() throws {
        let body = try adapter("writer").body(inputs: ["text": "up", "mood": "good"])
        #expect(
            try JSON.parse(body) == [
                "model": "big", "max_tokens": 100,
                "messages": [
                    ["role": "system", "content": "Be brief."],
                    ["role": "user", "content": "good: up"],
                ],
            ])
    }

    @Test func theTiersCeilingAndTheStepsPromptGoFirst() throws {
        let adapter = try adapter(
            "writer", prompt: PromptTemplate(system: nil, user: "say {{text}}"),
            outputTokensMax: 20)
        let body = try JSON.parse(try adapter.body(inputs: ["text": "{{mood}}"]))
        #expect(body["max_tokens"] == 20)
        #expect(body["messages"] == [["role": "user", "content": "say {{mood}}"]])
    }

    /// The API of Anthropic's messages, with the same prompt.
    private func anthropic(output: RequestTypePolicy.Output = .text) throws -> AgentAdapter {
        var agent = try #require(try GatewayFixture.policy().agents["writer"])
        agent.wireProtocol = .anthropic
        var step = RequestTypePolicy.Step(name: "s", agentsByTier: [:])
        step.output = output
        return AgentAdapter(agent: agent, step: step, outputTokensMax: nil)
    }

    @Test func systemWordsStandBesideAnthropicsMessages() throws {
        let body = try anthropic().body(inputs: ["text": "up", "mood": "good"])
        #expect(
            try JSON.parse(body) == [
                "model": "big", "max_tokens": 100, "system": "Be brief.",
                "messages": [["role": "user", "content": "good: up"]],
            ])
    }

    @Test func anthropicsTextBlocksAreTheResult() throws {
        func result(_ text: String, _ output: RequestTypePolicy.Output) throws -> JSONValue {
            try anthropic(output: output).result(of: Array(text.utf8), inputs: [:])
        }
        let blocks =
            #"[{"type":"thinking","thinking":"x"},{"type":"text","text":"{\"a\":"},"#
            + #"{"type":"text","text":"1}"}]"#
        let answer = #"{"content":\#(blocks),"stop_reason":"end_turn"}"#
        #expect(
            try result(answer, .text) == ["text": #"{"a":1}"#, "finish_reason": "end_turn"])
        #expect(try result(answer, .json) == ["a": 1])
        for text in [#"{"content":[]}"#, #"{"type":"error"}"#, #"{"content":[{"type":"text"}]}"#] {
            #expect(throws: AgentAdapter.Failure.self) { try result(text, .text) }
        }
    }

    @Test func inferenceTakesTheTextAndItsParameters() throws {
        let adapter = try adapter("mood")
        #expect(
            try JSON.parse(try adapter.body(inputs: ["text": "up"])) == ["inputs": "up"])
        #expect(
            try JSON.parse(try adapter.body(inputs: ["text": "up", "top_k": 2]))
                == ["inputs": "up", "parameters": ["top_k": 2]])
        #expect(throws: AgentAdapter.Failure.self) {
            try adapter.body(inputs: ["a": "1", "b": "2"])
        }
    }

    @Test func jsonPassesInputsAsTheyAre() throws {
        let body = try adapter("risk").body(inputs: ["b": [1, 2.5e3.json], "a": "x"])
        #expect(String(decoding: body, as: UTF8.self) == #"{"a":"x","b":[1,2500]}"#)
    }

    @Test(
        arguments: [
            (
                "mood", #"[[{"label":"n","score":0.2},{"label":"p","score":0.8}]]"#,
                #"{"label":"p","score":0.8,"scores":{"n":0.2,"p":0.8}}"#
            ),
            ("mood", #"[{"label":"p","score":1}]"#, #"{"label":"p","score":1,"scores":{"p":1}}"#),
            ("mood", #"[{"generated_text":"x"}]"#, #"{"text":"x"}"#),
            ("mood", #"[{"summary_text":"x"}]"#, #"{"text":"x"}"#),
            ("mood", #"[{"translation_text":"x"}]"#, #"{"text":"x"}"#),
            ("mood", #"[[0.1,0.2]]"#, #"{"output":[[0.1,0.2]]}"#),
            ("mood", #"{"embedding":[1]}"#, #"{"output":{"embedding":[1]}}"#),
            ("mood", "[]", nil), ("mood", #"{"error":"loading"}"#, nil), ("mood", "<html>", nil),
            (
                "writer", #"{"choices":[{"message":{"content":"a"},"finish_reason":"length"}]}"#,
                #"{"text":"a","finish_reason":"length"}"#
            ),
            ("writer", #"{"choices":[]}"#, nil), ("writer", #"{"choices":[{"message":{}}]}"#, nil),
            ("writer", #"{"choices":[{"message":{"content":null,"tool_calls":[]}}]}"#, nil),
            ("writer", #"{"choices":[{"message":{"content":""}}]}"#, nil),
            (
                "writer",
                #"{"choices":[{"message":{"content":[{"type":"text","text":"a"},"#
                    + #"{"type":"text","text":"b"}]}}]}"#, #"{"text":"ab"}"#
            ),
            ("writer", #"{"choices":{"0":1}}"#, nil), ("writer", "", nil),
            ("risk", #"{"level":"low"}"#, #"{"level":"low"}"#), ("risk", "[1]", "[1]"),
            ("risk", #"{"a":1,"a":2}"#, nil), ("risk", "{", nil),
        ] as [(String, String, String?)])
    func readsAnswers(agent: String, answer: String, result: String?) throws {
        let adapter = try adapter(agent)
        guard let result else {
            #expect(throws: AgentAdapter.Failure.self) {
                try adapter.result(of: Array(answer.utf8), inputs: ["text": "up"])
            }
            return
        }
        let read = try adapter.result(of: Array(answer.utf8), inputs: ["text": "up"])
        #expect(try read == JSON.parse(result))
    }

    @Test(
        arguments: [
            (#""content":null,"refusal":"I will not.""#, "declined: I will not."),
            (#""content":null,"tool_calls":[{"id":"a","type":"function"}]"#, "tool"),
            (#""content":null,"function_call":{"name":"f"}"#, "tool"),
            (#""content":null"#, "words"),
        ])
    func saysWhyAMessageHasNoWords(message: String, word: String) throws {
        let answer = #"{"choices":[{"message":{\#(message)},"finish_reason":"stop"}]}"#
        let failure = #expect(throws: AgentAdapter.Failure.self) {
            try adapter("writer").result(of: Array(answer.utf8), inputs: [:])
        }
        #expect(failure?.detail.contains(word) == true, "\(String(describing: failure))")
    }

    @Test func severalTextsGiveTheirMeanAndEachOne() throws {
        let adapter = try adapter("mood")
        let inputs: [String: JSONValue] = ["text": ["a", "b"]]
        let mean = try JSON.parse(
            """
            {"label": "p", "score": 0.5, "scores": {"p": 0.5, "n": 0.375}, "items": [
              {"label": "p", "score": 0.75, "scores": {"p": 0.75, "n": 0.25}},
              {"label": "n", "score": 0.5, "scores": {"n": 0.5, "p": 0.25}}]}
            """)
        let whole =
            #"[[{"label":"p","score":0.75},{"label":"n","score":0.25}],"#
            + #"[{"label":"n","score":0.5},{"label":"p","score":0.25}]]"#
        #expect(try adapter.result(of: Array(whole.utf8), inputs: inputs) == mean)
        // The best label of each text, and no list around it.
        let flat = #"[{"label":"p","score":0.75},{"label":"n","score":0.5}]"#
        let best = try adapter.result(of: Array(flat.utf8), inputs: inputs)
        #expect(best["label"] == "p")
        #expect(best["scores"]?["n"]?.double == 0.25)
        #expect(best["items"]?.array?.count == 2)
        #expect(throws: AgentAdapter.Failure.self) {
            try adapter.result(of: Array(#"[{"label":"p","score":1}]"#.utf8), inputs: inputs)
        }
    }

    @Test(
        arguments: [
            (#"{"a": 1}"#, #"{"a": 1}"#), (" [1]\n", "[1]"),
            ("```json\n{\"a\": 1}\n```", #"{"a": 1}"#), ("```\n[1]\n```\n", "[1]"),
            ("Sure! {}", nil), ("{\"a\": 1", nil), ("```json {} ```", nil),
            (#"{"a": 1, "a": 2}"#, nil),
        ] as [(String, String?)])
    func readsTheJSONThatAChatAgentWrites(text: String, result: String?) throws {
        let adapter = try adapter("writer", output: .json)
        let answer: JSONValue = [
            "choices": [["message": ["content": .string(text)], "finish_reason": "stop"]]
        ]
        guard let result else {
            #expect(throws: AgentAdapter.Failure.self) {
                try adapter.result(of: answer.bytes, inputs: [:])
            }
            return
        }
        #expect(try adapter.result(of: answer.bytes, inputs: [:]) == JSON.parse(result))
    }

    @Test func asksForJSONWhereTheStepWantsIt() throws {
        let adapter = try adapter("writer", output: .json)
        let body = try JSON.parse(try adapter.body(inputs: ["text": "up", "mood": "good"]))
        #expect(body["response_format"] == ["type": "json_object"])
    }

    @Test func aResultThatIsNotOfTheSchemaIsAFailure() throws {
        let policy = try GatewayFixture.policy()
        let schema = try #require(policy.requestTypes["news"]?.inputSchema)
        let adapter = try adapter("risk", resultSchema: schema)
        #expect(
            try adapter.result(of: Array(#"{"text":"x"}"#.utf8), inputs: [:]) == ["text": "x"])
        let failure = #expect(throws: AgentAdapter.Failure.self) {
            try adapter.result(of: Array(#"{"text":""}"#.utf8), inputs: [:])
        }
        #expect(failure?.detail.contains("/text") == true)
    }
}

extension Double {
    fileprivate var json: JSONValue { JSONNumber(self).map { .number($0) } ?? .null }
}
