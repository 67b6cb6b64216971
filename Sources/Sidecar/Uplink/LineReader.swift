import SidecarCore

/// Cuts a stream of newline-delimited JSON into lines. A line without end is bounded; past the
/// limit the stream is of no use, because nobody knows where the next line would begin.
struct LineReader {
    private let lineBytesMax: Int
    private var pending: [UInt8] = []

    init(lineBytesMax: Int = UplinkLimits.lineBytesMax) { self.lineBytesMax = lineBytesMax }

    /// The lines that `bytes` completes, without their ends and without empty ones; `nil` when a
    /// line is too long.
    mutating func lines(adding bytes: [UInt8]) -> [[UInt8]]? {
        var lines: [[UInt8]] = []
        var rest = bytes[...]
        while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
            pending.append(contentsOf: rest[..<end])
            rest = rest[(end + 1)...]
            if pending.last == UInt8(ascii: "\r") { pending.removeLast() }
            guard pending.count <= lineBytesMax else { return nil }
            if !pending.isEmpty { lines.append(pending) }
            pending.removeAll()
        }
        pending.append(contentsOf: rest)
        return pending.count <= lineBytesMax ? lines : nil
    }
}
