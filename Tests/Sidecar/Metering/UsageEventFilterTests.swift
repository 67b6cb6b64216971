import Testing

@testable import SidecarCore

private func filtered(_ text: String, cuts: [Int] = []) -> String {
    let bytes = Array(text.utf8)
    var filter = UsageEventFilter()
    var scanner = SSEScanner()
    var passed: [UInt8] = []
    var start = 0
    for end in cuts + [bytes.count] {
        bytes[start..<end].withUnsafeBytes { piece in
            filter.feed(piece, &scanner) { passed.append(contentsOf: $0) }
        }
        start = end
    }
    scanner.finish()
    filter.finish(scanner) { passed.append(contentsOf: $0) }
    return String(decoding: passed, as: UTF8.self)
}

@Suite struct UsageEventFilterTests {
    private static let usage = #"data: {"choices":[ ],"usage":{"prompt_tokens":1}}"#

    /// The stream without the event, byte for byte, wherever it is cut.
    @Test(arguments: ["\n", "\r", "\r\n"])
    func onlyTheEventWithUsageIsTakenOut(_ ending: String) throws {
        let lines = RecordedAnswers.chatStream.split(
            separator: "\n", omittingEmptySubsequences: false)
        let text = lines.joined(separator: ending)
        let place = try #require(lines.firstIndex { $0.contains("\"choices\":[]") })
        let rest = Array(lines[..<place] + lines[(place + 2)...]).joined(separator: ending)
        #expect(rest.contains("[DONE]") && !rest.contains("1234"))
        let length = text.utf8.count
        for cuts in [[]] + (0...length).map({ [$0] }) + [Array(0..<length)] {
            #expect(filtered(text, cuts: cuts) == rest, "cut at \(cuts.prefix(2))")
        }
    }

    @Test(arguments: [
        // Azure's first event, which has no choices and something to say.
        #"data: {"choices":[],"prompt_filter_results":[]}"# + "\n\n",
        #"data: {"choices":[],"usage":null}"# + "\n\n",
        #"data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}"# + "\n\n",
        #"data: {"x":{"choices":[]},"usage":{"prompt_tokens":1}}"# + "\n\n",
        #"data: {"choices":{},"usage":{"prompt_tokens":1}}"# + "\n\n",
        #"data: {"choices":[],"usage":{"prompt_tokens":1}"# + "\n\n",
        ": ping\n\n\n\nevent: x\ndata: 1\n\n", "data: [DONE]", "no stream at all", "", "\n", "\r",
    ])
    func whateverElsePassesAsItIs(_ text: String) {
        for cut in 0...text.utf8.count { #expect(filtered(text, cuts: [cut]) == text) }
    }

    @Test func theLastEventNeedsNoEnd() {
        #expect(filtered("data: 1\n\n" + Self.usage) == "data: 1\n\n")
        #expect(filtered(Self.usage + "\n\n" + Self.usage + "\n\ndata: 2\n\n") == "data: 2\n\n")
    }

    /// What is held has a limit; an event beyond it passes whatever it is.
    @Test func anEventBeyondTheLimitIsNotHeld() {
        let padding = String(repeating: " ", count: 2 * UsageEventFilter.heldBytesMax)
        let long = #"data: {"choices":[],\#(padding)"usage":{"prompt_tokens":1}}"# + "\n\n"
        let cuts = Array(stride(from: 0, to: long.utf8.count, by: 1_000))
        #expect(filtered(long + Self.usage + "\n\n", cuts: cuts) == long)
    }
}
