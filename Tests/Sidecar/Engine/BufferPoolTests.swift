import SidecarCore
import Testing

@Suite struct BufferPoolTests {
    private func append(_ text: String, to queue: inout ByteQueue, _ pool: BufferPool) -> Bool {
        var text = text
        return text.withUTF8 { queue.append(UnsafeRawBufferPointer($0), pool: pool) }
    }

    @Test(arguments: [(0, 4096), (1, 4096), (4096, 4096), (4097, 8192), (100_000, 131_072)])
    func slabsAreLargeEnough(bytes: Int, capacity: Int) throws {
        let pool = BufferPool()
        let slab = try #require(pool.lend(atLeast: bytes))
        #expect(slab.capacity == capacity)
        #expect(pool.lentBytes == capacity)
        pool.giveBack(slab)
        #expect(pool.lentBytes == 0)
    }

    @Test func lendingIsBounded() throws {
        let pool = BufferPool(lentBytesMax: 10_000, cachedBytesMax: 4096)
        let first = try #require(pool.lend(atLeast: 4096))
        let second = try #require(pool.lend(atLeast: 4096))
        #expect(pool.lend(atLeast: 1) == nil)
        pool.giveBack(first)
        pool.giveBack(second)
        let again = try #require(pool.lend(atLeast: 1))
        #expect(again.base == first.base)
        pool.giveBack(again)
        #expect(pool.lend(atLeast: BufferPool.largestBytes + 1) == nil)
    }

    @Test func queuesGrowShrinkAndHoldNothingWhenEmpty() {
        let pool = BufferPool()
        var queue = ByteQueue()
        var expected: [UInt8] = []
        for step in 0..<500 {
            let text = String(repeating: Character("a"), count: step % 97) + "\(step)"
            #expect(append(text, to: &queue, pool))
            expected += Array(text.utf8)
            if step % 3 == 0 {
                let count = min(expected.count, step % 151)
                queue.consume(count, pool: pool)
                expected.removeFirst(count)
            }
            #expect(Array(queue.bytes) == expected)
        }
        queue.consume(queue.count, pool: pool)
        #expect(pool.lentBytes == 0)
    }

    @Test func aFullPoolRefusesAndLosesNothing() {
        let pool = BufferPool(lentBytesMax: 4096)
        var queue = ByteQueue()
        #expect(append(String(repeating: "x", count: 4000), to: &queue, pool))
        #expect(!append(String(repeating: "y", count: 200), to: &queue, pool))
        #expect(queue.count == 4000)
        queue.discard(pool: pool)
    }
}
