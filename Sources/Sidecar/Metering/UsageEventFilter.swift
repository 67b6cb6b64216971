import WeirCore

/// Takes the events that only carry usage out of a stream, for a client that did not ask for them:
/// they were asked for because a call is charged by them, and clients would stumble over a chunk
/// without choices. Everything else passes byte for byte. Of an event whose end has not come at
/// most `heldBytesMax` are held; a larger one cannot be such an event, and passes. (Where lines end
/// in CRLF, an event ends with the CR: what is taken out begins with the LF of the event before it,
/// and its own stays in the place of that.)
struct UsageEventFilter {
    static let heldBytesMax = 16 << 10
    /// Memory that stays with a context which waits for its next request.
    private static let keptBytesMax = 2 << 10

    /// The beginning of an event, in memory that the next response uses again.
    private var held: ContiguousArray<UInt8> = []
    /// The beginning of this event was passed on.
    private var isPassing = false

    mutating func reset() {
        held.removeAll(keepingCapacity: held.capacity <= Self.keptBytesMax)
        isPassing = false
    }

    /// Reads the bytes with the meter's scanner and gives on what may go on now.
    mutating func feed(
        _ bytes: UnsafeRawBufferPointer, _ scanner: inout SSEScanner,
        pass: (UnsafeRawBufferPointer) -> Void
    ) {
        var passedTo = 0
        var eventStart = 0
        var index = 0
        while index < bytes.count {
            index = scanner.feedEvent(bytes, from: index)
            guard scanner.isAtEventEnd else { break }
            if scanner.lastWasUsage, !isPassing {
                pass(UnsafeRawBufferPointer(rebasing: bytes[passedTo..<eventStart]))
                held.removeAll(keepingCapacity: true)
                passedTo = index
            } else {
                release(pass)
            }
            isPassing = false
            eventStart = index
        }
        hold(bytes, from: passedTo, eventStart: eventStart, pass)
    }

    /// The body ended as its framing says; `scanner` has been told.
    mutating func finish(
        _ scanner: SSEScanner, pass: (UnsafeRawBufferPointer) -> Void
    ) {
        if scanner.lastWasUsage { held.removeAll(keepingCapacity: true) }
        release(pass)
    }

    private mutating func release(_ pass: (UnsafeRawBufferPointer) -> Void) {
        guard !held.isEmpty else { return }
        held.withUnsafeBytes(pass)
        held.removeAll(keepingCapacity: true)
    }

    /// What is left has no end yet.
    private mutating func hold(
        _ bytes: UnsafeRawBufferPointer, from start: Int, eventStart: Int,
        _ pass: (UnsafeRawBufferPointer) -> Void
    ) {
        if !isPassing, held.count + bytes.count - eventStart > Self.heldBytesMax {
            release(pass)
            isPassing = true
        }
        let end = isPassing ? bytes.count : eventStart
        if end > start { pass(UnsafeRawBufferPointer(rebasing: bytes[start..<end])) }
        if !isPassing, eventStart < bytes.count {
            held.append(contentsOf: UnsafeRawBufferPointer(rebasing: bytes[eventStart...]))
        }
    }
}
