/// SplitMix64 (Steele, Lea, Flood 2014): small, quick, and the same everywhere for one seed.
struct SeededRandom {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }

    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
    mutating func below(_ bound: Int64) -> Int64 { Int64(next() % UInt64(bound)) }
    /// In a thousand.
    mutating func chance(_ permille: Int) -> Bool { below(1_000) < permille }
    mutating func milliseconds(_ bound: Int) -> UInt64 { UInt64(below(bound)) * 1_000_000 }
}
