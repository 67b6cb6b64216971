import WeirCore

@testable import SidecarCore

/// Streams of events: pieces change nothing, neither what is read nor what the filter lets
/// through, which is all but the events that only carry usage; and who cuts the text into lines and
/// events as the standard describes it counts the same events and finds the same end.
enum SSETarget {
    static func check(_ bytes: UnsafeRawBufferPointer) throws(PropertyFailure) {
        let whole = scan(bytes, cuts: [bytes.count])
        for cuts in Pieces.cuts(bytes).dropFirst() {
            let split = scan(bytes, cuts: cuts)
            try require(
                split.events == whole.events && split.isDone == whole.isDone
                    && split.isDoubtful == whole.isDoubtful && split.hasError == whole.hasError
                    && split.counts.tokens == whole.counts.tokens,
                "cut at \(cuts.prefix(4)): \(split), not \(whole)")
        }
        let expected = events(of: Array(bytes))
        let done = expected.filter { $0.elementsEqual("[DONE]".utf8) }.count
        try require(whole.isDone == (done > 0), "\(done) events are the end")
        try require(
            Int(whole.events) == expected.count - done,
            "\(whole.events) events, and \(expected.count - done) by the standard")
        try checkFilter(bytes, expected)
    }

    private static func checkFilter(
        _ bytes: UnsafeRawBufferPointer, _ all: [[UInt8]]
    ) throws(PropertyFailure) {
        let passed = filter(bytes, cuts: [bytes.count])
        for cuts in Pieces.cuts(bytes).dropFirst() {
            try require(filter(bytes, cuts: cuts) == passed, "cut at \(cuts.prefix(4))")
        }
        // A byte order mark that comes to stand at the beginning means another thing there.
        guard !bytes.contains(0xEF) else { return }
        var rest = events(of: passed)[...]
        for event in all {
            if rest.first == event {
                rest.removeFirst()
            } else if let chunk = try? JSON.parse(event) {
                try require(
                    chunk["choices"] == [] && chunk["usage"]?.object != nil, "\(chunk) is gone")
            }
        }
        try require(rest.isEmpty, "\(rest.count) events came from nowhere")
    }

    private static func filter(_ bytes: UnsafeRawBufferPointer, cuts: [Int]) -> [UInt8] {
        var filter = UsageEventFilter()
        var scanner = SSEScanner()
        var passed: [UInt8] = []
        var start = 0
        for cut in cuts where cut >= start {
            bytes.withCopy(from: start, to: cut) { piece in
                filter.feed(piece, &scanner) { passed.append(contentsOf: $0) }
            }
            start = cut
        }
        scanner.finish()
        filter.finish(scanner) { passed.append(contentsOf: $0) }
        return passed
    }

    private static func scan(_ bytes: UnsafeRawBufferPointer, cuts: [Int]) -> SSEScanner {
        var scanner = SSEScanner()
        var start = 0
        for cut in cuts where cut >= start {
            bytes.withCopy(from: start, to: cut) { scanner.feed($0) }
            start = cut
        }
        scanner.finish()
        return scanner
    }

    /// The data of each event (HTML, "Server-sent events", §9.2.6), and of one that has no blank
    /// line behind it.
    private static func events(of bytes: [UInt8]) -> [[UInt8]] {
        var events: [[UInt8]] = []
        var data: [[UInt8]] = []
        for line in lines(of: bytes) {
            if line.isEmpty {
                if !data.isEmpty { events.append(Array(data.joined(separator: [10]))) }
                data = []
            } else if line.starts(with: "data:".utf8) {
                let value = line.dropFirst(5)
                data.append(Array(value.first == 32 ? value.dropFirst() : value))
            }
        }
        if !data.isEmpty { events.append(Array(data.joined(separator: [10]))) }
        return events
    }

    private static func lines(of bytes: [UInt8]) -> [[UInt8]] {
        var lines: [[UInt8]] = []
        var line: [UInt8] = []
        let hasMark = bytes.starts(with: [0xEF, 0xBB, 0xBF])
        var rest = bytes.dropFirst(hasMark ? 3 : 0)
        while let byte = rest.popFirst() {
            guard byte == 10 || byte == 13 else {
                line.append(byte)
                continue
            }
            if byte == 13, rest.first == 10 { rest.removeFirst() }
            lines.append(line)
            line = []
        }
        return line.isEmpty ? lines : lines + [line]
    }
}
