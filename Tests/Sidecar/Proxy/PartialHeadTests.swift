import Testing
import WeirCore

@testable import SidecarCore

/// Heads in progress where the loop's memory runs short.
@Suite struct PartialHeadTests {
    private final class Part: ServedConnection {
        var index = -1
        var headIndex = -1
        func drain() {}
        func cut() {}
        func shedHead() {}
    }

    @Test func `each of the others may be met, and never the one that asks`() {
        var heads = PartialHeads()
        let parts = (0..<4).map { _ in Part() }
        #expect(heads.pick(0, besides: parts[0]) == nil)
        for part in parts { heads.insert(part) }
        heads.insert(parts[1])
        for (number, one) in parts.enumerated() {
            let met = (0..<3).compactMap { heads.pick($0, besides: one)?.headIndex }
            #expect(Set(met) == Set(0..<4).subtracting([number]))
        }
        heads.remove(parts[1])
        heads.remove(parts[1])
        #expect(parts.map(\.headIndex) == [0, -1, 2, 1])
        #expect(heads.pick(4, besides: parts[1])?.headIndex == 1)
        heads.remove(parts[0])
        heads.remove(parts[2])
        #expect(heads.pick(7, besides: parts[3]) == nil)
    }

    /// As if others had nearly all of it.
    private func borrow(_ proxy: ProxyFixture) -> [BufferPool.Slab] {
        proxy.onLoop { worker in
            var slabs: [BufferPool.Slab] = []
            var bytes = BufferPool.largestBytes
            while bytes >= 4096 {
                while worker.loop.pool.lentBytes + bytes <= Limits.partialHeadsShedAboveBytes,
                    let slab = worker.loop.pool.lend(atLeast: bytes)
                {
                    slabs.append(slab)
                }
                bytes /= 2
            }
            return slabs
        }
    }

    private func giveBack(_ slabs: [BufferPool.Slab], _ proxy: ProxyFixture) {
        proxy.onLoop { worker in for slab in slabs { worker.loop.pool.giveBack(slab) } }
    }

    @Test func `half a head goes where another begins`() throws {
        let upstream = try TestUpstream { _, socket in
            while let request = socket.readRequest() { socket.send(okay(request.path)) }
        }
        let proxy = try ProxyFixture(upstream)
        let slabs = borrow(proxy)
        #expect(proxy.onLoop { $0.loop.pool.lentBytes } == Limits.partialHeadsShedAboveBytes)
        let slow = proxy.client()
        slow.send("GET /slow HTTP/1.1\r\nHost: a\r\nX-A: b")
        #expect(
            eventually {
                proxy.onLoop { $0.loop.pool.lentBytes } > Limits.partialHeadsShedAboveBytes
            })
        let next = proxy.client()
        next.send("GET /next HTTP/1.1\r\nHost: a\r\nX-A: b")
        let refusal = try #require(slow.readResponse())
        #expect(refusal.status == 503 && refusal["weir-decision"] == "overloaded")
        #expect(refusal["connection"] == "close" && slow.readToEnd().isEmpty)
        next.send("\r\n\r\n")
        #expect(next.readResponse()?.text == "/next")
        giveBack(slabs, proxy)
        #expect(eventually { proxy.onLoop { $0.loop.pool.lentBytes } == 0 })
    }

    @Test func `half a block of HTTP2 goes, too`() throws {
        let proxy = try ProxyFixture([.loopback(port: 1)])
        let slabs = borrow(proxy)
        let slow = HTTP2Wire(to: proxy.server.address)
        slow.acknowledgesSettings = false
        // The head's frame does not end the block.
        slow.send(HTTP2Wire.Kind.headers, stream: 1, HTTP2Wire.block(HTTP2Wire.head()))
        #expect(
            eventually {
                proxy.onLoop { $0.loop.pool.lentBytes } > Limits.partialHeadsShedAboveBytes
            })
        let next = proxy.client()
        next.send("GET /next HTTP/1.1\r\nHost: a\r\nX-A: b")
        // ENHANCE_YOUR_CALM.
        #expect(slow.end() == 11)
        next.send("\r\n\r\n")
        #expect(next.readResponse()?.status == 502)
        giveBack(slabs, proxy)
        #expect(eventually { proxy.onLoop { $0.loop.pool.lentBytes } == 0 })
    }
}
