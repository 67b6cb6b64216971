import Synchronization
import Testing

@testable import SidecarCore

/// HTTP/2 from clients with prior knowledge, through the proxy to an HTTP/1.1 upstream.
@Suite struct HTTP2ServerTests {
    private func echo() throws -> TestUpstream {
        try TestUpstream { request in okay("\(request.first)|\(request.text)", "X-Case: Kept\r\n") }
    }

    @Test func `a request and its answer`() throws {
        let upstream = try echo()
        let proxy = try ProxyFixture(upstream)
        let wire = HTTP2Wire(to: proxy.server.address)
        wire.request(
            1,
            HTTP2Wire.head("GET", "/a?b", [("accept", "x"), ("cookie", "a=1"), ("cookie", "b=2")]))
        let answer = wire.answer(1)
        #expect(answer.status == 200 && answer.isWhole)
        #expect(answer.text == "GET /a?b HTTP/1.1|")
        #expect(answer["x-case"] == "Kept")
        #expect(answer["via"] == "1.1 weir")
        #expect(answer["content-length"] == "\(answer.body.count)")
        #expect(answer["date"]?.hasSuffix("GMT") == true)
        #expect(answer["weir-request-id"]?.hasPrefix("req_") == true)
        #expect(answer["connection"] == nil)
        let request = try #require(upstream.lastRequest)
        #expect(request["host"] == "agent" && request["via"] == "2 weir")
        #expect(request["cookie"] == "a=1; b=2" && request["x-forwarded-proto"] == "http")
        #expect(request.all("host").count == 1)
    }

    @Test func `the preface may come byte by byte`() throws {
        let proxy = try ProxyFixture(try echo())
        let wire = HTTP2Wire(to: proxy.server.address, begins: false)
        for byte in HTTP2Wire.preface + HTTP2Wire.frame(4, []) { wire.socket.send([byte]) }
        wire.get(1, "/")
        #expect(wire.answer(1).status == 200)
    }

    @Test func `bodies with and without a length`() throws {
        let upstream = try echo()
        let proxy = try ProxyFixture(upstream)
        let wire = HTTP2Wire(to: proxy.server.address)
        wire.request(1, HTTP2Wire.head("POST", "/1", [("content-length", "5")]), ends: false)
        wire.data(1, Array("hello".utf8))
        #expect(wire.answer(1).text == "POST /1 HTTP/1.1|hello")
        #expect(upstream.lastRequest?["content-length"] == "5")
        wire.request(3, HTTP2Wire.head("POST", "/2"), ends: false)
        wire.data(3, Array("hel".utf8), ends: false)
        wire.data(3, Array("lo".utf8))
        #expect(wire.answer(3).text == "POST /2 HTTP/1.1|hello")
        #expect(upstream.lastRequest?["transfer-encoding"] == "chunked")
        // The end may come as an empty frame, and with trailers.
        wire.request(5, HTTP2Wire.head("POST", "/3", [("content-length", "2")]), ends: false)
        wire.data(5, Array("ab".utf8), ends: false)
        wire.request(5, [("x-checksum", "1")])
        #expect(wire.answer(5).text == "POST /3 HTTP/1.1|ab")
        wire.request(7, HTTP2Wire.head("POST", "/4", [("content-length", "0")]), ends: false)
        wire.data(7, [])
        #expect(wire.answer(7).text == "POST /4 HTTP/1.1|")
    }

    @Test func `a hundred streams at once`() throws {
        let proxy = try ProxyFixture(try echo())
        let wire = HTTP2Wire(to: proxy.server.address)
        let streams = (0..<100).map { UInt32(2 * $0 + 1) }
        for stream in streams { wire.get(stream, "/\(stream)") }
        for stream in streams {
            #expect(wire.answer(stream).text == "GET /\(stream) HTTP/1.1|")
        }
        #expect(proxy.outcomes.all.count == 100)
        let isIdle = eventually { proxy.onLoop { $0.connectionCount } == 1 }
        #expect(isIdle)
    }

    @Test func `large bodies in both directions`() throws {
        let size = 3_000_000
        let upstream = try TestUpstream { request in
            okay(String(repeating: "y", count: request.body.count))
        }
        let proxy = try ProxyFixture(upstream)
        let wire = HTTP2Wire(to: proxy.server.address)
        wire.request(1, HTTP2Wire.head("POST", "/big"), ends: false)
        #expect(wire.read { $0.windowUpdates[0] != nil })
        var windows = (connection: 65_535 + (wire.windowUpdates[0] ?? 0), stream: 131_072)
        var sent = 0
        var seen = (connection: wire.windowUpdates[0] ?? 0, stream: 0)
        while sent < size {
            let count = min(16_384, size - sent, windows.connection, windows.stream)
            if count > 0 {
                wire.data(1, [UInt8](repeating: 1, count: count), ends: sent + count == size)
                sent += count
                windows.connection -= count
                windows.stream -= count
                continue
            }
            try #require(wire.next() != nil)
            let now = (wire.windowUpdates[0] ?? 0, wire.windowUpdates[1] ?? 0)
            windows.connection += now.0 - seen.connection
            windows.stream += now.1 - seen.stream
            seen = now
        }
        let answer = wire.answer(1)
        #expect(answer.status == 200 && answer.body.count == size)
    }

    @Test func `heads without bodies`() throws {
        let upstream = try TestUpstream { request in
            switch request.path {
            case "/204": "HTTP/1.1 204 No Content\r\n\r\n"
            case "/304": "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"
            case "/empty": okay("")
            default: "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"
            }
        }
        let proxy = try ProxyFixture(upstream)
        let wire = HTTP2Wire(to: proxy.server.address)
        wire.request(1, HTTP2Wire.head("HEAD", "/"))
        wire.get(3, "/204")
        wire.get(5, "/304")
        wire.get(7, "/empty")
        #expect(wire.answer(1)["content-length"] == "7")
        #expect(wire.answer(3).status == 204 && wire.answer(5).status == 304)
        #expect(wire.answer(7)["content-length"] == "0")
        for stream: UInt32 in [1, 3, 5, 7] {
            #expect(wire.answer(stream).isWhole && wire.answer(stream).body.isEmpty)
        }
    }

    @Test func `informational answers pass`() throws {
        let upstream = try TestUpstream { _, socket in
            guard socket.readHead() != nil else { return }
            socket.send("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
            socket.send("HTTP/1.1 100 Continue\r\n\r\n")
            guard socket.read(2) != nil else { return }
            socket.send(okay("done"))
        }
        let proxy = try ProxyFixture(upstream)
        let wire = HTTP2Wire(to: proxy.server.address)
        wire.request(
            1, HTTP2Wire.head("POST", "/", [("expect", "100-continue"), ("content-length", "2")]),
            ends: false)
        #expect(wire.read { $0.answers[1]?.informational == [103, 100] })
        wire.data(1, [1, 2])
        #expect(wire.answer(1).text == "done")
    }

    @Test func `trailers of the upstream and of ours`() throws {
        final class Settling: TestInterceptor {
            override func requestBegan(_ exchange: Exchange) -> Verdict {
                exchange.declaresTrailers = true
                return super.requestBegan(exchange)
            }
            override func exchangeEnded(_ exchange: Exchange, _ outcome: ExchangeOutcome) {
                exchange.responseTrailers.add("weir-settlement", "paid")
                super.exchangeEnded(exchange, outcome)
            }
        }
        let upstream = try TestUpstream { request in
            request.path == "/length"
                ? okay("length")
                : "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
                    + "Grpc-Status: 0\r\nWeir-Settlement: forged\r\nContent-Length: 9\r\n\r\n"
        }
        let proxy = try ProxyFixture([upstream.address]) { Settling(target: $0, outcomes: $1) }
        let wire = HTTP2Wire(to: proxy.server.address)
        wire.get(1, "/")
        let answer = wire.answer(1)
        #expect(answer.text == "ok" && answer["trailer"] == "weir-settlement")
        #expect(answer.trailers.map(\.0) == ["grpc-status", "weir-settlement"])
        #expect(answer.trailers.map(\.1) == ["0", "paid"])
        wire.get(3, "/length")
        #expect(wire.answer(3).trailers.map(\.1) == ["paid"])
        // No body, no trailers: the settlement stands in the head.
        wire.request(5, HTTP2Wire.head("HEAD", "/length"))
        #expect(wire.answer(5)["weir-settlement"] == "paid" && wire.answer(5).trailers.isEmpty)
    }

    @Test func `a reset cancels the upstream`() throws {
        let isGone = Counter()
        let upstream = try TestUpstream { _, socket in
            guard socket.readHead() != nil else { return }
            socket.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
            if socket.readToEnd().isEmpty { isGone.increment() }
        }
        final class Cancelling: TestInterceptor {
            override func clientDisconnected(_ exchange: Exchange) -> DisconnectDecision { .cancel }
        }
        let proxy = try ProxyFixture([upstream.address]) { Cancelling(target: $0, outcomes: $1) }
        let wire = HTTP2Wire(to: proxy.server.address)
        wire.get(1, "/")
        #expect(wire.read { $0.answers[1]?.text == "ok" })
        wire.send(HTTP2Wire.Kind.reset, stream: 1, HTTP2Wire.four(8))
        #expect(proxy.outcomes.waitForOne()?.kind == .clientGone)
        #expect(eventually { isGone.count == 1 })
        // The connection lives on.
        wire.send(HTTP2Wire.Kind.ping, [1, 2, 3, 4, 5, 6, 7, 8])
        #expect(wire.read { !$0.pongs.isEmpty })
    }

    @Test func `a response that is cut is reset`() throws {
        let cut = try TestUpstream { _, socket in
            guard socket.readHead() != nil else { return }
            socket.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        }
        let proxy = try ProxyFixture(cut)
        let wire = HTTP2Wire(to: proxy.server.address)
        wire.get(1, "/")
        let answer = wire.answer(1)
        #expect(answer.text == "12345" && answer.reset == 2 && !answer.isWhole)
    }
}
