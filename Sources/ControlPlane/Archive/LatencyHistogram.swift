/// How many latencies fell into which bucket. Buckets are log-linear, as in HdrHistogram: below
/// 64 µs each value has its own, above that each power of two is cut into 32. So a percentile read
/// from it is at most 1/64 (1.6 %) off, whatever the latency, and histograms of hours, models and
/// sidecars can be added without losing anything.
package struct LatencyHistogram: Hashable, Sendable {
    /// 2^5 buckets for each power of two.
    private static let precisionBits = 5
    private static let exactMax: UInt32 = 1 << (precisionBits + 1)

    /// Bucket → count; only buckets that have any.
    package private(set) var counts: [Int: Int64] = [:]
    package private(set) var total: Int64 = 0

    package init() {}

    package mutating func add(microseconds: UInt32, count: Int64 = 1) {
        add(bucket: Self.bucket(of: microseconds), count: count)
    }

    mutating func add(bucket: Int, count: Int64) {
        counts[bucket, default: 0] += count
        total += count
    }

    package mutating func add(_ other: LatencyHistogram) {
        for (bucket, count) in other.counts { add(bucket: bucket, count: count) }
    }

    /// The latency in µs that so many per mille did not exceed (nearest rank), as the middle of its
    /// bucket; `nil` without any.
    package func percentile(permille: Int64) -> UInt32? {
        guard total > 0 else { return nil }
        let (product, overflow) = total.multipliedReportingOverflow(by: permille)
        let rank = overflow ? total : max(1, (product + 999) / 1_000)
        var seen: Int64 = 0
        for (bucket, count) in counts.sorted(by: { $0.key < $1.key }) {
            seen += count
            if seen >= rank { return Self.middle(of: bucket) }
        }
        preconditionFailure("a histogram counts less than its total")
    }

    static func bucket(of microseconds: UInt32) -> Int {
        guard microseconds >= exactMax else { return Int(microseconds) }
        let exponent = 31 - microseconds.leadingZeroBitCount
        let position = Int(microseconds >> (exponent - precisionBits)) - 1 << precisionBits
        return base(of: exponent) + position
    }

    private static func base(of exponent: Int) -> Int {
        Int(exactMax) + (exponent - precisionBits - 1) << precisionBits
    }

    private static func middle(of bucket: Int) -> UInt32 {
        guard bucket >= Int(exactMax) else { return UInt32(clamping: bucket) }
        let octave = (bucket - Int(exactMax)) >> precisionBits
        let position = (bucket - Int(exactMax)) & (1 << precisionBits - 1)
        let width = UInt64(2) << octave
        let middle = (UInt64(1 << precisionBits + position)) * width + width / 2
        return UInt32(clamping: middle)
    }

    /// The same rule in SQL, for records that were stored before histograms were.
    static func bucketSQL(of column: String) -> String {
        let arms = (precisionBits + 1...31).map { exponent in
            let offset = base(of: exponent) - 1 << precisionBits
            return """
                WHEN \(column) < \(UInt64(2) << exponent)
                THEN \(offset) + \(column) / \(1 << (exponent - precisionBits))
                """
        }
        return "CASE WHEN \(column) < \(exactMax) THEN \(column) "
            + arms.joined(separator: " ") + " END"
    }
}
