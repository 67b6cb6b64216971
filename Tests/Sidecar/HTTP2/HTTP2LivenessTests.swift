import Synchronization
import Testing
import WeirCore

@testable import SidecarCore

/// Peers that are silent while streams are open.
@Suite struct HTTP2LivenessTests {
    private typealias Kind = HTTP2Wire.Kind

    @Test func `silence is asked once and then given up`() {
        var liveness = HTTP2Liveness(silence: 100, patience: 50, now: 1_000)
        #expect(liveness.step(now: 1_000) == .wait(100))
        #expect(liveness.step(now: 1_099) == .wait(1))
        #expect(liveness.step(now: 1_100) == .ping(50))
        #expect(liveness.step(now: 1_149) == .wait(1))
        #expect(liveness.step(now: 1_150) == .giveUp)
    }

    @Test func `whatever comes is a sign of life`() {
        var liveness = HTTP2Liveness(silence: 100, patience: 50, now: 0)
        #expect(liveness.step(now: 100) == .ping(50))
        liveness.heard(now: 120)
        #expect(liveness.step(now: 150) == .wait(70))
        #expect(liveness.step(now: 220) == .ping(50))
    }

    /// Servers of gRPC count PINGs between which nothing else happens.
    @Test func `pings without traffic between them are rare`() {
        var liveness = HTTP2Liveness(silence: 100, patience: 50, lonePause: 5_000, now: 0)
        #expect(liveness.step(now: 100) == .ping(50))
        liveness.heard(now: 110)
        #expect(liveness.step(now: 300) == .wait(4_800))
        liveness.heard(now: 400)
        liveness.frameCame()
        #expect(liveness.step(now: 500) == .ping(50))
    }

    // MARK: Clients

    private final class Cancelling: TestInterceptor {
        override func clientDisconnected(_ exchange: Exchange) -> DisconnectDecision { .cancel }
    }

    private func waitingClient(
        silence: UInt64, patience: UInt64
    ) throws -> (proxy: ProxyFixture, wire: HTTP2Wire, release: Signal) {
        let release = Signal()
        let upstream = try TestUpstream { _, socket in
            guard socket.readHead() != nil, release.wait() else { return }
            socket.send(okay("late"))
        }
        var timeouts = Timeouts()
        timeouts.clientSilenceNanoseconds = silence
        timeouts.clientPongNanoseconds = patience
        timeouts.drainRoundTripNanoseconds = 60_000_000_000
        let proxy = try ProxyFixture([upstream.address], timeouts: timeouts) {
            Cancelling(target: $0, outcomes: $1)
        }
        let wire = HTTP2Wire(to: proxy.server.address)
        wire.acknowledgesPings = false
        wire.get(1, "/")
        return (proxy, wire, release)
    }

    @Test func `a client that is gone is noticed and its request cancelled`() throws {
        let (proxy, wire, release) = try waitingClient(silence: 50_000_000, patience: 50_000_000)
        defer { release.set() }
        var asked = 0
        while let frame = wire.next() { asked += frame.type == Kind.ping ? 1 : 0 }
        #expect(wire.isOver && asked == 1)
        #expect(proxy.outcomes.waitForOne()?.kind == .clientGone)
        #expect(eventually { proxy.onLoop { $0.connectionCount } == 0 })
    }

    @Test func `a client that answers may wait for long`() throws {
        let (proxy, wire, release) = try waitingClient(
            silence: 20_000_000, patience: 60_000_000_000)
        wire.acknowledgesPings = true
        var asked = 0
        while asked < 5, let frame = wire.next() { asked += frame.type == Kind.ping ? 1 : 0 }
        #expect(asked == 5 && proxy.outcomes.all.isEmpty)
        release.set()
        #expect(wire.answer(1).text == "late")
    }

    /// The PING that tells when a notice was read is another one.
    @Test func `an answer to a question about life does not end a drain`() throws {
        let (proxy, wire, release) = try waitingClient(
            silence: 50_000_000, patience: 60_000_000_000)
        var question: HTTP2Wire.Frame?
        while question == nil, let frame = wire.next() {
            if frame.type == Kind.ping { question = frame }
        }
        proxy.server.drain {}
        #expect(wire.read { $0.goAways.count == 1 })
        wire.send(Kind.ping, flags: 1, try #require(question).payload)
        // Still served: the last stream is not named yet.
        wire.get(3, "/")
        #expect(eventually { proxy.onLoop { $0.exchangesBegun } == 2 })
        release.set()
        #expect(wire.answer(3).text == "late")
        #expect(wire.goAways.count == 1)
        proxy.stop()
    }

    /// The time for its settings is over when they came, also where they came with a request.
    @Test func `an answer may take longer than a client's settings`() throws {
        let release = Signal()
        let upstream = try TestUpstream { _, socket in
            guard socket.readHead() != nil, release.wait() else { return }
            socket.send(okay("late"))
        }
        var timeouts = Timeouts()
        timeouts.headNanoseconds = 1_500_000_000
        let proxy = try ProxyFixture(upstream, timeouts: timeouts)
        let wire = HTTP2Wire(to: proxy.server.address, begins: false)
        wire.socket.send(
            HTTP2Wire.preface + HTTP2Wire.frame(Kind.settings, [])
                + HTTP2Wire.frame(
                    Kind.headers, flags: HTTP2Wire.endStream | HTTP2Wire.endHeaders, stream: 1,
                    HTTP2Wire.block(HTTP2Wire.head())))
        let isOver = Signal()
        _ = proxy.onLoop { $0.loop.schedule(afterNanoseconds: 2_000_000_000) { isOver.set() } }
        #expect(isOver.wait())
        release.set()
        #expect(wire.answer(1).text == "late")
    }

    // MARK: Upstreams

    @Test(arguments: [true, false])
    func `an upstream that is silent`(answersPings: Bool) throws {
        let pings = Mutex(0)
        let upstream = try TestUpstream.http2 { _, peer in
            guard let request = peer.readRequest() else { return }
            if answersPings {
                _ = peer.read(.ping)
                pings.withLock { $0 += 1 }
                peer.answer(request.stream, "late")
                _ = peer.read()
            } else {
                _ = peer.socket.readToEnd()
            }
        }
        var timeouts = Timeouts()
        timeouts.upstreamSilenceNanoseconds = 50_000_000
        timeouts.upstreamPongNanoseconds = answersPings ? 60_000_000_000 : 50_000_000
        let proxy = try ProxyFixture([upstream.address], timeouts: timeouts, wire: .http2)
        let client = proxy.client()
        client.send(post("/", "body"))
        let response = try #require(client.readResponse())
        #expect(response.status == (answersPings ? 200 : 502))
        #expect(pings.withLock { $0 } == (answersPings ? 1 : 0))
    }

    // MARK: Bodies

    /// A byte now and then keeps no place at the agent; the connection lives on.
    @Test func `a body that dribbles is refused`() throws {
        let upstream = try TestUpstream { _, socket in
            while let request = socket.readRequest() { socket.send(okay(request.path)) }
        }
        var timeouts = Timeouts()
        timeouts.bodyProgressNanoseconds = 100_000_000
        let proxy = try ProxyFixture(upstream, timeouts: timeouts)
        let wire = HTTP2Wire(to: proxy.server.address)
        wire.request(1, HTTP2Wire.head("POST"), ends: false)
        wire.socket.setTimeout(milliseconds: 10)
        var pieces = 0
        while wire.answers[1]?.status == nil, pieces < 500 {
            wire.data(1, [1], ends: false)
            pieces += 1
            wire.next()
        }
        wire.socket.setTimeout(milliseconds: 8000)
        #expect(wire.answers[1]?.status == 408)
        wire.get(3, "/other")
        #expect(wire.answer(3).text == "/other")
    }
}
