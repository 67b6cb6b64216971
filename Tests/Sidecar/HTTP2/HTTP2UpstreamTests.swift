import Glibc
import Synchronization
import Testing
import WeirCore

@testable import SidecarCore

/// HTTP/1.1 clients before upstreams that speak HTTP/2 with prior knowledge, frame by frame.
@Suite struct HTTP2UpstreamTests {
    private typealias Peer = HTTP2FramePeer

    private func proxy(
        _ upstream: TestUpstream, connections: Int = Limits.connectionsPerEndpoint,
        _ change: (inout Timeouts) -> Void = { _ in }
    ) throws -> ProxyFixture {
        var timeouts = Timeouts()
        change(&timeouts)
        return try ProxyFixture(
            [upstream.address], timeouts: timeouts, connectionsPerEndpoint: connections,
            wire: .http2)
    }

    // MARK: Messages

    @Test func aRequestAndItsAnswer() throws {
        let seen = Mutex<[Peer.Request]>([])
        let upstream = try TestUpstream.http2 { _, peer in
            while let request = peer.readRequest() {
                seen.withLock { $0.append(request) }
                peer.answer(request.stream, "[\(request.text)]")
            }
        }
        let proxy = try proxy(upstream)
        let client = proxy.client()
        client.send(
            post("/a?b=1", "body", "X-Mine: 1\r\nTE: trailers\r\nConnection: x-hop\r\nX-Hop: 2\r\n")
        )
        let response = try #require(client.readResponse())
        #expect(response.status == 200 && response.text == "[body]" && response["x-stream"] == "1")
        client.send(get("/second"))
        #expect(client.readResponse()?.text == "[]")
        let requests = seen.withLock { $0 }
        let first = try #require(requests.first)
        #expect(first[":method"] == "POST" && first[":path"] == "/a?b=1")
        #expect(first[":authority"] == "agent" && first[":scheme"] == "http")
        #expect(first["x-mine"] == "1" && first["te"] == "trailers" && first["x-hop"] == nil)
        #expect(first["content-length"] == "4" && first["via"] == "1.1 weir")
        #expect(first["host"] == nil && first["connection"] == nil)
        #expect(requests.map(\.stream) == [1, 3] && upstream.connections.count == 1)
    }

    @Test func bodiesWithoutALengthTrailersAndInformationalHeads() throws {
        let upstream = try TestUpstream.http2 { _, peer in
            guard let request = peer.readRequest() else { return }
            let sum = request.trailers.first { $0.0 == "x-sum" }?.1 ?? "-"
            peer.send(
                Peer.headers(1, [(":status", "103"), ("link", "</a>")]),
                Peer.headers(1, [(":status", "200"), ("trailer", "x-end")]),
                Peer.data(1, "sum "), Peer.data(1, sum),
                Peer.headers(
                    1, [("x-end", "yes"), ("weir-settlement", "forged")], ends: true))
        }
        let proxy = try proxy(upstream)
        let client = proxy.client()
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send("3\r\nabc\r\n0\r\nX-Sum: 5\r\n\r\n")
        let hints = try #require(client.readHead())
        #expect(hints.status == 103 && hints["link"] == "</a>")
        let response = try #require(client.readResponse())
        #expect(response.isWhole && response.text == "sum 5" && response.trailers == ["x-end: yes"])
    }

    @Test(arguments: [("HEAD", "200", "7"), ("GET", "204", nil), ("GET", "200", "0")])
    func answersWithoutABody(method: String, status: String, length: String?) throws {
        let upstream = try TestUpstream.http2 { _, peer in
            guard let request = peer.readRequest() else { return }
            var fields = [(":status", status)]
            if method == "HEAD" { fields.append(("content-length", "7")) }
            peer.send(Peer.headers(request.stream, fields, ends: true))
            _ = peer.read()
        }
        let proxy = try proxy(upstream)
        let client = proxy.client()
        client.send("\(method) / HTTP/1.1\r\nHost: a\r\n\r\n")
        let response = try #require(client.readResponse(method: method))
        #expect(response.status == Int(status) && response["content-length"] == length)
        #expect(response["transfer-encoding"] == nil)
    }

    /// A block that comes in pieces, with other connections' blocks between them.
    @Test func headsThatSpanReads() throws {
        let upstream = try TestUpstream.http2(settings: [(Peer.maxConcurrentStreams, 1)]) {
            _, peer in
            Socket.disableNagle(peer.socket.raw)
            let long = String(repeating: "v", count: 999)
            while let request = peer.readRequest() {
                let fields = [
                    (":status", "200"), ("x-path", request[":path"] ?? ""), ("x-long", long),
                ]
                for byte in Peer.headers(request.stream, fields, ends: true).bytes {
                    peer.socket.send([byte])
                }
            }
        }
        let proxy = try proxy(upstream)
        let clients = (0..<4).map { _ in proxy.client() }
        for (number, client) in clients.enumerated() { client.send(get("/\(number)")) }
        for (number, client) in clients.enumerated() {
            let response = try #require(client.readResponse())
            #expect(response["x-path"] == "/\(number)" && response["x-long"]?.count == 999)
        }
    }

    // MARK: Streams

    @Test func aHundredStreamsShareAConnection() throws {
        let upstream = try TestUpstream.http2 { _, peer in
            // Answered in the opposite order, when all are there.
            let requests = (0..<100).compactMap { _ in peer.readRequest() }
            for request in requests.reversed() {
                peer.answer(request.stream, request[":path"] ?? "")
            }
            _ = peer.read(.goAway)
        }
        let proxy = try proxy(upstream)
        let clients = (0..<100).map { _ in proxy.client() }
        for (number, client) in clients.enumerated() { client.send(get("/\(number)")) }
        for (number, client) in clients.enumerated() {
            #expect(client.readResponse()?.text == "/\(number)")
        }
        #expect(upstream.connections.count == 1)
    }

    @Test func aPeerThatTakesOneStreamGetsMoreConnectionsAndThenAQueue() throws {
        let upstream = try TestUpstream.http2(settings: [(Peer.maxConcurrentStreams, 1)]) {
            upstream, peer in
            while let request = peer.readRequest() {
                upstream.requests.withLock { $0.append(TestMessage(first: "")) }
                // All connections are busy before the first answers.
                _ = eventually { upstream.requestCount >= 3 }
                peer.answer(request.stream, "done")
            }
        }
        let proxy = try proxy(upstream, connections: 3)
        let clients = (0..<9).map { _ in proxy.client() }
        for client in clients { client.send(get("/")) }
        for client in clients { #expect(client.readResponse()?.text == "done") }
        #expect(upstream.connections.count == 3)
    }

    @Test func aClientThatLeavesCancelsItsStream() throws {
        let code = Mutex<[UInt8]>([])
        let upstream = try TestUpstream.http2 { _, peer in
            guard let first = peer.readRequest(), let second = peer.readRequest() else { return }
            peer.send(Peer.headers(first.stream, [(":status", "200")]))
            let reset = peer.read(.reset)
            code.withLock { $0 = reset?.payload ?? [] }
            peer.answer(second.stream, "lives")
            _ = peer.read()
        }
        let proxy = try ProxyFixture(
            [upstream.address], wire: .http2,
            make: { CancellingInterceptor(target: $0, outcomes: $1) })
        var leaver: TestSocket? = proxy.client()
        leaver?.send(get("/"))
        let client = proxy.client()
        client.send(get("/"))
        #expect(leaver?.readHead()?.status == 200)
        leaver = nil
        #expect(client.readResponse()?.text == "lives")
        // RFC 9113 §7: CANCEL.
        #expect(code.withLock { $0 } == [0, 0, 0, 8])
    }

    // MARK: Safe to repeat

    @Test func whatAGoAwayLeavesOutGoesElsewhere() throws {
        let upstream = try TestUpstream.http2 { upstream, peer in
            if upstream.connections.count == 1 {
                let requests = (0..<4).compactMap { _ in peer.readRequest() }
                peer.goAway(last: requests[1].stream)
                for request in requests[..<2] { peer.answer(request.stream, "first") }
                _ = peer.read()
            }
            while let request = peer.readRequest() { peer.answer(request.stream, request.text) }
        }
        let proxy = try proxy(upstream)
        let clients = (0..<4).map { _ in proxy.client() }
        for client in clients {
            client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.send("6\r\nsecond\r\n0\r\n\r\n")
        }
        let texts = clients.map { $0.readResponse()?.text }
        #expect(texts.filter { $0 == "first" }.count == 2)
        #expect(texts.filter { $0 == "second" }.count == 2)
        #expect(upstream.connections.count == 2)
    }

    /// REFUSED_STREAM says that nothing was done, so that a POST is repeated, too, from what was
    /// kept of its body; but not for ever.
    @Test(arguments: [(1, 200), (9, 502)])
    func refusedStreams(times: Int, status: Int) throws {
        let upstream = try TestUpstream.http2 { _, peer in
            var left = times
            while let request = peer.readHead() {
                if left > 0 {
                    left -= 1
                    peer.reset(request.stream, 7)
                    continue
                }
                // Bodies of those that were refused come, too.
                while let whole = peer.readRequest() {
                    guard whole.stream == request.stream else { continue }
                    peer.answer(whole.stream, whole.text)
                    break
                }
            }
        }
        let proxy = try proxy(upstream)
        let client = proxy.client()
        client.send(post("/", "once and again"))
        let response = try #require(client.readResponse())
        #expect(response.status == status)
        if status == 200 { #expect(response.text == "once and again") }
    }

    @Test(arguments: [("GET", 1), ("POST", 1)])
    func aResetBeforeTheAnswerIsNotRepeated(method: String, count: Int) throws {
        let upstream = try TestUpstream.http2 { upstream, peer in
            while let request = peer.readRequest() {
                upstream.requests.withLock { $0.append(TestMessage(first: "")) }
                peer.reset(request.stream, 2)
            }
        }
        let proxy = try proxy(upstream)
        let client = proxy.client()
        client.send("\(method) / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        #expect(client.readResponse()?.status == 502)
        #expect(upstream.requestCount == count)
        #expect(proxy.outcomes.waitForOne()?.upstreamFailure == .reset)
    }

    // MARK: Flow control

    @Test func aSlowUpstreamHoldsTheClientBack() throws {
        let go = Signal()
        let body = [UInt8](repeating: 120, count: 4 << 20)
        let upstream = try TestUpstream.http2 { _, peer in
            guard peer.readHead() != nil else { return }
            _ = go.wait()
            // The window of 64 KB has been used up and no more than that was sent.
            guard let request = peer.readRequest() else { return }
            peer.answer(request.stream, "\(request.body.count)")
            _ = peer.read()
        }
        let proxy = try proxy(upstream)
        let client = proxy.client()
        Thread {
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \(body.count)\r\n\r\n")
            client.send(body)
        }.start()
        let isFull = eventually {
            proxy.onLoop { $0.loop.pool.lentBytes } > Limits.streamQueueBytes
        }
        #expect(isFull)
        #expect(proxy.onLoop { $0.loop.pool.lentBytes } < 512 * 1024)
        go.set()
        #expect(client.readResponse()?.text == "\(body.count)")
    }

    @Test func aSlowClientHoldsItsStreamBackAndNoOther() throws {
        let total = 8 << 20
        let sent = Counter()
        let upstream = try TestUpstream.http2 { _, peer in
            guard let slow = peer.readRequest() else { return }
            peer.send(Peer.headers(slow.stream, [(":status", "200")]))
            var window = Int(Limits.upstreamStreamWindowBytes)
            var left = total
            var other: Int32?
            let piece = [UInt8](repeating: 121, count: 16_384)
            while left > 0 {
                while window >= piece.count, left > 0 {
                    left -= piece.count
                    window -= piece.count
                    sent.increment()
                    peer.send(
                        Peer.Frame(
                            .data, flags: left == 0 ? 1 : 0, stream: slow.stream, payload: piece))
                }
                guard let frame = peer.read() else { return }
                if frame.is(.windowUpdate), frame.stream == slow.stream {
                    window += frame.payload.reduce(0) { $0 << 8 | Int($1) }
                } else if frame.is(.headers) {
                    other = frame.stream
                    peer.answer(frame.stream, "other")
                }
            }
            #expect(other != nil)
            _ = peer.read()
        }
        let proxy = try proxy(upstream)
        let slow = proxy.client()
        slow.send(get("/slow"))
        // The sockets and one stream's window are full; then nothing moves.
        var before = -1
        let isStill = eventually {
            defer { before = sent.count }
            return sent.count > 4 && before == sent.count
        }
        #expect(isStill)
        #expect(proxy.onLoop { $0.loop.pool.lentBytes } < 512 * 1024)
        let other = proxy.client()
        other.send(get("/other"))
        #expect(other.readResponse()?.text == "other")
        #expect(slow.readResponse()?.body.count == total)
    }

    // MARK: Time

    @Test func anAnswerThatDoesNotBeginIsGivenUp() throws {
        let upstream = try TestUpstream.http2 { _, peer in
            _ = peer.readRequest()
            _ = peer.read(.reset)
            _ = peer.read()
        }
        let proxy = try proxy(upstream) { $0.firstByteNanoseconds = 50_000_000 }
        let client = proxy.client()
        client.send(get("/"))
        let response = try #require(client.readResponse())
        #expect(response.status == 504 && response["weir-decision"] == "deadline")
        #expect(proxy.outcomes.waitForOne()?.upstreamFailure == .firstByteTimeout)
    }

    @Test func somethingThatDoesNotGreetIsNoUpstream() throws {
        let upstream = try TestUpstream { _, socket in _ = socket.readToEnd() }
        let proxy = try proxy(upstream) { $0.connectNanoseconds = 50_000_000 }
        let clients = (0..<3).map { _ in proxy.client() }
        for client in clients { client.send(get("/")) }
        for client in clients { #expect(client.readResponse()?.status == 504) }
        #expect(upstream.connections.count == 1)
    }

    @Test func anIdleConnectionSaysGoodbye() throws {
        let saidGoodbye = Signal()
        let upstream = try TestUpstream.http2 { _, peer in
            guard let request = peer.readRequest() else { return }
            peer.answer(request.stream, "x")
            if peer.read(.goAway) != nil { saidGoodbye.set() }
        }
        let proxy = try proxy(upstream) { $0.http2IdleNanoseconds = 20_000_000 }
        let client = proxy.client()
        client.send(get("/"))
        #expect(client.readResponse()?.text == "x")
        #expect(saidGoodbye.wait())
    }

    // MARK: Hostile upstreams

    private static let hostile: [(String, [UInt8])] = {
        let head = Peer.headers(1, [(":status", "200")])
        func fields(_ fields: [(String, String)]) -> [UInt8] {
            Peer.headers(1, fields, ends: true).bytes
        }
        let long = String(repeating: "x", count: 8_000)
        return [
            ("HTTP/1.1", Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8)),
            ("data before the head", Peer.data(1, "x").bytes),
            ("a frame that is too long", [1, 0, 0, 0, 0, 0, 0, 0, 1]),
            ("a stream that nobody opened", Peer.headers(2, [(":status", "200")]).bytes),
            ("no status", fields([("x", "y")])),
            ("two statuses", fields([(":status", "200"), (":status", "200")])),
            ("a status of letters", fields([(":status", "abc")])),
            ("an upper-case name", fields([(":status", "200"), ("X-Up", "y")])),
            ("a line end in a value", fields([(":status", "200"), ("x", "y\r\nz: 1")])),
            ("a hop's field", fields([(":status", "200"), ("connection", "close")])),
            ("switching protocols", fields([(":status", "101")])),
            ("an unknown pseudo-field", fields([(":status", "200"), (":odd", "1")])),
            (
                "a head that is too long",
                fields([(":status", "200")] + (0..<5).map { ("x\($0)", long) })
            ),
            ("too many fields", fields([(":status", "200")] + (0..<200).map { ("x\($0)", "") })),
            (
                "a broken block",
                Peer.Frame(.headers, flags: 5, stream: 1, payload: [255, 255, 255]).bytes
            ),
            ("a length that is too small", fields([(":status", "200"), ("content-length", "5")])),
            ("a push", Peer.Frame(.pushPromise, flags: 4, stream: 1, payload: [0, 0, 0, 2]).bytes),
            (
                "a window that overflows",
                Peer.Frame(.windowUpdate, stream: 1, payload: [127, 255, 255, 255]).bytes
            ),
            (
                "a window that overflows for all",
                Peer.Frame(.windowUpdate, payload: [127, 255, 255, 255]).bytes
            ),
            ("an empty window update", Peer.Frame(.windowUpdate, payload: [0, 0, 0, 0]).bytes),
            ("a continuation of nothing", Peer.Frame(.continuation, flags: 4, stream: 1).bytes),
            (
                "pings without end",
                (0..<2_000).flatMap { _ in
                    Peer.Frame(.ping, payload: [UInt8](repeating: 1, count: 8)).bytes
                } + [1, 0, 0, 0, 0, 0, 0, 0, 1]
            ),
            (
                "settings that are wrong",
                Peer.Frame(.settings, payload: [0, 4, 255, 255, 255, 255]).bytes
            ),
            (
                "heads without end",
                (0..<20).flatMap { _ in Peer.headers(1, [(":status", "103")]).bytes }
            ),
            ("an end in mid-frame", Array(head.bytes.prefix(11))),
        ]
    }()

    @Test(arguments: hostile.indices)
    func hostileUpstreams(_ index: Int) throws {
        let (name, bytes) = Self.hostile[index]
        let upstream = try TestUpstream.http2 { _, peer in
            guard peer.readRequest() != nil else { return }
            peer.socket.send(bytes)
            peer.socket.finishWriting()
            _ = peer.socket.readToEnd()
        }
        let proxy = try proxy(upstream)
        let client = proxy.client()
        client.send(get("/"))
        var response = client.readResponse()
        while let head = response, head.status < 200 { response = client.readResponse() }
        #expect(response?.status == 502, "\(name)")
        let outcome = proxy.outcomes.waitForOne()
        #expect(outcome?.kind == .upstreamFailed, "\(name)")
        // It lives, and nothing is left behind.
        let isClean = eventually { proxy.onLoop { $0.loop.pool.lentBytes } == 0 }
        #expect(isClean, "\(name)")
    }

    /// What comes behind the head cannot be a refusal any more: the response is cut.
    @Test(arguments: [
        Peer.Frame(.reset, stream: 1, payload: [0, 0, 0, 2]).bytes,
        Peer.Frame(.reset, stream: 1, payload: [0, 0, 0, 0]).bytes,
        Peer.data(1, "longer than said", ends: true).bytes, Peer.data(1, "", ends: true).bytes,
        Peer.headers(1, [(":status", "200")], ends: true).bytes,
        Peer.headers(1, [("x", "no end")]).bytes, [1, 0, 0, 0, 0, 0, 0, 0, 1],
    ])
    func aBrokenBodyCutsTheResponse(_ bytes: [UInt8]) throws {
        let upstream = try TestUpstream.http2 { _, peer in
            guard peer.readRequest() != nil else { return }
            peer.send(Peer.headers(1, [(":status", "200"), ("content-length", "9")]))
            peer.send(Peer.data(1, "half"))
            peer.socket.send(bytes)
            _ = peer.socket.readToEnd()
        }
        let proxy = try proxy(upstream)
        let client = proxy.client()
        client.send(get("/"))
        let response = try #require(client.readResponse())
        #expect(response.status == 200 && !response.isWhole)
        #expect(proxy.outcomes.waitForOne()?.kind == .upstreamFailed)
    }
}

/// Cancels upstream when the client leaves.
private final class CancellingInterceptor: TestInterceptor {
    override func clientDisconnected(_ exchange: Exchange) -> DisconnectDecision { .cancel }
}
