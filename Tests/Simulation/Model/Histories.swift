import Synchronization

/// What a number of histories came to.
package struct Histories: Sendable {
    package private(set) var count = 0
    package private(set) var events = 0
    package private(set) var served = 0
    package private(set) var faults = FaultCounts()
    /// The first that broke an invariant, by seed.
    package private(set) var failure: (seed: UInt64, violation: String)?

    package init() {}

    /// Runs the history of one seed.
    package mutating func run(seed: UInt64) {
        let world = World(seed: seed)
        do {
            try world.run()
        } catch {
            note((seed, "after \(world.eventsDone) events: \(error)"))
        }
        count += 1
        events += world.eventsDone
        served += world.served
        faults.add(world.counts)
    }

    /// Seeds from `first` on, `count` of them, over so many threads; ends early at a failure.
    package static func run(from first: UInt64, count: Int, threads: Int) async -> Histories {
        let hasFailed = Flag()
        return await withTaskGroup(of: Histories.self) { group in
            for thread in 0..<threads {
                group.addTask {
                    var histories = Histories()
                    for index in stride(from: thread, to: count, by: threads)
                    where !hasFailed.isRaised {
                        histories.run(seed: first &+ UInt64(index))
                        if histories.failure != nil { hasFailed.raise() }
                    }
                    return histories
                }
            }
            return await group.reduce(into: Histories()) { $0.add($1) }
        }
    }

    private final class Flag: Sendable {
        private let value = Atomic(false)
        var isRaised: Bool { value.load(ordering: .relaxed) }
        func raise() { value.store(true, ordering: .relaxed) }
    }

    private mutating func add(_ other: Histories) {
        count += other.count
        events += other.events
        served += other.served
        faults.add(other.faults)
        if let failure = other.failure { note(failure) }
    }

    private mutating func note(_ found: (seed: UInt64, violation: String)) {
        if let failure, failure.seed < found.seed { return }
        failure = found
    }
}
