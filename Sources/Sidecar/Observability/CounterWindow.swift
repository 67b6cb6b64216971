/// What counters grew by lately: readings of them about once a second, and the newest one less the
/// one of a minute ago. Nothing is paid where they are counted. Pure: time and readings come in.
///
/// The counters stand in an order that never changes; new ones are appended, and were 0 before.
package struct CounterWindow: Sendable {
    package static let nanoseconds: UInt64 = 60_000_000_000
    static let spacingNanoseconds: UInt64 = 900_000_000

    private struct Entry {
        let nanoseconds: UInt64
        let counters: [UInt64]
    }

    private var entries: [Entry] = []

    package init() {}

    /// One that comes sooner than the spacing replaces the last, so that their number is bounded.
    package mutating func add(_ counters: [UInt64], nowNanoseconds now: UInt64) {
        if entries.count > 1, now - entries[entries.count - 2].nanoseconds < Self.spacingNanoseconds
        {
            entries.removeLast()
        }
        entries.append(Entry(nanoseconds: now, counters: counters))
        // The last one at or before the edge is where the window begins.
        let edge = now - min(now, Self.nanoseconds)
        let first = entries.lastIndex { $0.nanoseconds <= edge } ?? 0
        entries.removeFirst(first)
    }

    /// How long the window is by now; 0 before the second reading.
    package var spanNanoseconds: UInt64 {
        guard let first = entries.first, let last = entries.last else { return 0 }
        return last.nanoseconds - first.nanoseconds
    }

    /// By how much each counter grew within the window.
    package var growth: [UInt64] { growth(since: 0) }

    /// By how much each grew since the reading before the last.
    package var lastGrowth: [UInt64] { growth(since: max(0, entries.count - 2)) }

    private func growth(since index: Int) -> [UInt64] {
        guard let last = entries.last else { return [] }
        let before = entries[index].counters
        return last.counters.enumerated().map { position, value in
            value &- (position < before.count ? before[position] : 0)
        }
    }
}
