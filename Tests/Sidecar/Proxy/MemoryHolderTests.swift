import Testing
import WeirCore

@testable import SidecarCore

/// Peers that do not do their part where the loop's memory runs short.
@Suite struct MemoryHolderTests {
    private final class Part: MemoryHolder {
        var holderIndex = -1
        func giveUp() {}
    }

    @Test func `each may be met, and is there once`() {
        var holders = MemoryHolders()
        #expect(holders.pick(0) == nil)
        let parts = (0..<4).map { _ in Part() }
        for part in parts { holders.insert(part) }
        holders.insert(parts[1])
        #expect((0..<4).map { holders.pick($0)?.holderIndex } == [0, 1, 2, 3])
        holders.remove(parts[1])
        holders.remove(parts[1])
        #expect(parts.map(\.holderIndex) == [0, -1, 2, 1])
        #expect(holders.pick(4) === parts[3])
        for part in parts { holders.remove(part) }
        #expect(holders.pick(7) == nil)
    }

    /// As if others had nearly all of it.
    private func borrow(_ proxy: ProxyFixture) -> [BufferPool.Slab] {
        proxy.onLoop { worker in
            var slabs: [BufferPool.Slab] = []
            var bytes = BufferPool.largestBytes
            while bytes >= 4096 {
                while worker.loop.pool.lentBytes + bytes <= Limits.relievedAboveBytes,
                    let slab = worker.loop.pool.lend(atLeast: bytes)
                {
                    slabs.append(slab)
                }
                bytes /= 2
            }
            if let last = worker.loop.pool.lend(atLeast: 1) { slabs.append(last) }
            return slabs
        }
    }

    private func giveBack(_ slabs: [BufferPool.Slab], _ proxy: ProxyFixture) {
        proxy.onLoop { worker in for slab in slabs { worker.loop.pool.giveBack(slab) } }
    }

    @Test func `half a head is refused`() throws {
        let upstream = try TestUpstream { _, socket in
            while let request = socket.readRequest() { socket.send(okay(request.path)) }
        }
        let proxy = try ProxyFixture(upstream)
        let slabs = borrow(proxy)
        let slow = proxy.client()
        slow.send("GET /slow HTTP/1.1\r\nHost: a\r\nX-A: b")
        let refusal = try #require(slow.readResponse())
        #expect(refusal.status == 503 && refusal["weir-decision"] == "overloaded")
        #expect(refusal["connection"] == "close" && slow.readToEnd().isEmpty)
        let whole = proxy.client()
        whole.send(get("/whole"))
        #expect(whole.readResponse()?.text == "/whole")
        giveBack(slabs, proxy)
        let late = proxy.client()
        late.send("GET /late HTTP/1.1\r\nHost: a")
        late.send("\r\n\r\n")
        #expect(late.readResponse()?.text == "/late")
        #expect(eventually { proxy.onLoop { $0.loop.pool.lentBytes } == 0 })
    }

    @Test func `half a block of HTTP2 ends its connection`() throws {
        let proxy = try ProxyFixture([.loopback(port: 1)])
        let slabs = borrow(proxy)
        let slow = HTTP2Wire(to: proxy.server.address)
        slow.acknowledgesSettings = false
        // The head's frame does not end the block.
        slow.send(HTTP2Wire.Kind.headers, stream: 1, HTTP2Wire.block(HTTP2Wire.head()))
        // ENHANCE_YOUR_CALM.
        #expect(slow.end() == 11)
        giveBack(slabs, proxy)
        #expect(eventually { proxy.onLoop { $0.loop.pool.lentBytes } == 0 })
    }

    private func large() throws -> TestUpstream {
        try TestUpstream { _, socket in
            while socket.readRequest() != nil {
                socket.send("HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n")
                for _ in 0..<200 {
                    guard socket.send([UInt8](repeating: 1, count: 100_000)) else { return }
                }
            }
        }
    }

    @Test func `an answer that nobody reads is cut`() throws {
        let proxy = try ProxyFixture(large())
        let slabs = borrow(proxy)
        let client = proxy.client()
        client.send(get("/"))
        #expect(eventually { !proxy.outcomes.all.isEmpty })
        #expect(proxy.outcomes.all.first?.kind == .clientGone)
        giveBack(slabs, proxy)
        #expect(eventually { proxy.onLoop { $0.loop.pool.lentBytes } == 0 })
    }

    @Test func `an answer before a closed window is reset, and no other stream`() throws {
        let upstream = try TestUpstream { _, socket in
            while let request = socket.readRequest() {
                socket.send(okay(String(repeating: "x", count: request.path == "/large" ? 9 : 0)))
            }
        }
        let proxy = try ProxyFixture(upstream)
        let slabs = borrow(proxy)
        // SETTINGS_INITIAL_WINDOW_SIZE.
        let wire = HTTP2Wire(to: proxy.server.address, settings: [(4, 0)])
        wire.get(1, "/large")
        #expect(wire.answer(1).reset == 11)
        wire.get(3, "/none")
        #expect(wire.answer(3).status == 200)
        giveBack(slabs, proxy)
        #expect(eventually { proxy.onLoop { $0.loop.pool.lentBytes } == 0 })
    }
}
