import Testing
import WeirCore
import WeirPolicy

@testable import SidecarGateway

@Suite struct AgentAdapterTests {
    private func adapter(
        _ agent: String, prompt: PromptTemplate? = nil, outputTokensMax: Int64? = nil
    ) throws -> AgentAdapter {
        let agent = try #require(try GatewayFixture.policy().agents[agent])
        var step = RequestTypePolicy.Step(name: "s", agentsByTier: [:])
        step.prompt = prompt
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
            ("mood", #"[{"generated_text":"x"}]"#, #"{"output":[{"generated_text":"x"}]}"#),
            ("mood", #"{"embedding":[1]}"#, #"{"output":{"embedding":[1]}}"#),
            ("mood", "[]", nil), ("mood", #"{"error":"loading"}"#, nil), ("mood", "<html>", nil),
            (
                "writer", #"{"choices":[{"message":{"content":"a"},"finish_reason":"length"}]}"#,
                #"{"text":"a","finish_reason":"length"}"#
            ),
            ("writer", #"{"choices":[]}"#, nil), ("writer", #"{"choices":[{"message":{}}]}"#, nil),
            ("writer", #"{"choices":[{"message":{"content":null,"tool_calls":[]}}]}"#, nil),
            ("writer", #"{"choices":{"0":1}}"#, nil), ("writer", "", nil),
            ("risk", #"{"level":"low"}"#, #"{"level":"low"}"#), ("risk", "[1]", "[1]"),
            ("risk", #"{"a":1,"a":2}"#, nil), ("risk", "{", nil),
        ] as [(String, String, String?)])
    func readsAnswers(agent: String, answer: String, result: String?) throws {
        let adapter = try adapter(agent)
        guard let result else {
            #expect(throws: AgentAdapter.Failure.self) {
                try adapter.result(of: Array(answer.utf8))
            }
            return
        }
        #expect(try adapter.result(of: Array(answer.utf8)) == JSON.parse(result))
    }
}

extension Double {
    fileprivate var json: JSONValue { JSONNumber(self).map { .number($0) } ?? .null }
}
