import Testing
import WeirMeshProtocol

@testable import SidecarCore

extension JSONScanner {
    /// Feeds the text cut at the given places.
    init(_ text: String, cuts: [Int] = []) {
        self.init()
        let bytes = Array(text.utf8)
        var start = 0
        for end in cuts.sorted() + [bytes.count] {
            bytes[start..<end].withUnsafeBytes { feed($0) }
            start = end
        }
    }
}

private func usage(_ text: String) -> AttemptRecord.Tokens? {
    let scanner = JSONScanner(text)
    guard scanner.status == .complete, !scanner.isDoubtful else { return nil }
    return scanner.counts.tokens
}

private func tokens(
    _ input: UInt32, _ output: UInt32, cached: UInt32 = 0, written: UInt32 = 0,
    reasoning: UInt32 = 0
) -> AttemptRecord.Tokens {
    var tokens = AttemptRecord.Tokens()
    tokens.input = input
    tokens.output = output
    tokens.cachedInput = cached
    tokens.cacheWrite = written
    tokens.reasoning = reasoning
    return tokens
}

private let openAI = #"""
    {"id":"c","choices":[{"message":{"content":"a \"usage\": {\"prompt_tokens\": 1} b\u00e9"}}],
     "usage" : {"prompt_tokens":120, "completion_tokens" :34,"total_tokens":154,
      "prompt_tokens_details":{"cached_tokens":100,"audio_tokens":0},
      "completion_tokens_details":{"reasoning_tokens":30}}, "error":null}
    """#

@Suite struct JSONScannerTests {
    @Test(arguments: [
        (openAI, tokens(120, 34, cached: 100, reasoning: 30)),
        (#"{"us\u0061ge":{"prompt_t\u006Fkens":3,"completion_tokens":4}}"#, tokens(3, 4)),
        (#"{"usage":{"input_tokens":3,"output_tokens":4}}"#, tokens(3, 4)),
        (
            #"{"usage":{"input_tokens":3,"output_tokens":4,"cache_read_input_tokens":5,"#
                + #""cache_creation_input_tokens":6}}"#,
            tokens(14, 4, cached: 5, written: 6)
        ),
        (#"{"response":{"usage":{"input_tokens":3,"output_tokens":4}}}"#, tokens(3, 4)),
        (#"{"message":{"usage":{"input_tokens":3,"output_tokens":1}}}"#, tokens(3, 1)),
        (#"{"usage":{"prompt_tokens":8,"total_tokens":8}}"#, tokens(8, 0)),
        // Reasoning beside the output, counted in the total only.
        (
            #"{"usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":42,"#
                + #""completion_tokens_details":{"reasoning_tokens":30}}}"#,
            tokens(10, 32, reasoning: 30)
        ),
        (
            #"{"usage":{"prompt_tokens":4294967295,"completion_tokens":0,"#
                + #""prompt_tokens_details":null}}"#,
            tokens(.max, 0)
        ),
        (
            #"{"usage":{"prompt_tokens":3,"input_tokens":3,"completion_tokens":4}}"#, tokens(3, 4)
        ),
    ])
    func findsUsage(_ text: String, _ expected: AttemptRecord.Tokens) {
        #expect(usage(text) == expected)
    }

    @Test(arguments: [
        #"{"usage":{"prompt_tokens":1,"prompt_tokens":900,"completion_tokens":1}}"#,
        #"{"usage":{"prompt_tokens":1,"completion_tokens":1},"usage":{"completion_tokens":1}}"#,
        #"{"usage":{"prompt_tokens":1,"completion_tokens":1},"us\u0061ge":{}}"#,
        #"{"usage":{"prompt_tokens":1,"input_tokens":2,"completion_tokens":1}}"#,
        #"{"usage":{"prompt_tokens":99999999999999999999999999,"completion_tokens":1}}"#,
        #"{"usage":{"prompt_tokens":4294967296,"completion_tokens":1}}"#,
        #"{"usage":{"prompt_tokens":-1,"completion_tokens":1}}"#,
        #"{"usage":{"prompt_tokens":1.0,"completion_tokens":1}}"#,
        #"{"usage":{"prompt_tokens":1e3,"completion_tokens":1}}"#,
        #"{"usage":{"prompt_tokens":010,"completion_tokens":1}}"#,
        #"{"usage":{"prompt_tokens":"7","completion_tokens":1}}"#,
        #"{"usage":{"prompt_tokens":{"a":7},"completion_tokens":1}}"#,
        #"{"usage":{"input_tokens":5,"output_tokens":1,"#
            + #""input_tokens_details":{"cached_tokens":6}}}"#,
        #"{"usage":{"prompt_tokens":5}}"#, #"{"usage":null}"#, #"{"usage":{}}"#, "{}", "", "[]",
        #"[{"usage":{"prompt_tokens":1,"completion_tokens":1}}]"#,
        #"{"choices":[{"usage":{"prompt_tokens":1,"completion_tokens":1}}]}"#,
        #"{"x":{"usage":{"prompt_tokens":1,"completion_tokens":1}}}"#,
        #"{"usage\u0000":{"prompt_tokens":1,"completion_tokens":1}}"#,
        #"{"usage":{"prompt_tokens":1,"completion_tokens":1}"#,
        #"{"usage":{"prompt_tokens":1,"completion_tokens":1}}}"#,
        #"{"usage":{"prompt_tokens":1,"completion_tokens":1]}"#,
        #"{"usage":{"prompt_tokens":1,"completion_tokens":1},}x"#,
        #"{"usage":{"prompt_tokens":1,"completion_tokens":1},"a":nul}"#,
        "{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1},\"a\":\"\u{1}\"}",
    ])
    func trustsNothingElse(_ text: String) {
        #expect(usage(text) == nil)
    }

    @Test func depthIsLimited() {
        let deep = String(repeating: "[", count: 64) + String(repeating: "]", count: 64)
        #expect(JSONScanner(deep).status == .complete)
        #expect(JSONScanner("[" + deep + "]").status == .malformed)
        let hidden = #"{"a":\#(String(repeating: "[", count: 100_000))"#
        #expect(JSONScanner(hidden).status == .malformed)
    }

    @Test func errorsAreNoticed() {
        #expect(JSONScanner(#"{"error":{"message":"x"}}"#).hasError)
        #expect(JSONScanner(#"{"error":"x"}"#).hasError)
        #expect(JSONScanner(#"{"error":true}"#).hasError)
        #expect(!JSONScanner(#"{"error":null}"#).hasError)
        #expect(!JSONScanner(#"{"a":{"error":1}}"#).hasError)
    }

    @Test func everySplitGivesTheSame() {
        let length = openAI.utf8.count
        let expected = JSONScanner(openAI).counts.tokens
        #expect(expected != nil)
        for cut in 0...length {
            #expect(JSONScanner(openAI, cuts: [cut]).counts.tokens == expected)
        }
        #expect(JSONScanner(openAI, cuts: Array(0..<length)).counts.tokens == expected)
        var random = SplitMix64(seed: 3)
        for _ in 0..<500 {
            let cuts = (0..<Int.random(in: 2...8, using: &random)).map { _ in
                Int.random(in: 0...length, using: &random)
            }
            #expect(JSONScanner(openAI, cuts: cuts).counts.tokens == expected)
        }
    }

    /// Bytes of an agent never stop the process, whatever they are.
    @Test func anyBytesAreSafe() {
        var random = SplitMix64(seed: 9)
        let alphabet = Array(#"{}[]",:\u0123eusagprmtok_x-.ntrfl "#.utf8)
        for _ in 0..<3_000 {
            let bytes = (0..<80).map { _ in alphabet.randomElement(using: &random) ?? 0 }
            var json = JSONScanner()
            bytes.withUnsafeBytes { json.feed($0) }
            var events = SSEScanner()
            bytes.withUnsafeBytes { events.feed($0) }
            events.finish()
            _ = (json.counts.tokens, events.counts.tokens)
        }
    }
}
