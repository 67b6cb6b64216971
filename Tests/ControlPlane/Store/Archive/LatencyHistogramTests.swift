import Testing

@testable import ControlPlaneStore

@Suite struct LatencyHistogramTests {
    private static let interesting: [UInt32] =
        (0...200).map { $0 }
        + (6...31).flatMap { exponent -> [UInt32] in
            let power = UInt32(1) << exponent
            return [power - 1, power, power + 1, power + power / 3, power + (power - 1)]
        }

    @Test func aBucketIsAtMostOneIn64Off() {
        for value in Self.interesting {
            var histogram = LatencyHistogram()
            histogram.add(microseconds: value)
            let read = Double(histogram.percentile(permille: 500) ?? 0)
            #expect(abs(read - Double(value)) <= Double(value) / 64, "\(value) is read as \(read)")
        }
    }

    @Test func bucketsFollowTheOrderOfLatencies() {
        let buckets = Self.interesting.sorted().map(LatencyHistogram.bucket)
        #expect(buckets == buckets.sorted())
        #expect(LatencyHistogram.bucket(of: .max) < 1_024)
    }

    @Test func percentilesAreThoseOfTheSortedList() throws {
        var generator = SplitMix(state: 7)
        var histogram = LatencyHistogram()
        #expect(histogram.percentile(permille: 500) == nil)
        var values: [UInt32] = []
        for _ in 0..<5_000 {
            let value = UInt32.random(
                in: 1...(1 << UInt32.random(in: 4...28, using: &generator)),
                using: &generator)
            values.append(value)
            histogram.add(microseconds: value)
        }
        values.sort()
        for permille: Int64 in [1, 500, 950, 990, 999, 1_000] {
            let exact = Double(values[max(0, Int(5_000 * permille + 999) / 1_000 - 1)])
            let read = Double(try #require(histogram.percentile(permille: permille)))
            #expect(abs(read - exact) <= exact / 64, "\(permille): \(read), not \(exact)")
        }
    }

    @Test func sumsOfHistogramsLoseNothing() {
        var one = LatencyHistogram()
        var other = LatencyHistogram()
        var both = LatencyHistogram()
        for value: UInt32 in [1, 50, 70, 1_000, 99_999] {
            one.add(microseconds: value)
            other.add(microseconds: value * 3, count: 2)
            both.add(microseconds: value)
            both.add(microseconds: value * 3, count: 2)
        }
        one.add(other)
        #expect(one == both && one.total == 15)
    }

    @Test(arguments: Driver.allCases) func theRuleInSQLIsTheSame(on driver: Driver) throws {
        let test = try TestDatabase(driver)
        let database = try test.connection()
        let sql = "SELECT \(LatencyHistogram.bucketSQL(of: "v")) FROM (SELECT ? AS v) AS one"
        for value in Self.interesting {
            let rows = try database.query(sql, [.integer(Int64(value))])
            #expect(rows.first?.first?.integer == Int64(LatencyHistogram.bucket(of: value)))
        }
    }
}
