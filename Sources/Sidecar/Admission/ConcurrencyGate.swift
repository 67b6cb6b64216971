import WeirCore
import WeirPolicy

/// How many requests may be in hand at once (at an agent, or at a gateway), and who waits for a
/// place: highest priority first, and among equals in the order of their arrival. Where the queue
/// is full, the lowest priority is shed, the last to come first. Pure: tickets and time in,
/// decisions out.
package struct ConcurrencyGate: Sendable {
    package typealias Ticket = UInt64

    package enum Arrival: Equatable, Sendable {
        case admitted
        /// Decided later by `release` or `expire`. `shed` lost its place to this one: `overloaded`.
        case queued(deadlineNanoseconds: UInt64, shed: Ticket?)
        case refused(Reason)
    }

    private struct Waiter {
        let ticket: Ticket
        let priority: Int
        let headroom: Int
        let subject: String
        let deadlineNanoseconds: UInt64
    }

    package private(set) var limit: AgentPolicy.Concurrency
    package private(set) var inFlight = 0
    /// The first one goes next.
    private var queue: ContiguousArray<Waiter> = []
    /// In flight and waiting, for subjects whose tier has a limit.
    private var bySubject: [String: Int] = [:]

    package init(_ limit: AgentPolicy.Concurrency) { self.limit = limit }

    package var waiting: Int { queue.count }

    /// `subjectMax` is the tier's limit; a subject with one is counted, an empty one never is.
    /// `headroom`: places that this one leaves free for higher priorities, which then find some
    /// while lower ones fill the rest. One place is always left to it. Without `mayWait`, one that
    /// would wait is refused.
    package mutating func arrive(
        _ ticket: Ticket, priority: Int, subject: String, subjectMax: Int?, headroom: Int = 0,
        mayWait: Bool = true, nowNanoseconds now: UInt64
    ) -> Arrival {
        let counted = subjectMax == nil ? "" : subject
        if let subjectMax, !counted.isEmpty, bySubject[counted, default: 0] >= subjectMax {
            return .refused(.concurrency)
        }
        // Nobody overtakes one of its own priority or above. Lower ones may wait while a place is
        // free: it is kept for such as this.
        if hasPlace(headroom), queue.first.map({ $0.priority < priority }) ?? true {
            inFlight += 1
            count(counted, by: 1)
            return .admitted
        }
        guard mayWait else { return .refused(.overloaded) }
        var shed: Ticket?
        if queue.count >= limit.queueMax {
            guard let last = queue.last, last.priority < priority else {
                return .refused(.overloaded)
            }
            shed = last.ticket
            count(last.subject, by: -1)
            queue.removeLast()
        }
        let wait = UInt64(clamping: limit.queueMilliseconds) &* 1_000_000
        let waiter = Waiter(
            ticket: ticket, priority: priority, headroom: headroom, subject: counted,
            deadlineNanoseconds: now + wait)
        queue.insert(waiter, at: place(of: priority))
        count(counted, by: 1)
        return .queued(deadlineNanoseconds: waiter.deadlineNanoseconds, shed: shed)
    }

    /// A request that was admitted is over, or a later stage refused it. Returns who takes its
    /// place.
    package mutating func release(subject: String, subjectMax: Int?) -> Ticket? {
        precondition(inFlight > 0, "a place was given back twice")
        inFlight -= 1
        count(subjectMax == nil ? "" : subject, by: -1)
        return admitNext()
    }

    /// The caller of a waiting request went away. False when it is not waiting any more.
    package mutating func leave(_ ticket: Ticket) -> Bool {
        guard let index = queue.firstIndex(where: { $0.ticket == ticket }) else { return false }
        count(queue[index].subject, by: -1)
        queue.remove(at: index)
        return true
    }

    /// Takes one whose time in the queue is over: `overloaded`.
    package mutating func expire(nowNanoseconds now: UInt64) -> Ticket? {
        guard let index = queue.firstIndex(where: { $0.deadlineNanoseconds <= now }) else {
            return nil
        }
        let ticket = queue[index].ticket
        count(queue[index].subject, by: -1)
        queue.remove(at: index)
        return ticket
    }

    /// When `expire` has something to do next.
    package var nextDeadlineNanoseconds: UInt64? { queue.map(\.deadlineNanoseconds).min() }

    /// A new policy: who is in flight stays; call `admitNext` until it has no more.
    package mutating func change(_ limit: AgentPolicy.Concurrency) { self.limit = limit }

    package mutating func admitNext() -> Ticket? {
        guard let next = queue.first, hasPlace(next.headroom) else { return nil }
        queue.removeFirst()
        inFlight += 1
        return next.ticket
    }

    private func hasPlace(_ headroom: Int) -> Bool {
        inFlight < min(limit.requestsMax, max(limit.requestsMax - headroom, 1))
    }

    private func place(of priority: Int) -> Int {
        var low = 0
        var high = queue.count
        while low < high {
            let middle = (low + high) / 2
            if queue[middle].priority >= priority { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private mutating func count(_ subject: String, by change: Int) {
        guard !subject.isEmpty else { return }
        let count = bySubject[subject, default: 0] + change
        bySubject[subject] = count > 0 ? count : nil
    }
}
