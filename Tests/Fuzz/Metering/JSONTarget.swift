import WeirCore
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarCore

/// The parser of documents and the scanner of usage: what the parser takes the scanner takes to its
/// end, it reads the same usage as the document has, and pieces change nothing. The other way round
/// there is no such property: the scanner looks at structure only, because what it finds in a text
/// that is no JSON can only be the agent's own fault.
enum JSONTarget {
    private static let tree = UsageTree(.textGeneration)

    static func check(_ bytes: UnsafeRawBufferPointer) throws(PropertyFailure) {
        let whole = scan(bytes, cuts: [bytes.count])
        for cuts in Pieces.cuts(bytes).dropFirst() {
            let split = scan(bytes, cuts: cuts)
            try require(
                split.status == whole.status && split.isDoubtful == whole.isDoubtful
                    && split.hasError == whole.hasError
                    && split.counts.tokens == whole.counts.tokens,
                "cut at \(cuts.prefix(4)): \(split), not \(whole)")
        }
        let document: JSONValue
        do { document = try JSON.parse(Array(bytes)) } catch {
            return try require(error.offset <= bytes.count, "an error behind the end")
        }
        try require(whole.status == .complete, "the scanner says \(whole.status)")
        let error = document["error"]
        try require(whole.hasError == (error != nil && error != .null), "another error")
        try checkUsage(document, whole)
        try checkPlaces(bytes, document)
        let written = document.bytes
        let again = try? JSON.parse(written)
        try require(again == document, "written again it is another document, or none")
    }

    /// Places that a policy names: what is read there is what a pointer leads to.
    private static func checkPlaces(
        _ bytes: UnsafeRawBufferPointer, _ document: JSONValue
    ) throws(PropertyFailure) {
        let whole = scan(bytes, cuts: [bytes.count], tree)
        for cuts in Pieces.cuts(bytes).dropFirst() {
            let split = scan(bytes, cuts: cuts, tree)
            try require(
                split.isDoubtful == whole.isDoubtful && split.counts.tokens == whole.counts.tokens,
                "cut at \(cuts.prefix(4)), with places")
        }
        guard !whole.isDoubtful, let tokens = whole.counts.tokens else { return }
        let output = UsagePlaces.textGeneration.output?.pointer?.evaluate(document)
        try require(output?.int64 == Int64(tokens.output), "another count than the pointer's")
    }

    /// The plain place of OpenAI's usage, where no other place contradicts it.
    private static func checkUsage(
        _ document: JSONValue, _ scanner: JSONScanner
    ) throws(PropertyFailure) {
        guard !scanner.isDoubtful, let tokens = scanner.counts.tokens,
            document["message"] == nil, document["response"] == nil,
            let usage = document["usage"]?.object
        else { return }
        guard usage.members.count == 2, let input = usage["prompt_tokens"]?.int64,
            let output = usage["completion_tokens"]?.int64
        else { return }
        try require(
            Int64(tokens.input) == input && Int64(tokens.output) == output, "other usage")
    }

    private static func scan(
        _ bytes: UnsafeRawBufferPointer, cuts: [Int], _ tree: UsageTree? = nil
    ) -> JSONScanner {
        var scanner = JSONScanner(tree)
        var start = 0
        for cut in cuts where cut >= start {
            bytes.withCopy(from: start, to: cut) { scanner.feed($0) }
            start = cut
        }
        return scanner
    }
}
