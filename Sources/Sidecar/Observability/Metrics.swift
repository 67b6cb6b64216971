import Synchronization

/// Counters, gauges and histograms in the Prometheus text format, without a lock or an allocation
/// where they are counted. Series are resolved to a cell number beforehand; each thread counts in a
/// shard of its own, with relaxed atomics that only it writes, and a scrape sums the shards.
///
/// Labels are bounded: a family holds at most `seriesPerFamilyMax` series, and what comes above it
/// is counted in one whose labels all say "other", so that sums stay right. No user is ever a
/// label.
package final class Metrics: Sendable {
    package static let cellsMax = 16_384
    package static let seriesPerFamilyMax = 1_000
    package static let shardsMax = 64

    package enum Kind: Sendable, Equatable {
        case counter
        /// Of integers as they are, or of billionths (n$ and nanoseconds) shown as whole units.
        case counterOfBillionths
        /// The sum over shards; up and down.
        case gauge
        /// In nanoseconds, shown in seconds. Bounds in increasing order.
        case histogram(bounds: [UInt64])
    }

    /// A family's number.
    package struct Family: Hashable, Sendable { fileprivate let index: Int }

    /// A series' cells: one, or for a histogram one for each bucket, +Inf among them, and the sum.
    package struct Series: Hashable, Sendable {
        fileprivate let cell: Int
        fileprivate let family: Int
    }

    struct FamilyState {
        let name: String
        let help: String
        let kind: Kind
        let labels: [String]
        var series: [(labels: [String], cell: Int)] = []
        var index: [[String]: Int] = [:]
        var overflow: Int?
    }

    private struct State {
        var families: [FamilyState] = []
        var nextCell = 0
        var shards: [MetricsShard] = []
        var collectors: [@Sendable (inout MetricsText) -> Void] = []
    }

    private let state = Mutex(State())
    /// Gauges that whoever knows the truth sets from any thread.
    private let shared = MetricsShard(cells: cellsMax)

    package init() {}

    /// Traps on a name that is taken: a programmer's error.
    package func family(
        _ kind: Kind, _ name: String, help: String, labels: [String] = []
    ) -> Family {
        state.withLock { state in
            precondition(!state.families.contains { $0.name == name }, "\(name) exists already")
            state.families.append(
                FamilyState(name: name, help: help, kind: kind, labels: labels))
            return Family(index: state.families.count - 1)
        }
    }

    /// The series of these label values. Cold: call it when the policy changes, or once for each
    /// new combination, and keep the answer.
    package func series(_ family: Family, _ values: [String] = []) -> Series {
        state.withLock { state in
            let known = state.families[family.index]
            precondition(known.labels.count == values.count, "wrong labels for \(known.name)")
            if let cell = known.index[values] { return Series(cell: cell, family: family.index) }
            let width = Self.cells(of: known.kind)
            let isFull =
                known.series.count >= Self.seriesPerFamilyMax
                || state.nextCell + 2 * width > Self.cellsMax
            if isFull, let overflow = known.overflow {
                return Series(cell: overflow, family: family.index)
            }
            let labels = isFull ? values.map { _ in "other" } : values
            let cell = state.nextCell
            precondition(cell + width <= Self.cellsMax, "more families than cells")
            state.nextCell += width
            state.families[family.index].series.append((labels, cell))
            state.families[family.index].index[labels] = cell
            if isFull { state.families[family.index].overflow = cell }
            return Series(cell: cell, family: family.index)
        }
    }

    /// A thread's own shard; ask once. More than `shardsMax` threads share the last one, and may
    /// then lose counts to each other: no process has so many.
    package func shard() -> MetricsShard {
        state.withLock { state in
            if state.shards.count >= Self.shardsMax, let last = state.shards.last { return last }
            let shard = MetricsShard(cells: Self.cellsMax)
            state.shards.append(shard)
            return shard
        }
    }

    /// Sets a gauge for the whole process, from any thread.
    package func set(_ series: Series, _ value: Int64) {
        shared.store(UInt64(bitPattern: value), at: series.cell)
    }

    /// Counts from any thread. It costs a locked instruction, so the path of requests has shards.
    package func add(_ series: Series, _ amount: UInt64 = 1) {
        shared.addLocked(amount, at: series.cell)
    }

    /// As `MetricsShard.observe`, from any thread.
    package func observe(_ series: Series, bounds: [UInt64], nanoseconds: UInt64) {
        let bucket = bounds.firstIndex { nanoseconds <= $0 } ?? bounds.count
        shared.addLocked(1, at: series.cell + bucket)
        shared.addLocked(nanoseconds, at: series.cell + bounds.count + 1)
    }

    // MARK: Reading

    /// One series as it stands: a value, or for a histogram its buckets, +Inf among them, and the
    /// sum.
    package struct Reading: Sendable {
        package let labels: [String]
        package let values: [UInt64]
        package var gauge: Int64 { Int64(bitPattern: values[0]) }
    }

    /// The series of a family in the order in which they came up, which never changes. Gauges are
    /// as of the last `refreshGauges` or scrape.
    package func read(_ family: Family) -> [Reading] {
        let (known, shards) = state.withLock { ($0.families[family.index], $0.shards) }
        let width = Self.cells(of: known.kind)
        return known.series.map { labels, cell in
            let values = (cell..<cell + width).map { cell in
                shards.reduce(shared.load(at: cell)) { $0 &+ $1.load(at: cell) }
            }
            return Reading(labels: labels, values: values)
        }
    }

    /// Has those who know the gauges set them, as a scrape does.
    package func refreshGauges() {
        var unused = MetricsText()
        for collector in state.withLock({ $0.collectors }) { collector(&unused) }
    }

    /// Called at the beginning of each scrape: sets gauges, and writes families whose series are
    /// only known then.
    package func collect(_ collector: @escaping @Sendable (inout MetricsText) -> Void) {
        state.withLock { $0.collectors.append(collector) }
    }

    package static func cells(of kind: Kind) -> Int {
        switch kind {
        case .counter, .counterOfBillionths, .gauge: 1
        case .histogram(let bounds): bounds.count + 2
        }
    }

    // MARK: Scrape

    /// The text of `GET /metrics`: `text/plain; version=0.0.4`.
    package func exposition() -> [UInt8] {
        let (shards, collectors) = state.withLock { ($0.shards, $0.collectors) }
        func sum(_ cell: Int) -> UInt64 {
            shards.reduce(shared.load(at: cell)) { $0 &+ $1.load(at: cell) }
        }
        var text = MetricsText()
        for collector in collectors { collector(&text) }
        // Collectors may have made new series.
        for family in state.withLock({ $0.families }) where !family.series.isEmpty {
            write(family, to: &text, sum)
        }
        return text.bytes
    }

    private func write(
        _ family: FamilyState, to text: inout MetricsText, _ sum: (Int) -> UInt64
    ) {
        switch family.kind {
        case .counter, .counterOfBillionths:
            text.family(family.name, .counter, help: family.help)
        case .gauge: text.family(family.name, .gauge, help: family.help)
        case .histogram: text.family(family.name, .histogram, help: family.help)
        }
        for (values, cell) in family.series {
            let labels = Array(zip(family.labels, values))
            switch family.kind {
            case .counter: text.sample(family.name, labels, String(sum(cell)))
            case .counterOfBillionths:
                text.sample(family.name, labels, MetricsText.billionths(sum(cell)))
            case .gauge:
                text.sample(family.name, labels, String(Int64(bitPattern: sum(cell))))
            case .histogram(let bounds):
                writeHistogram(family.name, labels, bounds, cell, to: &text, sum)
            }
        }
    }

    private func writeHistogram(
        _ name: String, _ labels: [(String, String)], _ bounds: [UInt64], _ cell: Int,
        to text: inout MetricsText, _ sum: (Int) -> UInt64
    ) {
        var count: UInt64 = 0
        for (index, bound) in bounds.enumerated() {
            count &+= sum(cell + index)
            let limit = ("le", MetricsText.billionths(bound))
            text.sample(name + "_bucket", labels + [limit], String(count))
        }
        count &+= sum(cell + bounds.count)
        text.sample(name + "_bucket", labels + [("le", "+Inf")], String(count))
        text.sample(
            name + "_sum", labels, MetricsText.billionths(sum(cell + bounds.count + 1)))
        text.sample(name + "_count", labels, String(count))
    }
}

/// One thread's cells. Only that thread writes them, so that counting needs no locked instruction;
/// scrapes read them from another one.
package final class MetricsShard: Sendable {
    // SAFETY: the pointer never changes, and its cells are atomics.
    private nonisolated(unsafe) let cells: UnsafeMutablePointer<Atomic<UInt64>>
    private let count: Int

    init(cells count: Int) {
        self.count = count
        cells = .allocate(capacity: count)
        for index in 0..<count { (cells + index).initialize(to: Atomic(0)) }
    }

    deinit {
        cells.deinitialize(count: count)
        cells.deallocate()
    }

    package func add(_ series: Metrics.Series, _ amount: UInt64 = 1) {
        add(amount, at: series.cell)
    }

    /// For gauges.
    package func add(_ series: Metrics.Series, signed amount: Int64) {
        add(UInt64(bitPattern: amount), at: series.cell)
    }

    /// `bounds` are those of the series' family; the caller keeps them beside the series.
    package func observe(_ series: Metrics.Series, bounds: [UInt64], nanoseconds: UInt64) {
        var bucket = 0
        while bucket < bounds.count, nanoseconds > bounds[bucket] { bucket += 1 }
        add(1, at: series.cell + bucket)
        add(nanoseconds, at: series.cell + bounds.count + 1)
    }

    private func add(_ amount: UInt64, at index: Int) {
        precondition(index < count, "a series of another registry")
        let value = cells[index].load(ordering: .relaxed)
        cells[index].store(value &+ amount, ordering: .relaxed)
    }

    /// For cells that several threads write.
    func addLocked(_ amount: UInt64, at index: Int) {
        precondition(index < count, "a series of another registry")
        cells[index].wrappingAdd(amount, ordering: .relaxed)
    }

    func store(_ value: UInt64, at index: Int) {
        precondition(index < count, "a series of another registry")
        cells[index].store(value, ordering: .relaxed)
    }

    func load(at index: Int) -> UInt64 { cells[index].load(ordering: .relaxed) }
}
