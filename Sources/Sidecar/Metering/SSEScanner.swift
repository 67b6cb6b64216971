/// Cuts a stream of server-sent events (HTML, "Server-sent events", §9.2.6) into the data of its
/// events and reads each as JSON for usage. Lines may end in LF, CR or CRLF and be cut anywhere.
/// The state is fixed in size: no line is kept.
struct SSEScanner {
    private enum Line: UInt8 {
        /// So many bytes of "data:" were seen at the start of the line.
        case field
        /// Behind the colon: one space there is not data.
        case afterColon
        case data
        case other
    }

    /// Of all events so far; see `UsageCounts.merge`.
    private(set) var counts = UsageCounts()
    private(set) var isDoubtful = false
    private(set) var hasError = false
    /// An event had usage at its top: behind the first event of Anthropic's, which has that of the
    /// input only.
    private(set) var hasTopUsage = false
    /// The event `[DONE]` came: the agent says that this is all.
    private(set) var isDone = false
    /// Events with data, `[DONE]` not among them. Agents send about a token with each.
    private(set) var events: UInt32 = 0

    /// The last byte ended an event.
    private(set) var isAtEventEnd = false
    /// The event that ended last only carried usage.
    private(set) var lastWasUsage = false

    // SAFETY: as of `JSONScanner`.
    private unowned(unsafe) let tree: UsageTree?
    private var scanner: JSONScanner
    private var line = Line.field
    private var fieldMatched = 0
    private var lineIsEmpty = true
    private var lastWasCarriageReturn = false
    private var hasData = false
    private var doneMatched = 0
    /// How much of the byte order mark that may open a stream was seen; `count` when it cannot come
    /// any more.
    private var markMatched = 0

    private static let mark: StaticString = "\u{FEFF}"
    private static let field: StaticString = "data:"
    private static let done: StaticString = "[DONE]"

    init(_ tree: UsageTree? = nil) {
        self.tree = tree
        scanner = JSONScanner(tree)
    }

    mutating func feed(_ bytes: UnsafeRawBufferPointer) {
        var index = 0
        while index < bytes.count { index = feedEvent(bytes, from: index) }
    }

    /// Reads to the end of an event, and says where that is; without one all there is.
    mutating func feedEvent(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Int {
        var index = start
        isAtEventEnd = false
        while index < bytes.count {
            let byte = bytes[index]
            if byte == 0x0A || byte == 0x0D {
                // The LF of a CRLF ends nothing: its line has ended already.
                let endsLine = byte == 0x0D || !lastWasCarriageReturn
                isAtEventEnd = endsLine && lineIsEmpty
                if endsLine { lineEnded() }
                lastWasCarriageReturn = byte == 0x0D
                index += 1
                if isAtEventEnd { return index }
                continue
            }
            lastWasCarriageReturn = false
            lineIsEmpty = false
            switch line {
            case .field:
                fieldByte(byte)
                index += 1
            case .afterColon:
                line = .data
                if byte == 0x20 { index += 1 }
            case .data, .other:
                let end = Self.lineEnd(bytes, from: index)
                if line == .data { take(UnsafeRawBufferPointer(rebasing: bytes[index..<end])) }
                index = end
            }
        }
        return index
    }

    /// The body ended; an event without its blank line counts.
    mutating func finish() {
        if !lineIsEmpty { lineEnded() }
        eventEnded()
    }

    private static func lineEnd(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Int {
        var index = start
        while index < bytes.count, bytes[index] != 0x0A, bytes[index] != 0x0D { index += 1 }
        return index
    }

    private mutating func fieldByte(_ byte: UInt8) {
        if markMatched < Self.mark.utf8CodeUnitCount {
            if byte == Self.mark.utf8Start[markMatched] {
                markMatched += 1
                return
            }
            let isPart = markMatched > 0
            markMatched = Self.mark.utf8CodeUnitCount
            if isPart {
                line = .other
                return
            }
        }
        guard byte == Self.field.utf8Start[fieldMatched] else {
            line = .other
            return
        }
        fieldMatched += 1
        if fieldMatched == Self.field.utf8CodeUnitCount { beginData() }
    }

    private mutating func beginData() {
        line = .afterColon
        // Lines of one event are joined by a line feed.
        if hasData { take(0x0A) }
        hasData = true
    }

    private mutating func take(_ byte: UInt8) {
        withUnsafeBytes(of: byte) { take($0) }
    }

    private mutating func take(_ bytes: UnsafeRawBufferPointer) {
        var index = 0
        let length = Self.done.utf8CodeUnitCount
        while index < bytes.count, doneMatched >= 0 {
            let matches = doneMatched < length && bytes[index] == Self.done.utf8Start[doneMatched]
            doneMatched = matches ? doneMatched + 1 : -1
            index += 1
        }
        scanner.feed(bytes)
    }

    private mutating func lineEnded() {
        if lineIsEmpty { eventEnded() }
        markMatched = Self.mark.utf8CodeUnitCount
        line = .field
        fieldMatched = 0
        lineIsEmpty = true
    }

    private mutating func eventEnded() {
        lastWasUsage = false
        guard hasData else { return }
        hasData = false
        if doneMatched == Self.done.utf8CodeUnitCount {
            isDone = true
        } else {
            events &+= 1
            if scanner.status == .complete {
                counts.merge(scanner.counts)
                hasTopUsage = hasTopUsage || scanner.hasTopUsage
                lastWasUsage = scanner.hasNoChoices && scanner.hasTopUsage
            }
            isDoubtful = isDoubtful || scanner.isDoubtful
            hasError = hasError || scanner.hasError
        }
        doneMatched = 0
        scanner = JSONScanner(tree)
    }
}
