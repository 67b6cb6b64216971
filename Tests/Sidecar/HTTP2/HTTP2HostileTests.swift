import Synchronization
import Testing

@testable import SidecarCore

/// What a client may not say (RFC 9113), each in a connection of its own, and what it hears.
@Suite struct HTTP2HostileTests {
    enum Expected: Sendable {
        /// The connection ends with this error code.
        case goAway(UInt32)
        /// The stream ends with this error code, the connection lives on.
        case reset(UInt32)
        /// Refused like HTTP/1.1's, and the connection lives on.
        case status(Int)
        /// Nothing is wrong with it.
        case served
    }

    struct Conversation: Sendable, CustomTestStringConvertible {
        let name: String
        let bytes: [UInt8]
        let expected: Expected
        var testDescription: String { name }

        init(_ name: String, _ expected: Expected, _ frames: [UInt8]...) {
            self.name = name
            self.expected = expected
            bytes = frames.flatMap { $0 }
        }

        /// One request with these fields behind the usual pseudo-fields.
        init(_ name: String, _ expected: Expected, fields: [(String, String)], ends: Bool = true) {
            self.init(name, expected, headers(HTTP2Wire.head("GET", "/", fields), ends: ends))
        }

        init(_ name: String, _ expected: Expected, whole: [(String, String)]) {
            self.init(name, expected, headers(whole))
        }
    }

    private typealias Kind = HTTP2Wire.Kind

    private func run(_ conversation: Conversation) throws {
        let upstream = try TestUpstream { _ in okay("fine") }
        var timeouts = Timeouts()
        timeouts.lingerNanoseconds = 50_000_000
        let proxy = try ProxyFixture(upstream, timeouts: timeouts)
        let wire = HTTP2Wire(to: proxy.server.address)
        wire.socket.send(conversation.bytes)
        switch conversation.expected {
        case .goAway(let code):
            #expect(wire.end() == code)
            #expect(eventually { proxy.onLoop { $0.connectionCount } == 0 })
            return
        case .reset(let code):
            let answer = wire.answer(1)
            #expect(answer.reset == code && answer.status == 0)
        case .status(let status):
            let answer = wire.answer(1)
            #expect(answer.status == status && answer.isWhole)
            #expect(answer["content-type"] == "application/problem+json")
        case .served: #expect(wire.answer(1).text == "fine")
        }
        wire.get(101, "/after")
        #expect(wire.answer(101).text == "fine")
        #expect(upstream.requests.withLock { $0.filter { $0.path == "/after" }.count } == 1)
    }

    // Frames and their order (§4 to §6).
    @Test(arguments: [
        Conversation(
            "an acknowledgement that says something", .goAway(6), frame(4, flags: 1, [0])),
        Conversation("settings of odd length", .goAway(6), frame(4, [0, 1, 2])),
        Conversation("settings of a stream", .goAway(1), frame(4, stream: 1, [])),
        Conversation("a window above 2^31 - 1", .goAway(3), frame(4, [0, 4, 255, 255, 255, 255])),
        Conversation("frames below 16 KB", .goAway(1), frame(4, [0, 5, 0, 0, 0, 1])),
        Conversation("push that is neither on nor off", .goAway(1), frame(4, [0, 2, 0, 0, 0, 2])),
        Conversation(
            "too many settings", .goAway(11), frame(4, [UInt8](repeating: 0, count: 6 * 33))),
        Conversation("a short ping", .goAway(6), frame(6, [1, 2, 3])),
        Conversation(
            "a ping of a stream", .goAway(1), frame(6, stream: 1, [UInt8](repeating: 0, count: 8))),
        Conversation(
            "a frame above 16 KB", .goAway(6),
            frame(0, stream: 1, [UInt8](repeating: 0, count: 16_385))),
        Conversation("data of no stream", .goAway(1), frame(0, [1])),
        Conversation("data of an idle stream", .goAway(1), frame(0, stream: 1, [1])),
        Conversation(
            "a request on stream 0", .goAway(1),
            frame(1, flags: 5, stream: 0, HTTP2Wire.block(HTTP2Wire.head()))),
        Conversation(
            "a request on an even stream", .goAway(1),
            frame(1, flags: 5, stream: 2, HTTP2Wire.block(HTTP2Wire.head()))),
        Conversation(
            "a connection window that opens by nothing", .goAway(1), frame(8, [0, 0, 0, 0])),
        Conversation(
            "a connection window above 2^31 - 1", .goAway(3), frame(8, [127, 255, 255, 255])),
        Conversation("a short window update", .goAway(6), frame(8, [0, 0, 1])),
        Conversation("a window of an idle stream", .goAway(1), frame(8, stream: 5, [0, 0, 0, 1])),
        Conversation(
            "a continuation of nothing", .goAway(1), frame(9, flags: 4, stream: 1, [0x82])),
        Conversation(
            "data in the middle of a head", .goAway(1), frame(1, stream: 1, [0x82]),
            frame(0, stream: 1, [])),
        Conversation(
            "another stream in the middle of a head", .goAway(1), frame(1, stream: 1, [0x82]),
            frame(9, flags: 4, stream: 3, [0x84])),
        Conversation("a reset of an idle stream", .goAway(1), frame(3, stream: 1, [0, 0, 0, 8])),
        Conversation("a reset of no stream", .goAway(1), frame(3, [0, 0, 0, 8])),
        Conversation("a short reset", .goAway(6), frame(3, stream: 1, [8])),
        Conversation(
            "a push promise", .goAway(1), frame(5, flags: 4, stream: 1, [0, 0, 0, 2, 0x82])),
        Conversation(
            "a goodbye of a stream", .goAway(1),
            frame(7, stream: 1, [UInt8](repeating: 0, count: 8))),
        Conversation("a short goodbye", .goAway(6), frame(7, [0, 0, 0, 0])),
        Conversation(
            "padding longer than the frame", .goAway(1), headers(HTTP2Wire.head(), ends: false),
            frame(0, flags: 8, stream: 1, [9, 1])),
        Conversation("priority of no stream", .goAway(1), frame(2, [0, 0, 0, 0, 1])),
        Conversation("a short priority", .goAway(6), frame(2, stream: 1, [0, 0, 0, 0])),
        Conversation(
            "a head that depends on itself", .goAway(1),
            frame(1, flags: 0x25, stream: 1, [0, 0, 0, 1, 1] + HTTP2Wire.block(HTTP2Wire.head()))),
        Conversation(
            "an index of no entry", .goAway(9), frame(1, flags: 5, stream: 1, [0xFF, 0x80, 0x01])),
        Conversation(
            "a compression table above ours", .goAway(9),
            frame(1, flags: 5, stream: 1, [0x3F, 0xE1, 0xFF, 0x03])),
        Conversation(
            "a cut literal", .goAway(9), frame(1, flags: 5, stream: 1, [0x00, 0x05, 0x61])),
        Conversation(
            "frames of unknown types and flags", .served,
            frame(99, flags: 255, stream: 7, [1, 2, 3]), headers(HTTP2Wire.head())),
        Conversation(
            "padding and priority", .served,
            frame(
                1, flags: 0x2D, stream: 1,
                [2, 0, 0, 0, 0, 16] + HTTP2Wire.block(HTTP2Wire.head()) + [0, 0])),
    ])
    func frames(_ conversation: Conversation) throws { try run(conversation) }

    // Requests that are malformed (§8.1.1): the stream is reset.
    @Test(arguments: [
        Conversation("a name in upper case", .reset(1), fields: [("Accept", "x")]),
        Conversation("connection", .reset(1), fields: [("connection", "close")]),
        Conversation("transfer-encoding", .reset(1), fields: [("transfer-encoding", "chunked")]),
        Conversation("keep-alive", .reset(1), fields: [("keep-alive", "5")]),
        Conversation("proxy-connection", .reset(1), fields: [("proxy-connection", "close")]),
        Conversation("upgrade", .reset(1), fields: [("upgrade", "websocket")]),
        Conversation("te that is not trailers", .reset(1), fields: [("te", "gzip")]),
        Conversation("te: trailers", .served, fields: [("te", "trailers")]),
        Conversation("two paths", .reset(1), fields: [(":path", "/b")]),
        Conversation(
            "a pseudo-field behind others", .reset(1),
            whole: [
                (":method", "GET"), (":scheme", "http"), (":authority", "agent"), ("a", "b"),
                (":path", "/"),
            ]),
        Conversation(
            "no method", .reset(1),
            whole: [(":scheme", "http"), (":path", "/"), (":authority", "a")]),
        Conversation(
            "no scheme", .reset(1),
            whole: [(":method", "GET"), (":path", "/"), (":authority", "a")]),
        Conversation(
            "no path", .reset(1),
            whole: [(":method", "GET"), (":scheme", "http"), (":authority", "a")]),
        Conversation(
            "an empty path", .reset(1),
            whole: [(":method", "GET"), (":scheme", "http"), (":path", ""), (":authority", "a")]),
        Conversation(
            "a path without its slash", .reset(1),
            whole: [(":method", "GET"), (":scheme", "http"), (":path", "a"), (":authority", "a")]),
        Conversation(
            "neither authority nor host", .reset(1),
            whole: [(":method", "GET"), (":scheme", "http"), (":path", "/")]),
        Conversation(
            "only a host", .served,
            whole: [(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "agent")]),
        Conversation(
            "a pseudo-field that nobody knows", .reset(1),
            whole: HTTP2Wire.head() + [(":agent", "x")]),
        Conversation(
            "the status of a request", .reset(1), whole: HTTP2Wire.head() + [(":status", "200")]),
        Conversation(
            "a protocol (RFC 8441), which was not offered", .reset(1),
            whole: HTTP2Wire.head("CONNECT") + [(":protocol", "websocket")]),
        Conversation("a line end in a value", .reset(1), fields: [("a", "b\r\nweir-tier: gold")]),
        Conversation("a zero in a value", .reset(1), fields: [("a", "b\0")]),
        Conversation("space before a value", .reset(1), fields: [("a", " b")]),
        Conversation("space behind a value", .reset(1), fields: [("a", "b ")]),
        Conversation("a colon in a name", .reset(1), fields: [("a:b", "c")]),
        Conversation("a space in a name", .reset(1), fields: [("a b", "c")]),
        Conversation("an empty name", .reset(1), fields: [("", "c")]),
        Conversation("a length without a body", .reset(1), fields: [("content-length", "5")]),
        Conversation("a length that is no number", .reset(1), fields: [("content-length", "a")]),
        Conversation(
            "two lengths", .reset(1), fields: [("content-length", "0"), ("content-length", "0")]),
        Conversation(
            "more than the length", .reset(1),
            headers(HTTP2Wire.head("POST", "/", [("content-length", "1")]), ends: false),
            frame(0, flags: 1, stream: 1, [1, 2])),
        Conversation(
            "less than the length", .reset(1),
            headers(HTTP2Wire.head("POST", "/", [("content-length", "3")]), ends: false),
            frame(0, flags: 1, stream: 1, [1, 2])),
        Conversation(
            "trailers with a path", .reset(1), headers(HTTP2Wire.head("POST"), ends: false),
            headers([(":path", "/")])),
        Conversation(
            "trailers without the end", .reset(1), headers(HTTP2Wire.head("POST"), ends: false),
            headers([("a", "b")], ends: false)),
        Conversation(
            "a stream window above 2^31 - 1", .reset(3),
            headers(HTTP2Wire.head("POST"), ends: false),
            frame(8, stream: 1, [127, 255, 255, 255])),
    ])
    func malformed(_ conversation: Conversation) throws { try run(conversation) }

    // Well-formed, and refused as HTTP/1.1's are.
    @Test(arguments: [
        Conversation("a host that is not the authority", .status(400), fields: [("host", "other")]),
        Conversation("two hosts", .reset(1), fields: [("host", "agent"), ("host", "agent")]),
        Conversation("a name in disguise", .status(400), fields: [("content_length", "5")]),
        Conversation("our own name in disguise", .status(400), fields: [("weir_tier", "gold")]),
        Conversation(
            "another scheme", .status(400),
            whole: [
                (":method", "GET"), (":scheme", "ftp"), (":path", "/"), (":authority", "agent"),
            ]),
        Conversation("a fragment", .status(400), whole: HTTP2Wire.head("GET", "/a#b")),
        Conversation(
            "a user in the authority", .status(400),
            whole: [
                (":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "u@agent"),
            ]),
        Conversation(
            "an expectation that nobody has", .status(417), fields: [("expect", "miracles")]),
        Conversation(
            "CONNECT", .status(501), whole: [(":method", "CONNECT"), (":authority", "agent:443")]),
        Conversation("TRACE", .status(501), whole: HTTP2Wire.head("TRACE")),
        Conversation(
            "a path above 8 KB", .status(414),
            whole: HTTP2Wire.head("GET", "/" + String(repeating: "a", count: 8192))),
        Conversation(
            "more than a hundred fields", .status(431),
            fields: Array(repeating: ("a", "b"), count: 100)),
        Conversation("a head above 32 KB", .status(431), large(40_000)),
    ])
    func refused(_ conversation: Conversation) throws { try run(conversation) }

    @Test func `another preface is no HTTP/2`() throws {
        let proxy = try ProxyFixture([.loopback(port: 1)])
        let wire = HTTP2Wire(to: proxy.server.address, begins: false)
        wire.socket.send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
        #expect(wire.end() == nil)
        let old = proxy.client()
        old.send("PRI * HTTP/2.0\r\nHost: a\r\n\r\n")
        #expect(old.readResponse()?.status == 505)
        // Not in the middle of an HTTP/1.1 connection either.
        let late = proxy.client()
        late.send(get("/"))
        #expect(late.readResponse()?.status == 502)
        late.send(HTTP2Wire.preface)
        #expect(late.readResponse()?.status == 505)
    }

    @Test func `a request before the settings`() throws {
        let proxy = try ProxyFixture([.loopback(port: 1)])
        let wire = HTTP2Wire(to: proxy.server.address, begins: false)
        wire.socket.send(HTTP2Wire.preface + headers(HTTP2Wire.head()))
        #expect(wire.end() == 1)
    }

    @Test func `streams above the limit are refused`() throws {
        let upstream = try TestUpstream { _, socket in _ = socket.readToEnd() }
        let proxy = try ProxyFixture(upstream)
        let wire = HTTP2Wire(to: proxy.server.address)
        // Our settings are acknowledged, so that the client knows the limit.
        wire.send(Kind.ping, [UInt8](repeating: 0, count: 8))
        #expect(wire.read { !$0.pongs.isEmpty })
        for stream in 0..<101 { wire.get(UInt32(2 * stream + 1), "/") }
        #expect(wire.read { $0.answers[201]?.reset == 7 || !$0.goAways.isEmpty })
    }
}

private func frame(_ type: UInt8, flags: UInt8 = 0, stream: UInt32 = 0, _ payload: [UInt8])
    -> [UInt8]
{
    HTTP2Wire.frame(type, flags: flags, stream: stream, payload)
}

private func headers(_ fields: [(String, String)], stream: UInt32 = 1, ends: Bool = true) -> [UInt8]
{
    frame(1, flags: ends ? 5 : 4, stream: stream, HTTP2Wire.block(fields))
}

/// A head of so many bytes, in frames of 16 KB.
private func large(_ bytes: Int) -> [UInt8] {
    let block = HTTP2Wire.block(
        HTTP2Wire.head("GET", "/", [("a", String(repeating: "x", count: bytes))]))
    var frames: [UInt8] = []
    var rest = block[...]
    while !rest.isEmpty {
        let piece = Array(rest.prefix(16_384))
        rest = rest.dropFirst(piece.count)
        let isFirst = frames.isEmpty
        frames += frame(
            isFirst ? 1 : 9, flags: (isFirst ? 1 : 0) | (rest.isEmpty ? 4 : 0), stream: 1, piece)
    }
    return frames
}
