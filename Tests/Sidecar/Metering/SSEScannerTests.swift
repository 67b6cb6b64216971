import Testing
import WeirMeshProtocol

@testable import SidecarCore

extension SSEScanner {
    init(parts: [[UInt8]]) {
        self.init()
        for part in parts { part.withUnsafeBytes { feed($0) } }
        finish()
    }

    init(_ text: String, cuts: [Int] = []) {
        self.init()
        let bytes = Array(text.utf8)
        var start = 0
        for end in cuts.sorted() + [bytes.count] {
            bytes[start..<end].withUnsafeBytes { feed($0) }
            start = end
        }
        finish()
    }
}

private let stream = #"""
    : a comment with data: {"usage":{"prompt_tokens":999,"completion_tokens":999}}

    data: {"choices":[{"delta":{"content":"Hel"}}],"usage":null}

    event: x
    data:{"choices":[{"delta":{"content":"lo"}}],
    data: "usage":null}

    data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12}}

    data: [DONE]


    """#

@Suite struct SSEScannerTests {
    @Test(arguments: ["\n", "\r", "\r\n"])
    func linesEndInThreeWays(_ ending: String) {
        let text = stream.split(separator: "\n", omittingEmptySubsequences: false)
            .joined(separator: ending)
        let length = text.utf8.count
        for cuts in [[]] + (0...length).map({ [$0] }) + [Array(0..<length)] {
            let scanner = SSEScanner(text, cuts: cuts)
            #expect(scanner.counts.tokens?.input == 9)
            #expect(scanner.counts.tokens?.output == 12)
            #expect(scanner.events == 3)
            #expect(scanner.isDone)
            #expect(!scanner.isDoubtful)
        }
    }

    /// Anthropic: input in the first event, output counted up in later ones.
    @Test func quantitiesAreCumulative() {
        let scanner = SSEScanner(
            """
            event: message_start
            data: {"message":{"usage":{"input_tokens":25,"output_tokens":1}}}

            data: {"type":"message_delta","usage":{"output_tokens":15}}

            data: {"type":"message_delta","usage":{"output_tokens":7}}
            """)
        #expect(scanner.counts.tokens?.input == 25)
        #expect(scanner.counts.tokens?.output == 15, "counting backwards gains nothing")
    }

    @Test func aRepeatedKeyInOneEventSpoilsTheStream() {
        let scanner = SSEScanner(
            #"data: {"usage":{"prompt_tokens":1,"prompt_tokens":2,"completion_tokens":1}}"# + "\n\n"
        )
        #expect(scanner.isDoubtful)
    }

    @Test func otherDataIsPassedOver() {
        let scanner = SSEScanner("data: plain text {\n\ndata: [DONE] \n\ndata\n\nx: y\n\n")
        #expect(scanner.counts.isEmpty)
        #expect(!scanner.isDone, "a space behind it makes it other data")
        #expect(!scanner.isDoubtful)
        #expect(SSEScanner(#"data: {"error":{"message":"overloaded"}}"#).hasError)
        #expect(SSEScanner("\u{FEFF}data: [DONE]\n\n").isDone)
        for text in ["\u{FEFF}", "\u{FEFF}data: x\n\n\u{FEFF}", "\n\u{FEFF}"] {
            let isOpening = text == "\u{FEFF}"
            let scanner = SSEScanner(text + "data: [DONE]\n\n")
            #expect(scanner.isDone == isOpening, "a mark opens the stream, whole, and once")
        }
        #expect(!SSEScanner(parts: [[0xEF, 0xBF], Array("data: [DONE]\n\n".utf8)]).isDone)
    }
}
