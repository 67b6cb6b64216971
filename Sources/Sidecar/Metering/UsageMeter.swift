import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// Reads what an answer says of its cost while it passes. One for each attempt, inside its owner:
/// fixed in size, no allocation.
struct UsageMeter {
    private enum Form {
        /// Nothing to read: a fixed price, or an agent that reports nothing.
        case none
        case json, events
    }

    // The scanners lie beside the form and not in it, so that they read where they are.
    private var form = Form.none
    /// Usage in a part of an event is not yet that of the answer.
    private var needsTopUsage = false
    private var json = JSONScanner()
    private var events = SSEScanner()
    private(set) var responseBytes: UInt64 = 0
    /// What header fields said, where the policy says that some do.
    private var headers = UsageCounts()
    private var headersAreDoubtful = false
    // SAFETY: as of `JSONScanner`.
    private unowned(unsafe) var tree: UsageTree?

    init() {}

    /// Nothing has come yet.
    mutating func reset() {
        responseBytes = 0
        form = .none
        tree = nil
    }

    /// The response's head is known. `isEventStream` is its media type, not what was asked for. A
    /// price that counts no tokens needs no reading.
    mutating func begin(
        _ wireProtocol: AgentPolicy.WireProtocol, countsTokens: Bool, isEventStream: Bool,
        tree: UsageTree? = nil
    ) {
        reset()
        guard countsTokens else { return }
        needsTopUsage = wireProtocol == .anthropic
        switch wireProtocol {
        case .openai, .anthropic, .json, .huggingface:
            self.tree = tree
            form = isEventStream ? .events : .json
            if isEventStream { events = SSEScanner(tree) } else { json = JSONScanner(tree) }
        case .passthrough: break
        }
        if tree != nil {
            headers = UsageCounts()
            headersAreDoubtful = false
        }
    }

    /// A header field of the answer that the policy names. A count has decimal digits alone.
    mutating func note(_ counter: UsageCounts.Counter, field: String) {
        if field.utf8.allSatisfy({ (48...57).contains($0) }), let count = UInt32(field) {
            headers.set(counter, count)
        } else {
            headersAreDoubtful = true
        }
    }

    mutating func feed(_ bytes: UnsafeRawBufferPointer) {
        responseBytes &+= UInt64(bytes.count)
        switch form {
        case .none: break
        case .json: json.feed(bytes)
        case .events: events.feed(bytes)
        }
    }

    /// As `feed`, for a client that is not to see the events that only carry usage.
    mutating func feed(
        _ bytes: UnsafeRawBufferPointer, through filter: inout UsageEventFilter,
        pass: (UnsafeRawBufferPointer) -> Void
    ) {
        responseBytes &+= UInt64(bytes.count)
        filter.feed(bytes, &events, pass: pass)
    }

    /// What the filter holds back goes on, unless it is what it looks for.
    mutating func finish(
        through filter: inout UsageEventFilter, pass: (UnsafeRawBufferPointer) -> Void
    ) {
        finish()
        filter.finish(events, pass: pass)
    }

    /// The bytes so far end in the middle of an event.
    var isInEvent: Bool { form == .events && !events.isAtEventEnd }

    /// Events of a stream so far.
    var eventCount: UInt32 { form == .events ? events.events : 0 }

    var readsEvents: Bool { form == .events }

    /// The body ended as its framing says. Not called when it broke off.
    mutating func finish() {
        if form == .events { events.finish() }
    }

    /// What the answer reported; `nil` when it reported nothing that can be trusted.
    var reported: AttemptRecord.Tokens? {
        if let tree { return placed(tree) }
        return known
    }

    private var known: AttemptRecord.Tokens? {
        switch form {
        case .none: nil
        case .json:
            json.status == .complete && !json.isDoubtful && (json.hasTopUsage || !needsTopUsage)
                ? json.counts.tokens : nil
        case .events:
            !events.isDoubtful && (events.hasTopUsage || !needsTopUsage)
                ? events.counts.tokens : nil
        }
    }

    /// From the places that the policy names. A body that is no JSON says nothing, and header
    /// fields may say it all.
    private func placed(_ tree: UsageTree) -> AttemptRecord.Tokens? {
        var counts = headers
        var isDoubtful = headersAreDoubtful
        switch form {
        case .none: return nil
        case .json:
            if json.status == .complete { counts.merge(json.counts) }
            isDoubtful = isDoubtful || json.isDoubtful
        case .events:
            counts.merge(events.counts)
            isDoubtful = isDoubtful || events.isDoubtful
        }
        guard !isDoubtful, !tree.readsInput || counts.has(.prompt),
            !tree.readsOutput || counts.has(.output)
        else { return nil }
        // What the policy has no place for is not charged.
        if !tree.readsInput { counts.set(.prompt, 0) }
        if !tree.readsOutput { counts.set(.output, 0) }
        return counts.tokens
    }

    /// The answer carries an error object, whatever its status says: an event in mid-stream.
    var reportsError: Bool {
        switch form {
        case .none: false
        case .json: json.hasError
        case .events: events.hasError
        }
    }

    /// Output tokens where the policy takes an estimate: an event holds about one, and text about a
    /// token in three bytes. An upper estimate on purpose.
    fileprivate var estimatedOutputTokens: UInt32 {
        if form == .events { return events.events }
        return UInt32(clamping: responseBytes / 3 + 1)
    }
}

/// What an attempt cost and how that is known.
struct AttemptCost: Equatable {
    var amount: NanoUSD
    var source: CostSource
    var tokens: AttemptRecord.Tokens
    /// More than was set aside: the provider broke its word.
    var isOverrun: Bool

    /// In and out; `nil` where nobody can tell.
    var knownTokens: Int64? {
        switch source {
        case .none: 0
        case .reported, .estimated: Int64(tokens.input) + Int64(tokens.output)
        case .ceiling: nil
        }
    }
}

extension AttemptBound {
    /// Events of a stream beside those that carry text: of its beginning and end, and pings, which
    /// are at most so many and a quarter of all.
    private static let otherEvents: Int64 = 64

    /// More events than these are proof that the output costs more than the amount: each that
    /// carries text carries at least a token of it, so that tokens are never fewer than three
    /// quarters of the events, but for a few. Streams that fewer events tell are metered as always.
    func eventsMax(within amount: NanoUSD) -> UInt32 {
        guard price.countsOutput else { return .max }
        let perMillion = price.outputMin
        guard perMillion > .zero else { return .max }
        let tokens = Int128(max(amount.rawValue, 0)) * 1_000_000 / Int128(perMillion.rawValue)
        return UInt32(clamping: (tokens + 1) * 4 / 3 + Int128(Self.otherEvents))
    }

    /// The price of an attempt whose bytes went upstream.
    ///
    /// - `isWhole`: the answer arrived to its end. Usage of a broken stream is not the whole of it.
    /// A 4xx or 5xx that reports no usage costs a fixed price or the ceiling like everything else:
    /// only the policy can say that an agent's refusals are free (`AttemptOutcome.cost`).
    func cost(
        of meter: UsageMeter, isWhole: Bool, nanoseconds: UInt64,
        whenMissing: AgentPolicy.WhenUsageIsMissing
    ) -> AttemptCost {
        let nanoseconds = min(nanoseconds, nanosecondsMax)
        let reported = isWhole ? meter.reported : nil
        if isPolicyCeiling {
            // What made it unbounded (a hosted tool, an image) may not be in the usage either.
            let known = reported.map { price.cost($0, nanoseconds: nanoseconds) } ?? .zero
            return charge(max(worstCase, known), .ceiling, reported ?? .init())
        }
        if !price.countsTokens { return fixedCost(nanoseconds: nanoseconds) }
        if let reported {
            return charge(price.cost(reported, nanoseconds: nanoseconds), .reported, reported)
        }
        switch whenMissing {
        case .ceiling: return charge(worstCase, .ceiling, .init())
        case .estimated:
            var tokens = AttemptRecord.Tokens()
            tokens.input = UInt32(clamping: (inputTokensMax + 2) / 3)
            tokens.output = UInt32(
                clamping: min(outputTokensMax, Int64(meter.estimatedOutputTokens)))
            let estimate = min(price.cost(tokens, nanoseconds: nanoseconds), worstCase)
            return charge(estimate, .estimated, tokens)
        }
    }

    /// The price of an attempt that no token changes.
    func fixedCost(nanoseconds: UInt64) -> AttemptCost {
        charge(
            price.cost(.init(), nanoseconds: min(nanoseconds, nanosecondsMax)), .reported, .init())
    }

    private func charge(
        _ amount: NanoUSD, _ source: CostSource, _ tokens: AttemptRecord.Tokens
    ) -> AttemptCost {
        AttemptCost(
            amount: amount, source: source, tokens: tokens, isOverrun: amount > worstCase)
    }
}
