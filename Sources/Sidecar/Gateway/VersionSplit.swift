import WeirPolicy

/// Which version of an agent a user gets: by weight, and the same user always the same one, so that
/// a conversation does not change its agent in the middle. A version that gains weight keeps the
/// users that it had as long as the versions keep their order and the sum of the weights. Pure.
enum VersionSplit {
    /// Versions in the order in which this user's call tries them: the user's own, then the others
    /// that have weight, the heaviest first.
    static func order(_ agent: AgentPolicy, user: String) -> [String] {
        let weighted = agent.versions.filter { $0.weight > 0 }
        let sum = weighted.reduce(0) { $0 + $1.weight }
        guard sum > 0 else { return [] }
        var place = Int(hash(agent.name, user).multipliedFullWidth(by: UInt64(sum)).high)
        var own = weighted[0].name
        for version in weighted {
            own = version.name
            place -= version.weight
            if place < 0 { break }
        }
        let others = weighted.filter { $0.name != own }.sorted { $0.weight > $1.weight }
        return [own] + others.map(\.name)
    }

    /// FNV-1a over both names, and the end of SplitMix64: FNV alone leaves its high bits alike for
    /// names that differ in their last letters.
    private static func hash(_ agent: String, _ user: String) -> UInt64 {
        var word: UInt64 = 0xCBF2_9CE4_8422_2325
        func mix(_ byte: UInt8) { word = (word ^ UInt64(byte)) &* 0x100_0000_01B3 }
        for byte in agent.utf8 { mix(byte) }
        mix(0)
        for byte in user.utf8 { mix(byte) }
        word = (word ^ word >> 30) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ word >> 27) &* 0x94D0_49BB_1331_11EB
        return word ^ word >> 31
    }
}
