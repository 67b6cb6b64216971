import WeirMeshProtocol

/// The quantities that one document says, before they are put together to usage. Fixed in size.
struct UsageCounts {
    enum Counter: Int, CaseIterable {
        /// `input_tokens`, of OpenAI's newer API and Anthropic's.
        case input
        /// OpenAI's `prompt_tokens`: all of the input, whatever stands beside it.
        case prompt
        /// `completion_tokens`, `output_tokens`.
        case output
        case total
        /// Inside `…_tokens_details`: a part of the input.
        case cached
        /// A part of the output.
        case reasoning
        /// Anthropic's: beside `input_tokens`. Gateways to many providers also write them beside
        /// `prompt_tokens`, and there they are a part of it.
        case cacheRead, cacheWrite
    }

    private var values = InlineArray<8, UInt32>(repeating: 0)
    private var present: UInt8 = 0
    /// The same quantity under two names with two values.
    private(set) var contradicts = false

    init() {}

    var isEmpty: Bool { present == 0 }

    func has(_ counter: Counter) -> Bool { present & 1 << UInt8(counter.rawValue) != 0 }
    private func value(_ counter: Counter) -> UInt32 { values[counter.rawValue] }

    mutating func set(_ counter: Counter, _ value: UInt32) {
        if has(counter), values[counter.rawValue] != value { contradicts = true }
        values[counter.rawValue] = value
        present |= 1 << UInt8(counter.rawValue)
    }

    /// Takes the larger of each quantity: what a stream says is cumulative, so the largest value is
    /// the last one, and an agent that counts backwards gains nothing.
    mutating func merge(_ other: UsageCounts) {
        for counter in Counter.allCases where other.has(counter) {
            values[counter.rawValue] = max(values[counter.rawValue], other.value(counter))
        }
        present |= other.present
        contradicts = contradicts || other.contradicts
    }

    /// The usage by Weir's rules (`Pricing`); `nil` when it is incomplete or contradicts itself.
    var tokens: AttemptRecord.Tokens? {
        guard !contradicts, has(.input) || has(.prompt) || has(.output) else { return nil }
        guard !has(.input) || !has(.prompt) || value(.input) == value(.prompt) else { return nil }
        // Only embeddings have no output, and they give a total.
        guard has(.output) || has(.total) else { return nil }
        let cache = UInt64(value(.cacheRead)) + UInt64(value(.cacheWrite))
        let isWithin = has(.prompt) && cache <= UInt64(value(.prompt))
        let input =
            UInt64(has(.prompt) ? value(.prompt) : value(.input)) + (isWithin ? 0 : cache)
        // Some providers leave reasoning out of the output and count it in the total only.
        let output = max(UInt64(value(.output)), max(UInt64(value(.total)), input) - input)
        let cached =
            isWithin
            // The same tokens under two names.
            ? UInt64(max(value(.cached), value(.cacheRead)))
            : UInt64(value(.cached)) + UInt64(value(.cacheRead))
        guard input <= UInt64(UInt32.max), output <= UInt64(UInt32.max),
            cached + UInt64(value(.cacheWrite)) <= input, UInt64(value(.reasoning)) <= output
        else { return nil }
        var tokens = AttemptRecord.Tokens()
        tokens.input = UInt32(input)
        tokens.cachedInput = UInt32(cached)
        tokens.cacheWrite = value(.cacheWrite)
        tokens.output = UInt32(output)
        tokens.reasoning = value(.reasoning)
        return tokens
    }
}
