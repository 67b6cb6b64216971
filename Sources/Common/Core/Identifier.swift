/// A sortable 128-bit identifier: 48 bits of milliseconds, 80 bits of randomness, written as 26
/// characters of Crockford's base 32 (the ULID layout), with a prefix that names the kind:
/// `req_01JD…`, `run_01JD…`. Randomness comes in from the edge.
package struct Identifier: Hashable, Sendable, CustomStringConvertible {
    package let high: UInt64
    package let low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    package init(time: UnixTime, random: (UInt64, UInt64)) {
        high = UInt64(truncatingIfNeeded: time.milliseconds) << 16 | random.0 & 0xFFFF
        low = random.1
    }

    private static let alphabet = Array("0123456789ABCDEFGHJKMNPQRSTVWXYZ".utf8)

    package var description: String {
        let value = UInt128(high) << 64 | UInt128(low)
        var characters: [UInt8] = []
        characters.reserveCapacity(26)
        for index in 0..<26 {
            let shift = UInt128(5 * (25 - index))
            characters.append(Self.alphabet[Int(truncatingIfNeeded: value >> shift & 31)])
        }
        return String(decoding: characters, as: UTF8.self)
    }

    /// Reads what `description` writes; `nil` for anything else, lower case included.
    package init?(_ text: some StringProtocol) {
        let characters = Array(text.utf8)
        guard characters.count == 26, let first = characters.first, first <= 55 else { return nil }
        var value: UInt128 = 0
        for character in characters {
            guard let digit = Self.alphabet.firstIndex(of: character) else { return nil }
            value = value << 5 | UInt128(digit)
        }
        self.init(
            high: UInt64(truncatingIfNeeded: value >> 64), low: UInt64(truncatingIfNeeded: value))
    }
}
