/// The rate limiters of many subjects in a table of fixed size. Only idle entries are evicted: such
/// a subject's bucket is full again, so that forgetting it changes nothing. Where a search finds
/// none, a new subject is refused, and nobody's limit is ever forgotten to make room.
package struct SubjectRates: Sendable {
    package enum Decision: Equatable, Sendable {
        case decided(GCRA.Decision)
        /// No room for another subject: the table is smaller than the number of active ones.
        case tableFull
    }

    /// Entries looked at to find an idle one, for each new subject.
    static let searchMax = 64

    let capacity: Int
    private var index: [String: Int] = [:]
    private var subjects: ContiguousArray<String> = []
    private var arrivals: ContiguousArray<UInt64> = []
    private var hand = 0

    package init(capacity: Int) { self.capacity = max(capacity, 1) }

    var count: Int { subjects.count }

    /// `limit` is that of the subject's tier; a tier that changes takes the subject's state along.
    package mutating func take(
        _ subject: String, _ limit: GCRA, nowNanoseconds now: UInt64
    ) -> Decision {
        guard let slot = index[subject] ?? place(subject, now) else { return .tableFull }
        let decision = limit.decide(arrival: arrivals[slot], nowNanoseconds: now)
        if case .admit(let arrival, _) = decision { arrivals[slot] = arrival }
        return .decided(decision)
    }

    private mutating func place(_ subject: String, _ now: UInt64) -> Int? {
        if subjects.count < capacity {
            subjects.append(subject)
            arrivals.append(0)
            index[subject] = subjects.count - 1
            return subjects.count - 1
        }
        for _ in 0..<min(Self.searchMax, capacity) {
            let slot = hand
            hand = (hand + 1) % capacity
            // Idle whatever its limit was: the theoretical arrival time is in the past.
            guard arrivals[slot] <= now else { continue }
            index[subjects[slot]] = nil
            subjects[slot] = subject
            arrivals[slot] = 0
            index[subject] = slot
            return slot
        }
        return nil
    }
}
