import Testing

@testable import SidecarCore

/// Floods: the one who sends them hears ENHANCE_YOUR_CALM (11), and an honest client beside him is
/// served all the time.
@Suite struct HTTP2AttackTests {
    private typealias Kind = HTTP2Wire.Kind
    private static let calm: UInt32 = 11

    private func attack(
        settings: [(UInt16, UInt32)] = [], _ send: (HTTP2Wire) -> Void
    ) throws -> UInt32? {
        let upstream = try TestUpstream { _ in okay("fine") }
        let proxy = try ProxyFixture(upstream)
        let honest = HTTP2Wire(to: proxy.server.address)
        honest.get(1, "/before")
        #expect(honest.answer(1).text == "fine")
        let attacker = HTTP2Wire(to: proxy.server.address, settings: settings)
        send(attacker)
        let code = attacker.end()
        honest.get(3, "/after")
        #expect(honest.answer(3).text == "fine")
        #expect(eventually { proxy.onLoop { $0.connectionCount } == 1 })
        let lent = eventually { proxy.onLoop { $0.loop.pool.lentBytes } == 0 }
        #expect(lent, "everything that was lent came back")
        return code
    }

    @Test func `rapid reset`() throws {
        let code = try attack { wire in
            for index in 0..<2000 {
                let stream = UInt32(2 * index + 1)
                let isSent =
                    wire.request(stream, HTTP2Wire.head(), ends: false)
                    && wire.send(Kind.reset, stream: stream, HTTP2Wire.four(8))
                if !isSent { return }
            }
        }
        #expect(code == Self.calm)
    }

    /// The streams are reset by us, for errors that the client makes.
    @Test func `resets that we are made to send`() throws {
        let code = try attack { wire in
            for index in 0..<2000 {
                let stream = UInt32(2 * index + 1)
                let isSent =
                    wire.request(stream, HTTP2Wire.head("POST"), ends: false)
                    && wire.send(
                        Kind.headers, flags: 4, stream: stream, HTTP2Wire.block([("a", "b")]))
                if !isSent { return }
            }
        }
        #expect(code == Self.calm)
    }

    @Test func `a flood of continuations`() throws {
        let code = try attack { wire in
            wire.send(Kind.headers, stream: 1, [0x82])
            for _ in 0..<50 where !wire.send(Kind.continuation, stream: 1, []) { return }
        }
        #expect(code == Self.calm)
    }

    private static let useless: [(type: UInt8, payload: [UInt8])] = [
        (Kind.ping, [UInt8](repeating: 0, count: 8)), (Kind.settings, []),
    ]

    @Test(arguments: useless)
    func `a flood of frames without use`(_ type: UInt8, _ payload: [UInt8]) throws {
        let code = try attack { wire in
            let many = Array(repeating: HTTP2Wire.frame(type, payload), count: 100).flatMap { $0 }
            for _ in 0..<100 where !wire.socket.send(many) { return }
        }
        #expect(code == Self.calm)
    }

    @Test func `a flood of priorities and of window updates`() throws {
        for (type, payload): (UInt8, [UInt8]) in [(2, [0, 0, 0, 0, 1]), (8, [0, 0, 0, 1])] {
            let code = try attack { wire in
                wire.request(1, HTTP2Wire.head("POST"), ends: false)
                let many = Array(repeating: HTTP2Wire.frame(type, stream: 1, payload), count: 100)
                for _ in 0..<100 where !wire.socket.send(many.flatMap { $0 }) { return }
            }
            #expect(code == Self.calm)
        }
    }

    @Test func `a flood of empty data`() throws {
        let code = try attack { wire in
            wire.request(1, HTTP2Wire.head("POST"), ends: false)
            for _ in 0..<3000 where !wire.send(Kind.data, stream: 1, []) { return }
        }
        #expect(code == Self.calm)
    }

    /// One entry of 4 KB in the table, named by a byte each time.
    @Test func `a bomb of compression`() throws {
        let code = try attack { wire in
            let value = [UInt8](repeating: 120, count: 4000)
            // Literal with indexing: the name `a`, a value of 4,000 bytes (127 + 3873).
            let entry: [UInt8] = [0x40, 1, 97, 0x7F, 0xA1, 0x1E] + value
            let bomb = [UInt8](repeating: 0xBE, count: 8000)
            wire.send(
                Kind.headers, flags: 5, stream: 1,
                HTTP2Wire.block(HTTP2Wire.head()) + entry + bomb)
        }
        #expect(code == Self.calm)
    }

    /// Answers are ordered and never taken: memory stays bounded, and the stream ends in time.
    @Test func `a window that never opens`() throws {
        var timeouts = Timeouts()
        timeouts.bodyProgressNanoseconds = 300_000_000
        let upstream = try TestUpstream { _ in okay(String(repeating: "x", count: 4_000_000)) }
        let proxy = try ProxyFixture(upstream, timeouts: timeouts)
        let wire = HTTP2Wire(to: proxy.server.address, settings: [(4, 0)])
        for index in 0..<20 { wire.get(UInt32(2 * index + 1), "/") }
        #expect(wire.read { $0.answers.count == 20 })
        let lent = proxy.onLoop { $0.loop.pool.lentBytes }
        #expect(lent < 20 * 3 * Limits.readBytes + 1_000_000)
        for index in 0..<20 {
            let answer = wire.answer(UInt32(2 * index + 1))
            #expect(answer.status == 200 && answer.reset == 8 && answer.body.isEmpty)
        }
        #expect(eventually { proxy.onLoop { $0.loop.pool.lentBytes } == 0 })
        #expect(eventually { proxy.outcomes.all.count == 20 })
    }

    @Test func `a client that is silent, or stops in the middle of a head`() throws {
        var timeouts = Timeouts()
        timeouts.headNanoseconds = 200_000_000
        timeouts.keepAliveNanoseconds = 200_000_000
        let proxy = try ProxyFixture([.loopback(port: 1)], timeouts: timeouts)
        let mute = HTTP2Wire(to: proxy.server.address, begins: false)
        mute.acknowledgesSettings = false
        mute.socket.send(HTTP2Wire.preface)
        #expect(mute.end() == nil)
        let half = HTTP2Wire(to: proxy.server.address)
        half.acknowledgesSettings = false
        half.send(Kind.headers, stream: 1, [0x82])
        #expect(half.end() == Self.calm)
        // An idle connection is said goodbye to.
        let idle = HTTP2Wire(to: proxy.server.address)
        #expect(idle.end() == 0)
    }

    @Test func `a body that stops`() throws {
        var timeouts = Timeouts()
        timeouts.bodyProgressNanoseconds = 200_000_000
        let upstream = try TestUpstream { _ in okay("fine") }
        let proxy = try ProxyFixture(upstream, timeouts: timeouts)
        let wire = HTTP2Wire(to: proxy.server.address)
        wire.request(1, HTTP2Wire.head("POST", "/", [("content-length", "10")]), ends: false)
        wire.data(1, [1], ends: false)
        #expect(wire.answer(1).status == 408)
        wire.get(3, "/")
        #expect(wire.answer(3).text == "fine")
    }

    /// Answers that nobody reads: the socket is full, and the time for it passes.
    @Test func `output that nobody takes`() throws {
        var timeouts = Timeouts()
        timeouts.bodyProgressNanoseconds = 500_000_000
        let upstream = try TestUpstream { _ in okay(String(repeating: "x", count: 1_000_000)) }
        let proxy = try ProxyFixture(upstream, timeouts: timeouts)
        let wire = HTTP2Wire(to: proxy.server.address, settings: [(4, 0x7FFF_FFFF)])
        wire.openWindow(0, 0x7000_0000)
        for index in 0..<100 { wire.get(UInt32(2 * index + 1), "/") }
        let ping = HTTP2Wire.frame(6, [UInt8](repeating: 0, count: 8))
        wire.socket.send(Array(repeating: ping, count: 200).flatMap { $0 })
        var largest = 0
        let isCut = eventually {
            largest = max(largest, proxy.onLoop { $0.loop.pool.lentBytes })
            return proxy.onLoop { $0.connectionCount } == 0
        }
        #expect(isCut && largest < 100 * 3 * Limits.readBytes)
        #expect(eventually { proxy.onLoop { $0.loop.pool.lentBytes } == 0 })
    }
}
