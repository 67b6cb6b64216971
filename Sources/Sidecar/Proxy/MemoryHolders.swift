/// Whoever keeps lent memory until its peer does something: ends its head, opens its window, reads
/// its answer.
protocol MemoryHolder: AnyObject {
    /// Position in `MemoryHolders`; -1 where it is not among them.
    var holderIndex: Int { get set }
    /// Gives up what it waits for, and the memory at once. It is no holder any more then.
    func giveUp()
}

/// Those of one loop. Where its share runs short they go first, because it is their peers who make
/// others wait; and by chance, so that whoever keeps much is met sooner than somebody who is slow
/// once.
struct MemoryHolders {
    private var holders: ContiguousArray<any MemoryHolder> = []

    /// Once, however often it is said.
    mutating func insert(_ holder: any MemoryHolder) {
        guard holder.holderIndex < 0 else { return }
        holder.holderIndex = holders.count
        holders.append(holder)
    }

    mutating func remove(_ holder: any MemoryHolder) {
        let index = holder.holderIndex
        guard index >= 0, index < holders.count else { return }
        holder.holderIndex = -1
        let last = holders.removeLast()
        if index < holders.count {
            holders[index] = last
            last.holderIndex = index
        }
    }

    func pick(_ random: UInt64) -> (any MemoryHolder)? {
        holders.isEmpty ? nil : holders[Int(random % UInt64(holders.count))]
    }
}
