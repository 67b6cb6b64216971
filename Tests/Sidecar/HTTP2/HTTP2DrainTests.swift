import Testing
import WeirCore

@testable import SidecarCore

/// The end of connections that have done nothing wrong, and slow peers.
@Suite struct HTTP2DrainTests {
    private typealias Kind = HTTP2Wire.Kind

    /// The notice first; what was on its way is served; the last stream is named behind our PING.
    @Test func `a drain loses no request`() throws {
        let release = Signal()
        let upstream = try TestUpstream { _, socket in
            while let request = socket.readRequest() {
                if request.path == "/slow" { _ = release.wait() }
                socket.send(okay(request.path))
            }
        }
        let proxy = try ProxyFixture(upstream)
        let wire = HTTP2Wire(to: proxy.server.address)
        wire.acknowledgesPings = false
        wire.get(1, "/slow")
        #expect(eventually { proxy.onLoop { $0.exchangesBegun } == 1 })
        let isDrained = Signal()
        proxy.server.drain { isDrained.set() }
        var ping: HTTP2Wire.Frame?
        while ping == nil, let frame = wire.next() { if frame.type == Kind.ping { ping = frame } }
        #expect(wire.goAways.map(\.last) == [0x7FFF_FFFF])
        // Sent before the client could know.
        wire.get(3, "/late")
        wire.send(Kind.ping, flags: 1, ping?.payload ?? [])
        #expect(wire.read { $0.goAways.count == 2 })
        #expect(wire.goAways.last?.last == 3 && wire.goAways.last?.code == 0)
        // Above the last stream: not served, and the client knows.
        wire.get(5, "/refused")
        #expect(wire.answer(3).text == "/late")
        #expect(!isDrained.isSet)
        release.set()
        #expect(wire.answer(1).text == "/slow")
        #expect(wire.end() == 0)
        #expect(wire.answers[5] == nil)
        #expect(isDrained.wait())
        #expect(proxy.outcomes.all.count == 2)
    }

    @Test func `what does not end in the time of a drain is cut`() throws {
        var timeouts = Timeouts()
        timeouts.drainNanoseconds = 200_000_000
        let upstream = try TestUpstream { _, socket in _ = socket.readToEnd() }
        final class Cancelling: TestInterceptor {
            override func clientDisconnected(_ exchange: Exchange) -> DisconnectDecision { .cancel }
        }
        let proxy = try ProxyFixture([upstream.address], timeouts: timeouts) {
            Cancelling(target: $0, outcomes: $1)
        }
        let wire = HTTP2Wire(to: proxy.server.address)
        wire.get(1, "/")
        #expect(eventually { proxy.onLoop { $0.exchangesBegun } == 1 })
        let isDrained = Signal()
        proxy.server.drain { isDrained.set() }
        #expect(isDrained.wait())
        #expect(proxy.outcomes.waitForOne()?.kind == .clientGone)
    }

    /// The client's window does not open while the upstream takes nothing.
    @Test func `a slow upstream slows the client's body`() throws {
        let release = Signal()
        let size = 24_000_000
        let upstream = try TestUpstream { _, socket in
            guard var request = socket.readHead(), release.wait() else { return }
            request.body = socket.read(size) ?? []
            socket.send(okay("\(request.body.count)"))
        }
        let proxy = try ProxyFixture(upstream)
        let wire = HTTP2Wire(to: proxy.server.address)
        wire.request(1, HTTP2Wire.head("POST", "/", [("content-length", "\(size)")]), ends: false)
        wire.socket.setTimeout(milliseconds: 300)
        var sent = 0
        func room() -> Int {
            min(
                65_535 + (wire.windowUpdates[0] ?? 0), 131_072 + (wire.windowUpdates[1] ?? 0))
                - sent
        }
        func sendAll() {
            while sent < size {
                let count = min(room(), 16_384, size - sent)
                if count > 0 {
                    wire.data(1, [UInt8](repeating: 1, count: count), ends: sent + count == size)
                    sent += count
                } else if wire.next() == nil {
                    return
                }
            }
        }
        sendAll()
        // The kernel's buffers, one read of ours, and a window: not the whole.
        #expect(sent < size)
        #expect(proxy.onLoop { $0.loop.pool.lentBytes } < 1_000_000)
        release.set()
        wire.socket.setTimeout(milliseconds: 8000)
        sendAll()
        #expect(wire.answer(1).text == "\(size)")
    }

    /// Nobody takes the body, so the window is all that may come.
    @Test func `more than the window`() throws {
        final class Waiting: TestInterceptor {
            override func requestBegan(_ exchange: Exchange) -> Verdict { .wait }
        }
        let proxy = try ProxyFixture([.loopback(port: 1)]) { Waiting(target: $0, outcomes: $1) }
        let wire = HTTP2Wire(to: proxy.server.address)
        wire.request(1, HTTP2Wire.head("POST"), ends: false)
        #expect(wire.read { $0.windowUpdates[0] != nil })
        for _ in 0..<8 { wire.data(1, [UInt8](repeating: 1, count: 16_384), ends: false) }
        wire.send(Kind.ping, [UInt8](repeating: 0, count: 8))
        #expect(wire.read { !$0.pongs.isEmpty }, "a whole window is fine")
        #expect(proxy.onLoop { $0.loop.pool.lentBytes } < 400_000)
        wire.data(1, [1], ends: false)
        #expect(wire.read { $0.answers[1]?.reset == 3 || $0.goAways.last?.code == 3 })
        #expect(proxy.outcomes.waitForOne()?.kind == .clientGone)
        #expect(eventually { proxy.onLoop { $0.loop.pool.lentBytes } == 0 })
    }

    @Test func `local answers and streams of events`() throws {
        final class Local: TestInterceptor {
            override func requestBegan(_ exchange: Exchange) -> Verdict {
                .local(
                    LocalHandler { request in
                        guard request.path == "/events" else {
                            return LocalResponse(
                                status: 200, contentType: "text/plain", request.body)
                        }
                        return LocalResponse(
                            status: 200,
                            body: .stream { writer in
                                for index in 0..<3 {
                                    try await writer.write(Array("\(index);".utf8))
                                }
                                writer.addTrailer("weir-cost-usd", "0.1")
                            }, trailerNames: "weir-cost-usd")
                    })
            }
        }
        let proxy = try ProxyFixture([.loopback(port: 1)]) { Local(target: $0, outcomes: $1) }
        let wire = HTTP2Wire(to: proxy.server.address)
        wire.request(
            1, HTTP2Wire.head("POST", "/echo", [("expect", "100-continue")]), ends: false)
        #expect(wire.read { $0.answers[1]?.informational == [100] })
        wire.data(1, Array("hello".utf8))
        #expect(wire.answer(1).text == "hello")
        wire.get(3, "/events")
        let events = wire.answer(3)
        #expect(events.text == "0;1;2;" && events.trailers.map(\.1) == ["0.1"])
    }

    /// An answer that needs no more of the body: the rest is thrown away, then stopped.
    @Test func `a refusal before the end of the body`() throws {
        let proxy = try ProxyFixture([.loopback(port: 1)]) { target, outcomes in
            RefusingInterceptor(target: target, outcomes: outcomes)
        }
        let wire = HTTP2Wire(to: proxy.server.address)
        wire.request(1, HTTP2Wire.head("POST", "/"), ends: false)
        #expect(wire.answer(1).status == 429)
        wire.data(1, [1, 2, 3])
        wire.request(3, HTTP2Wire.head("POST", "/"), ends: false)
        #expect(wire.read { $0.answers[3]?.isWhole == true })
        for _ in 0..<3 { wire.data(3, [UInt8](repeating: 0, count: 16_000), ends: false) }
        #expect(wire.answers[1]?.reset == nil)
        // A client that waits to be told to continue is told to stop.
        wire.request(5, HTTP2Wire.head("POST", "/", [("expect", "100-continue")]), ends: false)
        #expect(wire.read { $0.answers[5]?.reset == 0 })
        #expect(wire.answers[5]?.status == 429)
    }
}

private final class RefusingInterceptor: TestInterceptor {
    override func requestBegan(_ exchange: Exchange) -> Verdict {
        .refuse(Refusal(.rateLimited, retryAfterSeconds: 1))
    }
}
