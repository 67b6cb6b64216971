/// What happens next: by time, and in the order of scheduling where times are equal.
///
/// The heap orders numbers; the events lie still beside it, because moving them is what would cost.
struct EventQueue<Event> {
    private struct Entry {
        var at: UInt64
        var order: UInt64
        var place: Int

        static func < (left: Entry, right: Entry) -> Bool {
            left.at < right.at || left.at == right.at && left.order < right.order
        }
    }

    private var heap: [Entry] = []
    private var events: [Event?] = []
    private var freePlaces: [Int] = []
    private var order: UInt64 = 0

    var isEmpty: Bool { heap.isEmpty }

    mutating func push(_ event: Event, at: UInt64) {
        order += 1
        let entry = Entry(at: at, order: order, place: keep(event))
        heap.append(entry)
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard entry < heap[parent] else { break }
            heap[child] = heap[parent]
            child = parent
        }
        heap[child] = entry
    }

    private mutating func keep(_ event: Event) -> Int {
        guard let place = freePlaces.popLast() else {
            events.append(event)
            return events.count - 1
        }
        events[place] = event
        return place
    }

    mutating func pop() -> (at: UInt64, event: Event)? {
        guard let first = heap.first, let event = events[first.place].take() else { return nil }
        freePlaces.append(first.place)
        let last = heap.removeLast()
        if !heap.isEmpty { sink(last) }
        return (first.at, event)
    }

    /// Puts the entry where the first one was taken from, or below.
    private mutating func sink(_ entry: Entry) {
        var parent = 0
        while true {
            var least = parent * 2 + 1
            guard least < heap.count else { break }
            if least + 1 < heap.count, heap[least + 1] < heap[least] { least += 1 }
            guard heap[least] < entry else { break }
            heap[parent] = heap[least]
            parent = least
        }
        heap[parent] = entry
    }
}
