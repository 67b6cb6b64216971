import Glibc
import Synchronization
import Testing
import WeirCore

@testable import SidecarCore

@Suite struct FailureTests {
    private func short(_ change: (inout Timeouts) -> Void) -> Timeouts {
        var timeouts = Timeouts()
        change(&timeouts)
        return timeouts
    }

    // MARK: The upstream fails

    @Test(arguments: [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ])
    func anUpstreamThatDiesMidStreamCutsTheResponse(text: String) throws {
        let upstream = try TestUpstream { upstream, socket in
            _ = socket.readHead()
            socket.send(text)
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send(get("/"))
        let response = try #require(client.readResponse())
        #expect(response.status == 200 && !response.isWhole)
        let outcome = try #require(proxy.outcomes.waitForOne())
        #expect(outcome.kind == .upstreamFailed && outcome.reason == .upstreamError)
        #expect(outcome.upstreamTouched && outcome.responseBytes == 4)
    }

    @Test func nobodyListens() throws {
        let upstream = try TestUpstream { _ in nil }
        upstream.close()
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        for _ in 0..<2 {
            client.send(get("/"))
            let response = try #require(client.readResponse())
            #expect(response.status == 502 && response["weir-decision"] == "upstream_error")
            #expect(response["connection"] == nil)
        }
    }

    @Test func noEndpoint() throws {
        let proxy = try ProxyFixture([])
        let client = proxy.client()
        client.send(get("/"))
        #expect(client.readResponse()?.status == 503)
    }

    /// The upstream closes each connection after one answer, without saying so.
    @Test func aClosedIdleConnectionIsNotUsed() throws {
        let upstream = try TestUpstream { upstream, socket in
            guard let request = socket.readRequest() else { return }
            socket.send(okay(request.text))
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        for number in 0..<20 {
            client.send(post("/", "\(number)"))
            #expect(client.readResponse()?.text == "\(number)")
            // Before that, nobody can know.
            #expect(eventually { upstream.closed.count == number + 1 })
            // tidy: idle times of different lengths are the subject
            usleep(UInt32(number % 3) * 15_000)
        }
        #expect(upstream.connections.count == 20)
    }

    /// The upstream reads a second request on a connection and closes without an answer: repeated
    /// where that does no harm, and only there.
    @Test(arguments: [("GET", 200), ("POST", 502), ("DELETE", 200)])
    func aConnectionThatDiesUnderARequest(method: String, status: Int) throws {
        let upstream = try TestUpstream { upstream, socket in
            guard let first = socket.readRequest() else { return }
            upstream.requests.withLock { $0.append(first) }
            socket.send(okay("x"))
            guard let second = socket.readRequest() else { return }
            upstream.requests.withLock { $0.append(second) }
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send(get("/"))
        _ = client.readResponse()
        client.send("\(method) / HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(client.readResponse()?.status == status)
        #expect(upstream.requestCount == (status == 200 ? 3 : 2))
        #expect(proxy.outcomes.all.last?.replays == (status == 200 ? 1 : 0))
    }

    @Test func anEarlyAnswerReachesAClientThatStillSends() throws {
        let upstream = try TestUpstream { upstream, socket in
            _ = socket.readHead()
            socket.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nstop")
            _ = socket.readLine()
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbegin")
        let response = try #require(client.readResponse())
        #expect(response.status == 413 && response.text == "stop")
        #expect(response["connection"] == "close")
    }

    // MARK: Timeouts

    @Test func halfAHeadTimesOut() throws {
        let proxy = try ProxyFixture(
            [], timeouts: short { $0.headNanoseconds = 80_000_000 })
        let client = proxy.client()
        client.send("GET / HTTP/1.1\r\nHost:")
        #expect(client.readResponse()?.status == 408)
        #expect(client.isClosedByPeer())
    }

    @Test func silentConnectionsAreClosed() throws {
        let upstream = try TestUpstream { _ in okay("x") }
        let proxy = try ProxyFixture(
            [upstream.address],
            timeouts: short {
                $0.headNanoseconds = 80_000_000
                $0.keepAliveNanoseconds = 80_000_000
            })
        #expect(proxy.client().isClosedByPeer())
        let client = proxy.client()
        client.send(get("/"))
        #expect(client.readResponse()?.status == 200)
        #expect(client.isClosedByPeer())
    }

    @Test func halfABodyTimesOut() throws {
        let upstream = try TestUpstream { _ in okay("x") }
        let proxy = try ProxyFixture(
            upstream, timeouts: short { $0.bodyProgressNanoseconds = 80_000_000 })
        let client = proxy.client()
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        #expect(client.readResponse()?.status == 408)
        #expect(client.isClosedByPeer())
        #expect(upstream.requestCount == 0)
    }

    /// A byte now and then keeps no request alive, whatever its framing.
    @Test(arguments: [
        ("Content-Length: 100000", "x"), ("Transfer-Encoding: chunked", "1\r\nx\r\n"),
    ])
    func aBodyThatDripsTimesOut(framing: String, piece: String) throws {
        let upstream = try TestUpstream { _ in okay("x") }
        let proxy = try ProxyFixture(
            upstream, timeouts: short { $0.bodyProgressNanoseconds = 300_000_000 })
        let client = proxy.client()
        client.setTimeout(milliseconds: 20)
        client.send("POST / HTTP/1.1\r\nHost: a\r\n\(framing)\r\n\r\n")
        var pieces = 0
        var head: TestMessage?
        while head == nil, pieces < 200 {
            client.send(piece)
            pieces += 1
            head = client.readHead()
        }
        #expect(head?.status == 408)
        #expect(pieces > 3, "the first ones are waited for")
        #expect(upstream.requestCount == 0)
    }

    @Test func paceIsWhatKeepsABodyAlive() {
        var pace = BodyPace()
        pace.begin(patienceNanoseconds: 30_000_000_000, now: 0)
        #expect(pace.dueNanoseconds == 30_000_000_000)
        // 500 bytes buy a second, and nobody gets ahead of the patience.
        pace.received(500, now: 10_000_000_000)
        #expect(pace.dueNanoseconds == 31_000_000_000)
        pace.received(1 << 20, now: 12_000_000_000)
        #expect(pace.dueNanoseconds == 42_000_000_000)
        pace.pause(now: 20_000_000_000)
        pace.resume(now: 25_000_000_000)
        #expect(pace.dueNanoseconds == 47_000_000_000)
        pace.begin(patienceNanoseconds: .max, now: 5)
        pace.received(1, now: 6)
        #expect(pace.dueNanoseconds == .max)
    }

    @Test(arguments: [true, false])
    func anUpstreamThatDoesNotAnswer(byTotal: Bool) throws {
        let upstream = try TestUpstream { upstream, socket in
            _ = socket.readHead()
            _ = socket.readLine()
        }
        let proxy = try ProxyFixture(
            upstream,
            timeouts: short {
                if byTotal {
                    $0.totalNanoseconds = 80_000_000
                } else {
                    $0.firstByteNanoseconds = 80_000_000
                }
            })
        let client = proxy.client()
        client.send(get("/"))
        let response = try #require(client.readResponse())
        #expect(response.status == 504 && response["weir-decision"] == "deadline")
    }

    @Test func aStreamThatStallsIsCut() throws {
        let upstream = try TestUpstream { upstream, socket in
            _ = socket.readHead()
            socket.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
            _ = socket.readLine()
        }
        let proxy = try ProxyFixture(
            upstream, timeouts: short { $0.streamIdleNanoseconds = 80_000_000 })
        let client = proxy.client()
        client.send(get("/"))
        let response = try #require(client.readResponse())
        #expect(response.text == "a" && !response.isWhole)
        #expect(proxy.outcomes.waitForOne()?.reason == .deadline)
    }

    // MARK: The client goes away

    private final class Deciding: TestInterceptor {
        let decision: DisconnectDecision
        init(_ target: UpstreamTarget, _ outcomes: OutcomeLog, _ decision: DisconnectDecision) {
            self.decision = decision
            super.init(target: target, outcomes: outcomes)
        }
        override func clientDisconnected(_ exchange: Exchange) -> DisconnectDecision { decision }
    }

    @Test(arguments: [true, false])
    func disconnects(drains: Bool) throws {
        let arrived = Signal()
        let gone = Signal()
        let cancelled = Signal()
        let upstream = try TestUpstream { upstream, socket in
            _ = socket.readHead()
            arrived.set()
            if !drains {
                if socket.isClosedByPeer() { cancelled.set() }
                return
            }
            _ = gone.wait()
            let body = String(repeating: "x", count: 200_000)
            socket.send(okay(body))
            _ = socket.readLine()
        }
        let proxy = try ProxyFixture([upstream.address]) {
            Deciding($0, $1, drains ? .drain : .cancel)
        }
        let client = proxy.client()
        client.send(get("/"))
        #expect(arrived.wait())
        client.reset()
        if !drains { #expect(cancelled.wait()) }
        #expect(eventually { proxy.onLoop { $0.connectionCount } == 0 })
        gone.set()
        let outcome = try #require(proxy.outcomes.waitForOne())
        #expect(outcome.kind == .clientGone && outcome.responseIsWhole == drains)
        #expect(outcome.responseBytes == (drains ? 200_000 : 0))
    }

    // MARK: Draining

    @Test func drainLetsExchangesEnd() throws {
        let go = Signal()
        let arrived = Signal()
        let upstream = try TestUpstream { _ in
            arrived.set()
            _ = go.wait()
            return okay("done")
        }
        let proxy = try ProxyFixture(upstream)
        let idle = proxy.client()
        let busy = proxy.client()
        busy.send(get("/"))
        #expect(arrived.wait())
        let drained = Signal()
        proxy.server.drain { drained.set() }
        #expect(idle.isClosedByPeer())
        #expect(!drained.isSet)
        go.set()
        let response = try #require(busy.readResponse())
        #expect(response.text == "done" && response["connection"] == "close")
        #expect(busy.isClosedByPeer())
        #expect(drained.wait())
    }

    @Test func drainIsBounded() throws {
        let arrived = Signal()
        let upstream = try TestUpstream { upstream, socket in
            _ = socket.readHead()
            arrived.set()
            _ = socket.readLine()
        }
        let proxy = try ProxyFixture(
            upstream, timeouts: short { $0.drainNanoseconds = 80_000_000 })
        let client = proxy.client()
        client.send(get("/"))
        #expect(arrived.wait())
        let drained = Signal()
        proxy.server.drain { drained.set() }
        #expect(drained.wait())
        #expect(client.isClosedByPeer())
    }
}
