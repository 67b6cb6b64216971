import Glibc
import Synchronization
import Testing
import WeirCore

@testable import SidecarCore

/// Upgrades over real sockets: what passes, what does not, and how tunnels end.
@Suite struct TunnelTests {
    private static let upgrade = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    private static let agreed =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        + "Sec-WebSocket-Accept: abc\r\nweir-settlement: forged\r\n\r\n"

    /// A proxy and an upstream that agrees, and then does as it is told.
    private func tunnel(
        timeouts: Timeouts = Timeouts(),
        _ serve: @escaping @Sendable (TestSocket) -> Void
    ) throws -> (proxy: ProxyFixture, upstream: TestUpstream) {
        let upstream = try TestUpstream { upstream, socket in
            guard let request = socket.readHead() else { return }
            upstream.requests.withLock { $0.append(request) }
            socket.send(Self.agreed)
            serve(socket)
        }
        return (try ProxyFixture(upstream, timeouts: timeouts), upstream)
    }

    private func open(_ proxy: ProxyFixture) throws -> TestSocket {
        let client = proxy.client()
        client.send(get("/chat", Self.upgrade))
        let head = try #require(client.readHead())
        #expect(head.status == 101)
        return client
    }

    @Test func bytesPassBothWaysAndBothEndsEndTheTunnel() throws {
        let answer = Signal()
        let upstream = try TestUpstream { upstream, socket in
            guard let request = socket.readHead() else { return }
            upstream.requests.withLock { $0.append(request) }
            _ = answer.wait()
            socket.send(Self.agreed + "hello")
            guard let early = socket.read(5) else { return }
            socket.send(early)
            let rest = socket.readToEnd()
            socket.send(rest + Array("bye".utf8))
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        // What comes behind the head waits until the upstream has agreed.
        client.send(get("/chat", Self.upgrade + "Sec-WebSocket-Key: x\r\n") + "early")
        answer.set()
        let head = try #require(client.readHead())
        #expect(head.status == 101 && head["connection"] == "upgrade")
        #expect(head["upgrade"] == "websocket" && head["sec-websocket-accept"] == "abc")
        #expect(head["weir-settlement"] == nil && head["content-length"] == nil)
        #expect(head["transfer-encoding"] == nil)
        #expect(client.read(10) == Array("helloearly".utf8))
        client.send("late")
        client.finishWriting()
        #expect(client.readToEnd() == Array("latebye".utf8))
        #expect(client.isAtEnd)
        let seen = try #require(upstream.lastRequest)
        #expect(seen.all("connection") == ["upgrade"] && seen.all("upgrade") == ["websocket"])
        #expect(seen["sec-websocket-key"] == "x" && seen["keep-alive"] == nil)
        let outcome = try #require(proxy.outcomes.waitForOne())
        #expect(outcome.kind == .completed && outcome.status == 101 && outcome.responseIsWhole)
        #expect(outcome.requestBytes == 9 && outcome.responseBytes == 17)
        #expect(eventually { proxy.onLoop { $0.loop.pool.lentBytes } == 0 })
    }

    @Test func theUpstreamMayEndFirst() throws {
        let (proxy, _) = try tunnel { socket in
            socket.send("last words")
            socket.finishWriting()
            #expect(socket.readToEnd() == Array("understood".utf8))
        }
        let client = try open(proxy)
        #expect(client.readToEnd() == Array("last words".utf8) && client.isAtEnd)
        client.send("understood")
        #expect(proxy.outcomes.all.isEmpty)
        client.finishWriting()
        #expect(proxy.outcomes.waitForOne()?.kind == .completed)
    }

    /// An upgrade that does not happen is an ordinary answer, and the end of the connection: what
    /// the client sent in the hope of another protocol is no request.
    @Test(arguments: [200, 400, 426])
    func anotherAnswerPasses(status: Int) throws {
        let upstream = try TestUpstream { _ in
            "HTTP/1.1 \(status) Other\r\nContent-Length: 2\r\n\r\nno"
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send(get("/chat", Self.upgrade) + get("/smuggled"))
        let response = try #require(client.readResponse())
        #expect(response.status == status && response.text == "no")
        #expect(response["connection"] == "close")
        #expect(client.readToEnd().isEmpty && client.isAtEnd)
        #expect(upstream.requests.withLock { $0.map(\.path) } == ["/chat"])
    }

    @Test(arguments: [
        get("/", "Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"),
        get("/", "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n"),
        get("/", "Connection: upgrade\r\nUpgrade: TLS/1.2\r\n"),
        get("/", "Connection: upgrade\r\nUpgrade: HTTP/2.0\r\n"),
        get("/", "Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: echo\r\n"),
        get("/", "Connection: upgrade\r\nUpgrade: web socket\r\n"),
        get("/", "Connection: upgrade\r\nUpgrade:\r\n"), get("/", "Connection: upgrade\r\n"),
        get("/", "Upgrade: websocket\r\n"),
        "GET / HTTP/1.0\r\nHost: a\r\n\(upgrade)\r\n",
        post("/", "body", upgrade),
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\(upgrade)\r\n"
            + "1\r\nx\r\n0\r\n\r\n",
    ])
    func whatMayNotBeUpgradedGoesOnWithoutIt(text: String) throws {
        let upstream = try TestUpstream { _ in okay("plain") }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send(text)
        #expect(client.readResponse()?.text == "plain")
        let seen = try #require(upstream.lastRequest)
        #expect(seen["upgrade"] == nil && seen["connection"] == nil)
    }

    /// A 101 that was not asked for, for something else, or with a body is no answer.
    @Test(arguments: [
        "Connection: upgrade\r\nUpgrade: echo\r\n", "Upgrade: websocket\r\n",
        "Connection: upgrade\r\n", "Connection: upgrade\r\nUpgrade: websocket, echo\r\n",
        "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n",
    ])
    func aWrongAgreementIsAnError(fields: String) throws {
        let upstream = try TestUpstream { _ in
            "HTTP/1.1 101 Switching Protocols\r\n\(fields)\r\nbytes"
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send(get("/chat", Self.upgrade))
        let response = try #require(client.readResponse())
        #expect(response.status == 502 && response["upgrade"] == nil)
        #expect(proxy.outcomes.waitForOne()?.upstreamFailure == .protocolError)
    }

    @Test func aSilentTunnelEnds() throws {
        var timeouts = Timeouts()
        timeouts.streamIdleNanoseconds = 150_000_000
        let (proxy, _) = try tunnel(timeouts: timeouts) { socket in
            _ = socket.readToEnd()
            #expect(socket.isAtEnd)
        }
        let client = try open(proxy)
        #expect(client.isClosedByPeer())
        let outcome = try #require(proxy.outcomes.waitForOne())
        #expect(outcome.kind == .cutShort && outcome.reason == .deadline)
    }

    @Test func aTunnelHasTheTimeOfItsRequest() throws {
        var timeouts = Timeouts()
        timeouts.totalNanoseconds = 300_000_000
        let (proxy, _) = try tunnel(timeouts: timeouts) { socket in
            while socket.send("tick") {
                // tidy: the pace of the sender, which nothing else sets
                usleep(5_000)
            }
        }
        let client = try open(proxy)
        let bytes = client.readToEnd()
        #expect(bytes.starts(with: Array("ticktick".utf8)))
        let outcome = try #require(proxy.outcomes.waitForOne())
        #expect(outcome.kind == .cutShort && outcome.reason == .deadline)
    }

    @Test func aClientThatBreaksTakesTheUpstreamAlong() throws {
        let closed = Signal()
        let (proxy, _) = try tunnel { socket in
            _ = socket.readToEnd()
            closed.set()
        }
        let client = try open(proxy)
        client.reset()
        #expect(closed.wait())
        let outcome = try #require(proxy.outcomes.waitForOne())
        #expect(outcome.kind == .clientGone && !outcome.responseIsWhole)
        #expect(eventually { proxy.onLoop { _ in proxy.target.endpoints[0].openConnections } == 0 })
    }

    @Test func anUpstreamThatBreaksIsAFailure() throws {
        let (proxy, _) = try tunnel { socket in
            _ = socket.read(2)
            socket.reset()
        }
        let client = try open(proxy)
        client.send("go")
        _ = client.readToEnd()
        #expect(proxy.outcomes.waitForOne()?.upstreamFailure == .diedMidStream)
    }

    // MARK: Back-pressure

    private static let bytes = 24 << 20
    private static let heldMax = 512 << 10

    private func largestLoan(_ proxy: ProxyFixture, until condition: () -> Bool) -> Int {
        var largest = 0
        _ = eventually {
            largest = max(largest, proxy.onLoop { $0.loop.pool.lentBytes })
            return condition()
        }
        return largest
    }

    /// The reader begins when the sender can send no more; everything arrives, little is held.
    @Test(arguments: [true, false])
    func aSlowReaderSlowsTheSender(isUpstreamSlow: Bool) throws {
        let data = [UInt8](repeating: 7, count: Self.bytes)
        let (start, finished) = (Signal(), Signal())
        let (proxy, _) = try tunnel { socket in
            if isUpstreamSlow {
                _ = start.wait()
                if socket.read(Self.bytes) == data { socket.send("all") }
            } else {
                socket.send(data)
            }
            finished.set()
        }
        let client = try open(proxy)
        if isUpstreamSlow { Thread { client.send(data) }.start() }
        // As long as nobody reads, what is under way stops growing.
        var (last, isStill) = (UInt64.max, 0)
        let held = largestLoan(proxy) {
            let lent = UInt64(proxy.onLoop { $0.loop.pool.lentBytes })
            isStill = lent == last && lent > 0 ? isStill + 1 : 0
            last = lent
            return isStill > 20
        }
        #expect(held > 0 && held < Self.heldMax, "\(held) bytes were held")
        start.set()
        if isUpstreamSlow {
            #expect(client.read(3) == Array("all".utf8))
        } else {
            #expect(client.read(Self.bytes) == data)
        }
        #expect(finished.wait())
        client.finishWriting()
        let outcome = try #require(proxy.outcomes.waitForOne())
        let seen = isUpstreamSlow ? outcome.requestBytes : outcome.responseBytes
        #expect(outcome.kind == .completed && seen == UInt64(Self.bytes))
    }
}

/// Events of a stream leave when they come: none waits for the next.
@Suite struct EventStreamForwardingTests {
    private static let event = "data: {\"delta\": \"word\"}\n\n"

    @Test(arguments: ["chunked", "close"])
    func eachEventLeavesAtOnce(framing: String) throws {
        let taken = (0..<20).map { _ in Signal() }
        let upstream = try TestUpstream { _, socket in
            guard socket.readHead() != nil else { return }
            let fields = framing == "chunked" ? "Transfer-Encoding: chunked\r\n" : ""
            socket.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\(fields)\r\n")
            for signal in taken {
                let size = String(Self.event.utf8.count, radix: 16)
                socket.send(framing == "chunked" ? "\(size)\r\n\(Self.event)\r\n" : Self.event)
                // The next comes only when the client has this one.
                guard signal.wait() else { return }
            }
            if framing == "chunked" { socket.send("0\r\n\r\n") }
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send(get("/stream"))
        let head = try #require(client.readHead())
        #expect(head["transfer-encoding"] == "chunked")
        for signal in taken {
            let size = try #require(client.readLine().flatMap { Int($0, radix: 16) })
            #expect(client.read(size) == Array(Self.event.utf8))
            #expect(client.readLine() == "")
            signal.set()
        }
        #expect(client.readLine() == "0" && client.readLine() == "")
        #expect(proxy.outcomes.waitForOne()?.kind == .completed)
    }
}
