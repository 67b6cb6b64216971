@testable import SidecarCore

/// Chunked bodies: any pieces give the same data, trailers and end; a decoder that is written down
/// from RFC 9112 §7.1 without regard to speed or pieces agrees; and what was decoded, framed anew,
/// decodes to the same.
enum ChunksTarget {
    private enum Outcome: Equatable {
        case complete(data: [UInt8], trailers: [UInt8], end: Int)
        case malformed, tooLarge, waits
    }

    static func check(_ bytes: UnsafeRawBufferPointer) throws(PropertyFailure) {
        let whole = decode(bytes, cuts: [bytes.count])
        for cuts in Pieces.cuts(bytes).dropFirst() {
            let split = decode(bytes, cuts: cuts)
            try require(split == whole, "cut at \(cuts.prefix(4)): \(split), not \(whole)")
        }
        var reference = ChunksReference(Array(bytes))
        let expected = reference.decode()
        if case .tooLarge = whole { return }
        guard case .complete(let data, let trailers, let end) = whole else {
            return try require(expected == nil, "\(whole), and by the RFC it is whole")
        }
        try require(
            expected?.data == data && expected?.end == end,
            "it ends at \(end), and by the RFC \(String(describing: expected))")
        var framed: [UInt8] = []
        if !data.isEmpty {
            framed += Array(String(data.count, radix: 16).utf8) + [13, 10] + data + [13, 10]
        }
        framed += Array("0\r\n".utf8) + (trailers.isEmpty ? [13, 10] : trailers)
        let again = framed.withUnsafeBytes { decode($0, cuts: [$0.count]) }
        let same = Outcome.complete(data: data, trailers: trailers, end: framed.count)
        try require(again == same, "framed anew it is \(again)")
    }

    private static func decode(_ bytes: UnsafeRawBufferPointer, cuts: [Int]) -> Outcome {
        var decoder = ChunkedDecoder()
        var data: [UInt8] = []
        var start = 0
        for cut in cuts where cut > start {
            let outcome = bytes.withCopy(from: start, to: cut) { piece -> Outcome in
                var offset = 0
                while true {
                    switch decoder.next(piece, from: &offset) {
                    case .data(let at, let count): data += piece[at..<(at + count)]
                    case .needsMore: return .waits
                    case .end(let end):
                        return .complete(data: data, trailers: decoder.trailers, end: start + end)
                    case .malformed: return .malformed
                    case .tooLarge: return .tooLarge
                    }
                }
            }
            if outcome != .waits { return outcome }
            start = cut
        }
        return .waits
    }
}
