import Testing
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarCore

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

/// LEDGER, "Worst case of an attempt": what is charged is what the provider reports, and where that
/// stands and how its bytes arrive changes nothing.
@Suite struct RecordedStreamTests {
    private struct Recording {
        let wireProtocol: AgentPolicy.WireProtocol
        let text: String
        let isStream: Bool
        let expected: AttemptRecord.Tokens
    }

    private static let recordings = [
        Recording(
            wireProtocol: .openai, text: RecordedAnswers.chatStream, isStream: true,
            expected: tokens(1_200, 34, cached: 1_024, reasoning: 20)),
        Recording(
            wireProtocol: .openai, text: RecordedAnswers.responsesStream, isStream: true,
            expected: tokens(1_200, 34, cached: 1_024, reasoning: 20)),
        Recording(
            wireProtocol: .openai, text: RecordedAnswers.embeddings, isStream: false,
            expected: tokens(8, 0)),
        Recording(
            wireProtocol: .anthropic, text: RecordedAnswers.anthropicStream, isStream: true,
            expected: tokens(365, 15, cached: 300, written: 40)),
        Recording(
            wireProtocol: .anthropic, text: RecordedAnswers.anthropicMessage, isStream: false,
            expected: tokens(365, 15, cached: 300, written: 40)),
    ]

    private static func meter(_ recording: Recording, cuts: [Int]) -> UsageMeter {
        var meter = UsageMeter()
        meter.begin(
            recording.wireProtocol, countsTokens: true, isEventStream: recording.isStream)
        let bytes = Array(recording.text.utf8)
        var start = 0
        for end in cuts + [bytes.count] {
            bytes[start..<end].withUnsafeBytes { meter.feed($0) }
            start = end
        }
        meter.finish()
        return meter
    }

    @Test(arguments: recordings.indices)
    func usageIsFoundHoweverTheStreamIsSplit(_ index: Int) {
        let recording = Self.recordings[index]
        let length = recording.text.utf8.count
        for cut in 0...length {
            #expect(Self.meter(recording, cuts: [cut]).reported == recording.expected)
        }
        #expect(Self.meter(recording, cuts: Array(0..<length)).reported == recording.expected)
    }

    /// Some agents end the body in good order where they should have gone on. What was counted so
    /// far is not the usage: Anthropic's first event has all of the input and one token of output.
    @Test func aStreamThatEndsBeforeItsUsageReportsNone() throws {
        let text = RecordedAnswers.anthropicStream
        let end = try #require(text.firstRange(of: "event: message_delta")).lowerBound
        let recording = Recording(
            wireProtocol: .anthropic, text: String(text[..<end]), isStream: true,
            expected: tokens(0, 0))
        #expect(Self.meter(recording, cuts: []).reported == nil)
    }

    @Test func whatStandsBesideTheInputAndWhatIsAPartOfIt() {
        func usage(_ text: String) -> AttemptRecord.Tokens? {
            JSONScanner(#"{"usage":{\#(text)}}"#).counts.tokens
        }
        // OpenAI: cached tokens are prompt tokens. Anthropic: they are not input tokens.
        #expect(
            usage(
                #""prompt_tokens":9,"completion_tokens":1,"#
                    + #""prompt_tokens_details":{"cached_tokens":5}"#) == tokens(9, 1, cached: 5))
        #expect(
            usage(#""input_tokens":9,"output_tokens":1,"cache_read_input_tokens":5"#)
                == tokens(14, 1, cached: 5))
        // Proxies in OpenAI's form that say Anthropic's quantities as well.
        #expect(
            usage(
                #""prompt_tokens":14,"completion_tokens":1,"cache_read_input_tokens":5,"#
                    + #""prompt_tokens_details":{"cached_tokens":5}"#) == tokens(14, 1, cached: 5))
        #expect(
            usage(#""prompt_tokens":4,"completion_tokens":1,"cache_read_input_tokens":5"#)
                == tokens(9, 1, cached: 5), "more than the whole cannot be a part of it")
        #expect(usage(#""prompt_tokens":4,"input_tokens":5,"completion_tokens":1"#) == nil)
    }
}
