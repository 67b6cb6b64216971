import Glibc

/// Slabs of memory that connections of one loop borrow while they have bytes in flight. An idle
/// connection holds none, which is why a thousand of them cost kilobytes and not megabytes. Sizes
/// are powers of two from 4 KB; the sum of what is lent is bounded, and so is what is kept for
/// reuse.
package final class BufferPool {
    package struct Slab {
        package let base: UnsafeMutableRawPointer
        package let capacity: Int
    }

    private static let smallestShift = 12
    private static let classes = 14
    package static let largestBytes = 1 << (smallestShift + classes - 1)

    private let lentBytesMax: Int
    private let cachedBytesMax: Int
    package private(set) var lentBytes = 0
    private var cachedBytes = 0
    /// The head of a list of free slabs for each size; a free slab's first word is its successor.
    private let free: UnsafeMutablePointer<UnsafeMutableRawPointer?>

    package init(
        lentBytesMax: Int = Limits.lentBytesPerLoop, cachedBytesMax: Int = Limits.cachedBytesPerLoop
    ) {
        self.lentBytesMax = lentBytesMax
        self.cachedBytesMax = cachedBytesMax
        free = .allocate(capacity: Self.classes)
        free.initialize(repeating: nil, count: Self.classes)
    }

    deinit {
        for index in 0..<Self.classes {
            while let slab = free[index] {
                free[index] = slab.load(as: UnsafeMutableRawPointer?.self)
                slab.deallocate()
            }
        }
        free.deallocate()
    }

    /// A slab of at least `bytes`; `nil` when that is too large or the loop has lent its share.
    package func lend(atLeast bytes: Int) -> Slab? {
        guard bytes <= Self.largestBytes else { return nil }
        let index = Self.sizeClass(bytes)
        let capacity = 1 << (index + Self.smallestShift)
        guard lentBytes + capacity <= lentBytesMax else { return nil }
        lentBytes += capacity
        if let slab = free[index] {
            free[index] = slab.load(as: UnsafeMutableRawPointer?.self)
            cachedBytes -= capacity
            return Slab(base: slab, capacity: capacity)
        }
        return Slab(base: .allocate(byteCount: capacity, alignment: 16), capacity: capacity)
    }

    package func giveBack(_ slab: Slab) {
        lentBytes -= slab.capacity
        precondition(lentBytes >= 0, "a slab was given back twice")
        guard cachedBytes + slab.capacity <= cachedBytesMax else { return slab.base.deallocate() }
        let index = Self.sizeClass(slab.capacity)
        slab.base.storeBytes(of: free[index], as: UnsafeMutableRawPointer?.self)
        free[index] = slab.base
        cachedBytes += slab.capacity
    }

    private static func sizeClass(_ bytes: Int) -> Int {
        let pages = max(bytes - 1, 0) >> smallestShift
        return Int.bitWidth - pages.leadingZeroBitCount
    }
}

/// Bytes that wait to be written or parsed: first in, first out, in one slab that is lent only
/// while there are any. A plain struct inside its owner, who must call `discard` before it goes.
package struct ByteQueue {
    private var slab: BufferPool.Slab?
    private var start = 0
    private var end = 0

    package init() {}

    package var count: Int { end - start }
    package var isEmpty: Bool { end == start }

    /// Valid until the next change.
    package var bytes: UnsafeRawBufferPointer {
        guard let slab else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        return UnsafeRawBufferPointer(start: slab.base + start, count: end - start)
    }

    package var mutableBytes: UnsafeMutableRawBufferPointer {
        guard let slab else { return UnsafeMutableRawBufferPointer(start: nil, count: 0) }
        return UnsafeMutableRawBufferPointer(start: slab.base + start, count: end - start)
    }

    /// False when the pool has nothing to lend; then nothing was appended. `bytes` may be part of
    /// this very queue.
    package mutating func append(_ bytes: UnsafeRawBufferPointer, pool: BufferPool) -> Bool {
        guard let source = bytes.baseAddress, bytes.count > 0 else { return true }
        guard let room = reserve(bytes.count, pool: pool) else { return false }
        memcpy(room, source, bytes.count)
        end += bytes.count
        return true
    }

    /// Room for `extra` bytes behind what is there; say with `added` how many were written.
    package mutating func reserve(_ extra: Int, pool: BufferPool) -> UnsafeMutableRawPointer? {
        if let slab, end + extra <= slab.capacity { return slab.base + end }
        let waiting = end - start
        if let slab, waiting + extra <= slab.capacity {
            memmove(slab.base, slab.base + start, waiting)
            start = 0
            end = waiting
            return slab.base + end
        }
        guard let larger = pool.lend(atLeast: waiting + extra) else { return nil }
        if let slab {
            memcpy(larger.base, slab.base + start, waiting)
            pool.giveBack(slab)
        }
        slab = larger
        start = 0
        end = waiting
        return larger.base + end
    }

    package mutating func added(_ count: Int) {
        end += count
        precondition(end <= slab?.capacity ?? 0, "more bytes than there was room for")
    }

    package mutating func consume(_ count: Int, pool: BufferPool) {
        start += count
        precondition(start <= end, "consumed more than there was")
        if start == end { discard(pool: pool) }
    }

    package mutating func discard(pool: BufferPool) {
        if let slab { pool.giveBack(slab) }
        slab = nil
        start = 0
        end = 0
    }
}
