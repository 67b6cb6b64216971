import Testing
import WeirCore

@testable import SidecarGateway

@Suite struct ChatChunksTests {
    private static let stream = """
        : hello

        data: {"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}

        data: {"choices":[{"delta":{"content":"Ü"}}]}\r
        \r
        data:{"choices":[{"delta":{"content":"p."}}]}

        event: message
        data: {"choices":[{"delta":{},
        data:  "finish_reason":"stop"}]}

        data: {"choices":[],"usage":{"prompt_tokens":1}}

        data: [DONE]


        """

    private func read(_ pieces: [[UInt8]]) throws(ChatChunks.Broken) -> (String, JSONValue?) {
        var chunks = ChatChunks()
        var words = ""
        for piece in pieces { words += try chunks.feed(piece) }
        return (words, try? JSON.parse(try chunks.completion()))
    }

    /// The same, wherever the network cuts it.
    @Test func putsACompletionTogether() throws {
        let bytes = Array(Self.stream.utf8)
        for cut in 0...bytes.count {
            let (words, completion) = try read([Array(bytes[..<cut]), Array(bytes[cut...])])
            #expect(words == "Üp.")
            let choice = try #require(completion?["choices"]?.array?.first)
            #expect(choice["message"] == ["role": "assistant", "content": "Üp."])
            #expect(choice["finish_reason"] == "stop")
        }
    }

    @Test(
        arguments: [
            #"data: {"error":{"message":"overloaded"}}"# + "\n\n", "data: {\n\n",
            #"data: {"choices":[{"delta":{"content":"cut"}}]}"# + "\n\n", "",
        ])
    func whatBreaksOffIsNoCompletion(text: String) {
        #expect(throws: ChatChunks.Broken.self) {
            var chunks = ChatChunks()
            _ = try chunks.feed(Array(text.utf8))
            _ = try chunks.completion()
        }
    }

    @Test func refusalsAndToolsAreKept() throws {
        let refusal = """
            data: {"choices":[{"delta":{"refusal":"No"}}]}

            data: {"choices":[{"delta":{"refusal":"."},"finish_reason":"stop"}]}


            """
        let (_, refused) = try read([Array(refusal.utf8)])
        #expect(refused?["choices"]?.array?.first?["message"]?["refusal"] == "No.")
        let call =
            #"data: {"choices":[{"delta":{"tool_calls":[{"id":"a"}]},"#
            + #""finish_reason":"tool_calls"}]}"# + "\n\n"
        let (_, called) = try read([Array(call.utf8)])
        #expect(called?["choices"]?.array?.first?["message"]?["tool_calls"]?.array?.count == 1)
    }

    @Test func isBounded() throws {
        var chunks = ChatChunks()
        let piece = [UInt8](repeating: UInt8(ascii: ":"), count: 1 << 20)
        #expect(throws: ChatChunks.Broken.self) {
            for _ in 0..<5 { _ = try chunks.feed(piece) }
        }
    }
}
