/// Something with one deadline: a connection, or a `Timer`. Moving a deadline further away is one
/// store, because connections do that with every byte: the entry in the heap stays where it is, and
/// is put back with the new time when it comes up. Only an earlier deadline moves the entry.
package class Timed {
    /// When `deadlinePassed` is due, on the loop's clock; `UInt64.max` for never.
    fileprivate(set) var dueNanoseconds: UInt64 = .max
    /// When the heap looks at this object again; `UInt64.max` while it is not in the heap.
    fileprivate var heapNanoseconds: UInt64 = .max
    fileprivate var heapIndex = -1

    package init() {}

    /// Called on the loop, once for each deadline that is set.
    package func deadlinePassed() {}
}

/// A cold timer: one closure, run once. The loop keeps it alive until it has run or is cancelled.
package final class Timer: Timed {
    private var action: (() -> Void)?
    private unowned let loop: EventLoop

    init(loop: EventLoop, action: @escaping () -> Void) {
        self.loop = loop
        self.action = action
    }

    override package func deadlinePassed() {
        let action = self.action
        self.action = nil
        action?()
    }

    package func cancel() {
        action = nil
        loop.clearDeadline(self)
    }
}

/// A binary heap of deadlines, ordered by the time at which each is looked at.
struct TimerHeap {
    private var entries: ContiguousArray<Timed> = []

    var nextNanoseconds: UInt64 { entries.first?.heapNanoseconds ?? .max }
    var count: Int { entries.count }

    mutating func set(_ timed: Timed, due: UInt64) {
        timed.dueNanoseconds = due
        // Later than what the heap knows (or never): found out when the entry comes up.
        guard due < timed.heapNanoseconds else { return }
        timed.heapNanoseconds = due
        if timed.heapIndex < 0 {
            timed.heapIndex = entries.count
            entries.append(timed)
        }
        siftUp(timed.heapIndex)
    }

    /// Takes an object out for good, so that nothing keeps it alive.
    mutating func remove(_ timed: Timed) {
        timed.dueNanoseconds = .max
        let index = timed.heapIndex
        guard index >= 0 else { return }
        timed.heapIndex = -1
        timed.heapNanoseconds = .max
        let last = entries.removeLast()
        guard index < entries.count else { return }
        entries[index] = last
        last.heapIndex = index
        siftUp(index)
        siftDown(last.heapIndex)
    }

    /// The next object whose deadline has passed, taken out of the heap.
    mutating func popDue(now: UInt64) -> Timed? {
        while let first = entries.first, first.heapNanoseconds <= now {
            let due = first.dueNanoseconds
            if due <= now {
                remove(first)
                return first
            }
            if due == .max {
                remove(first)
            } else {
                first.heapNanoseconds = due
                siftDown(0)
            }
        }
        return nil
    }

    private mutating func siftUp(_ start: Int) {
        var index = start
        while index > 0 {
            let parent = (index - 1) / 2
            guard entries[index].heapNanoseconds < entries[parent].heapNanoseconds else { return }
            exchange(index, parent)
            index = parent
        }
    }

    private mutating func siftDown(_ start: Int) {
        var index = start
        while true {
            var least = index
            for child in (2 * index + 1)...(2 * index + 2) where child < entries.count {
                if entries[child].heapNanoseconds < entries[least].heapNanoseconds { least = child }
            }
            guard least != index else { return }
            exchange(index, least)
            index = least
        }
    }

    private mutating func exchange(_ left: Int, _ right: Int) {
        entries.swapAt(left, right)
        entries[left].heapIndex = left
        entries[right].heapIndex = right
    }
}
