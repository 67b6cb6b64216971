/// Where usage stands in a document: a small tree of keys. `usage` is at the top, or one level down
/// in `message` (Anthropic's first event) or `response` (OpenAI's responses, streamed).
enum UsagePath: UInt8 {
    case elsewhere, root, nested, usage, inputDetails, outputDetails

    /// What the value of a key is to us.
    enum Member: Equatable {
        case unknown
        case object(UsagePath)
        case counter(UsageCounts.Counter)
        case error
        case choices
        /// A node of a `UsageTree`.
        case place(UInt8)
    }

    /// A decoded key, as far as it can be one of ours: the longest has 27 bytes.
    struct Key {
        static let bytesMax = 32
        private var bytes = InlineArray<32, UInt8>(repeating: 0)
        private var count = 0

        mutating func clear() { count = 0 }

        /// Beyond the limit the key is none of ours; the count stays above it.
        mutating func append(_ byte: UInt8) {
            if count < Self.bytesMax { bytes[count] = byte }
            if count <= Self.bytesMax { count += 1 }
        }

        /// A character that none of our keys has.
        mutating func appendForeign() { count = Self.bytesMax + 1 }

        func equals(_ name: StaticString) -> Bool {
            guard count == name.utf8CodeUnitCount else { return false }
            for index in 0..<count where bytes[index] != name.utf8Start[index] { return false }
            return true
        }

        func equals(_ name: [UInt8]) -> Bool {
            guard count == name.count, count <= Self.bytesMax else { return false }
            for index in 0..<count where bytes[index] != name[index] { return false }
            return true
        }
    }

    /// The member, and its bit among all keys that are known, by which a repeated one is noticed.
    func member(_ key: Key) -> (member: Member, bit: UInt32) {
        switch self {
        case .elsewhere: (.unknown, 0)
        case .root: rootMember(key)
        case .nested: key.equals("usage") ? (.object(.usage), 1 << 1) : (.unknown, 0)
        case .usage: usageMember(key)
        case .inputDetails:
            key.equals("cached_tokens") ? (.counter(.cached), 1 << 15) : (.unknown, 0)
        case .outputDetails:
            key.equals("reasoning_tokens") ? (.counter(.reasoning), 1 << 16) : (.unknown, 0)
        }
    }

    private func rootMember(_ key: Key) -> (Member, UInt32) {
        if key.equals("usage") { return (.object(.usage), 1 << 0) }
        if key.equals("message") { return (.object(.nested), 1 << 2) }
        if key.equals("response") { return (.object(.nested), 1 << 3) }
        if key.equals("error") { return (.error, 1 << 4) }
        if key.equals("choices") { return (.choices, 0) }
        return (.unknown, 0)
    }

    private func usageMember(_ key: Key) -> (Member, UInt32) {
        if key.equals("prompt_tokens") { return (.counter(.prompt), 1 << 5) }
        if key.equals("input_tokens") { return (.counter(.input), 1 << 6) }
        if key.equals("completion_tokens") { return (.counter(.output), 1 << 7) }
        if key.equals("output_tokens") { return (.counter(.output), 1 << 8) }
        if key.equals("total_tokens") { return (.counter(.total), 1 << 9) }
        if key.equals("cache_read_input_tokens") { return (.counter(.cacheRead), 1 << 10) }
        if key.equals("cache_creation_input_tokens") { return (.counter(.cacheWrite), 1 << 11) }
        if key.equals("prompt_tokens_details") { return (.object(.inputDetails), 1 << 12) }
        if key.equals("input_tokens_details") { return (.object(.inputDetails), 1 << 12) }
        if key.equals("completion_tokens_details") { return (.object(.outputDetails), 1 << 13) }
        if key.equals("output_tokens_details") { return (.object(.outputDetails), 1 << 13) }
        return (.unknown, 0)
    }
}
