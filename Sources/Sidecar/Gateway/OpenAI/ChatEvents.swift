import SidecarCore
import WeirCore

/// The events of a streamed completion on their way to the client, byte for byte as they came.
/// Usage must be asked for upstream, because it is what a call is charged by; a client that did not
/// ask for it would stumble over the chunk without choices that carries it, so that one is left
/// out. For this an event is held until its end; one that is larger than any such chunk is not.
struct ChatEvents {
    private let removesUsage: Bool
    private var event: [UInt8] = []
    /// The beginning of this event was passed on.
    private var isPassing: Bool
    private var lineIsEmpty = true
    private var eventIsEmpty = true
    private var lastWasCarriageReturn = false

    init(removesUsage: Bool) {
        self.removesUsage = removesUsage
        isPassing = !removesUsage
    }

    /// What may go on now.
    mutating func feed(_ bytes: [UInt8]) -> [UInt8] {
        var passed: [UInt8] = []
        var start = 0
        for (index, byte) in bytes.enumerated() where endsEvent(byte) {
            take(bytes[start...index], &passed)
            eventEnded(&passed)
            start = index + 1
        }
        take(bytes[start...], &passed)
        return passed
    }

    /// The body ended: an event without its blank line passes.
    mutating func finish() -> [UInt8] {
        defer { event = [] }
        return event
    }

    /// The body broke off. What was begun is ended, and clients are told in the form in which they
    /// look for it: an event that holds an error object.
    mutating func fail(_ error: JSONValue) -> [UInt8] {
        event = []
        let isInEvent = isPassing && !eventIsEmpty
        return Array((isInEvent ? "\n\n" : "").utf8) + Array("data: \(error.text)\n\n".utf8)
    }

    private mutating func take(_ bytes: ArraySlice<UInt8>, _ passed: inout [UInt8]) {
        guard !isPassing else { return passed.append(contentsOf: bytes) }
        event += bytes
        if event.count > GatewayLimits.usageEventBytesMax {
            passed += event
            event = []
            isPassing = true
        }
    }

    private mutating func eventEnded(_ passed: inout [UInt8]) {
        if !isPassing, !Self.isUsage(event) { passed += event }
        event = []
        isPassing = !removesUsage
    }

    /// Lines may end in LF, CR or CRLF. The LF of a CRLF that ended an event begins the next one,
    /// where it does no harm: before an event empty lines mean nothing.
    private mutating func endsEvent(_ byte: UInt8) -> Bool {
        let isLineFeed = byte == 0x0A
        guard isLineFeed || byte == 0x0D else {
            lineIsEmpty = false
            eventIsEmpty = false
            lastWasCarriageReturn = false
            return false
        }
        defer { lastWasCarriageReturn = !isLineFeed }
        if isLineFeed, lastWasCarriageReturn { return false }
        let isEnd = lineIsEmpty && !eventIsEmpty
        lineIsEmpty = true
        if isEnd { eventIsEmpty = true }
        return isEnd
    }

    /// `{"choices": [], "usage": {…}}`, in one `data` line as providers send it.
    private static func isUsage(_ event: [UInt8]) -> Bool {
        let lines = event.split { $0 == 0x0A || $0 == 0x0D }
        guard lines.count == 1, let line = lines.first, line.starts(with: "data:".utf8),
            let chunk = try? JSON.parse(Array(line.dropFirst(5)))
        else { return false }
        return chunk["choices"]?.array?.isEmpty == true && chunk["usage"]?.object != nil
    }
}
