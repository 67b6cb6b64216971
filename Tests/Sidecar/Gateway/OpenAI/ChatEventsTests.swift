import SidecarCore
import Testing
import WeirCore

@testable import SidecarGateway

@Suite struct ChatEventsTests {
    private static let first = #"data: {"choices": [{"delta": {"content": "a"}}], "usage": null}"#
    private static let usage = #"data: {"choices": [], "usage": {"prompt_tokens": 3}}"#
    private static let done = "data: [DONE]"

    /// What comes out of pieces of this many bytes.
    private func pass(_ text: String, by count: Int, removesUsage: Bool = true) -> String {
        var events = ChatEvents(removesUsage: removesUsage)
        var passed: [UInt8] = []
        let bytes = Array(text.utf8)
        for start in stride(from: 0, to: bytes.count, by: count) {
            passed += events.feed(Array(bytes[start..<min(start + count, bytes.count)]))
        }
        passed += events.finish()
        return String(decoding: passed, as: UTF8.self)
    }

    @Test(arguments: ["\n", "\r\n", "\r"], [1, 2, 7, 50, 10_000])
    func theUsageEventIsLeftOutAndNothingElse(lineEnd: String, count: Int) {
        let end = lineEnd + lineEnd
        let whole = [Self.first, Self.usage, Self.done].map { $0 + end }.joined()
        #expect(pass(whole, by: count, removesUsage: false) == whole)
        #expect(pass(whole, by: count) == Self.first + end + Self.done + end)
    }

    @Test(arguments: [
        #"data: {"choices": [{"delta": {}}], "usage": {"prompt_tokens": 3}}"#,
        #"data: {"choices": [], "usage": null}"#,
        #"data: {"choices": [], "prompt_filter_results": []}"#,
        "data: {\"choices\": [],\ndata: \"usage\": {}}", ": a comment", "event: ping\ndata: {}",
        #"data: {"choices": [], "usage": {}"#,
    ])
    func whatIsNoUsageEventPasses(event: String) {
        #expect(pass(event + "\n\n", by: 3) == event + "\n\n")
    }

    @Test func eventsPassAsSoonAsTheyAreWhole() {
        var events = ChatEvents(removesUsage: true)
        #expect(events.feed(Array("data: 1\n".utf8)).isEmpty)
        #expect(events.feed(Array("\ndata: 2".utf8)) == Array("data: 1\n\n".utf8))
        #expect(events.finish() == Array("data: 2".utf8))
        var whole = ChatEvents(removesUsage: false)
        #expect(whole.feed(Array("da".utf8)) == Array("da".utf8))
        #expect(whole.feed(Array("ta: 1\n".utf8)) == Array("ta: 1\n".utf8))
        #expect(whole.finish().isEmpty)
    }

    @Test func aLargeEventIsNotHeld() {
        let large = "data: " + String(repeating: "x", count: GatewayLimits.usageEventBytesMax)
        var events = ChatEvents(removesUsage: true)
        #expect(events.feed(Array(large.utf8)) == Array(large.utf8))
        #expect(events.feed(Array("y\n\n".utf8)) == Array("y\n\n".utf8))
        // Behind it events are held again.
        #expect(events.feed(Array((Self.usage + "\n\n").utf8)).isEmpty)
    }

    @Test func aBrokenStreamEndsWithAnEventOfItsOwn() {
        let expected = "data: {\"error\":{}}\n\n"
        var held = ChatEvents(removesUsage: true)
        _ = held.feed(Array("data: 1\n\ndata: ha".utf8))
        #expect(held.fail(["error": [:]]) == Array(expected.utf8))
        #expect(held.finish().isEmpty)
        var passing = ChatEvents(removesUsage: false)
        _ = passing.feed(Array("data: 1\n\ndata: ha".utf8))
        #expect(passing.fail(["error": [:]]) == Array(("\n\n" + expected).utf8))
        var between = ChatEvents(removesUsage: false)
        _ = between.feed(Array("data: 1\n\n".utf8))
        #expect(between.fail(["error": [:]]) == Array(expected.utf8))
    }
}
