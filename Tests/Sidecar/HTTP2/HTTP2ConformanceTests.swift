import Testing

@testable import SidecarCore

/// RFC 9113 and RFC 7541 section by section, as suites of conformance go through them: what
/// `HTTP2HostileTests` does not say yet. Streams that are over take more than one step.
@Suite struct HTTP2ConformanceTests {
    private typealias Kind = HTTP2Wire.Kind

    enum Step: Sendable {
        case send([UInt8])
        /// Until the answer to this stream is whole.
        case answered(UInt32)
    }

    enum Expected: Sendable {
        case goAway(UInt32)
        case reset(UInt32, code: UInt32)
        /// The stream is answered with 200.
        case served(UInt32)
    }

    struct Case: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let expected: Expected
        let steps: [Step]

        init(_ name: String, _ expected: Expected, _ steps: Step...) {
            testDescription = name
            self.expected = expected
            self.steps = steps
        }

        init(_ name: String, _ expected: Expected, _ frames: [UInt8]...) {
            testDescription = name
            self.expected = expected
            steps = [.send(frames.flatMap { $0 })]
        }
    }

    /// Once with each step in one piece, and once byte by byte.
    private func run(_ test: Case, bytewise: Bool) throws {
        let upstream = try TestUpstream { _ in okay("fine") }
        var timeouts = Timeouts()
        timeouts.lingerNanoseconds = 50_000_000
        let proxy = try ProxyFixture(upstream, timeouts: timeouts)
        let wire = HTTP2Wire(to: proxy.server.address)
        for step in test.steps {
            switch step {
            case .send(let bytes) where bytewise && bytes.count < 1_000:
                for byte in bytes { wire.socket.send([byte]) }
            case .send(let bytes): wire.socket.send(bytes)
            case .answered(let stream): #expect(wire.answer(stream).text == "fine")
            }
        }
        switch test.expected {
        case .goAway(let code):
            #expect(wire.end() == code)
            #expect(eventually { proxy.onLoop { $0.connectionCount } == 0 })
            return
        case .reset(let stream, let code):
            #expect(wire.read { $0.answers[stream]?.reset != nil })
            #expect(wire.answers[stream]?.reset == code)
        case .served(let stream): #expect(wire.answer(stream).text == "fine")
        }
        wire.get(101, "/after")
        #expect(wire.answer(101).text == "fine")
    }

    @Test(
        arguments: [
            Case(
                "half-closed: data", .goAway(5), request(1), frame(Kind.data, stream: 1, [1])),
            Case("half-closed: a second head", .goAway(5), request(1), request(1)),
            Case(
                "half-closed: a continuation", .goAway(1), request(1),
                frame(Kind.continuation, flags: 4, stream: 1, block)),
            Case(
                "half-closed: a window, a priority and a reset", .served(3), request(1),
                frame(Kind.windowUpdate, stream: 1, [0, 0, 0, 1]),
                frame(Kind.priority, stream: 1, [0, 0, 0, 0, 7]), frame(Kind.reset, stream: 1, no),
                request(3)),
            Case(
                "data behind the client's reset", .goAway(5), open(1),
                frame(Kind.reset, stream: 1, no), frame(Kind.data, stream: 1, [1])),
            Case(
                "a head behind the client's reset", .goAway(5), open(1),
                frame(Kind.reset, stream: 1, no), request(1)),
            Case(
                "a continuation behind the client's reset", .goAway(1), open(1),
                frame(Kind.reset, stream: 1, no),
                frame(Kind.continuation, flags: 4, stream: 1, block)),
            Case(
                "data behind the answer", .goAway(5), .send(request(1)), .answered(1),
                .send(frame(Kind.data, flags: 1, stream: 1, [1]))),
            Case(
                "a head behind the answer", .goAway(5), .send(request(1)), .answered(1),
                .send(request(1))),
            Case(
                "a continuation behind the answer", .goAway(1), .send(request(1)), .answered(1),
                .send(frame(Kind.continuation, flags: 4, stream: 1, block))),
            Case(
                "a window, a priority and a reset behind the answer", .served(3),
                .send(request(1)), .answered(1),
                .send(frame(Kind.windowUpdate, stream: 1, [0, 0, 0, 1])),
                .send(frame(Kind.priority, stream: 1, [0, 0, 0, 0, 7])),
                .send(frame(Kind.reset, stream: 1, no)), .send(request(3))),
            // What we reset may still be sent to.
            Case(
                "data behind our reset", .reset(1, code: 1), open(1),
                frame(Kind.headers, flags: 4, stream: 1, HTTP2Wire.block([("a", "b")])),
                frame(Kind.data, stream: 1, [1]), request(1)),
            Case("a lower number", .goAway(1), request(5), request(3)),
            Case("a lower number, and data for it", .goAway(5), request(5), data(3)),
        ], [false, true])
    func `streams that are over`(_ test: Case, bytewise: Bool) throws {
        try run(test, bytewise: bytewise)
    }

    @Test(
        arguments: [
            Case(
                "reserved bits are ignored", .served(1),
                Array(request(1)[..<5]) + [0x80] + Array(request(1)[6...]),
                frame(Kind.ping, flags: 0, stream: 0x8000_0000, zeros(8))),
            Case(
                "data of 16,384 bytes", .served(1), open(1), data(1, zeros(16_384), ends: true)),
            Case(
                "a head above 16 KB in one frame", .goAway(6),
                frame(Kind.headers, flags: 5, stream: 1, zeros(16_385))),
            Case("settings above 16 KB", .goAway(6), frame(Kind.settings, zeros(16_386))),
            Case(
                "a priority in the middle of a head", .goAway(1), half(1),
                frame(Kind.priority, stream: 1, [0, 0, 0, 0, 7])),
            Case("a head in the middle of a head", .goAway(1), half(1), request(3)),
            Case(
                "a frame of an unknown type in the middle of a head", .goAway(1), half(1),
                frame(0xFE, stream: 1, zeros(8))),
            Case(
                "a window in the middle of a head", .goAway(1), half(1),
                frame(Kind.windowUpdate, [0, 0, 0, 1])),
            Case(
                "a priority that depends on itself", .goAway(1),
                frame(Kind.priority, stream: 3, [0, 0, 0, 3, 7])),
            Case(
                "priorities of idle streams", .served(5),
                frame(Kind.priority, stream: 7, [0x80, 0, 0, 5, 255]), request(5)),
            Case(
                "padding longer than a head", .goAway(1),
                frame(Kind.headers, flags: 0xD, stream: 1, [UInt8(block.count + 1)] + block)),
            Case("a padded frame without its length", .goAway(1), open(1), padded(1)),
            Case("a long reset", .goAway(6), open(1), frame(Kind.reset, stream: 1, zeros(5))),
            Case(
                "a code of an error that nobody knows", .served(3), open(1),
                frame(Kind.reset, stream: 1, [0, 0, 0, 255]), request(3)),
            Case(
                "a setting that nobody knows", .served(1),
                frame(Kind.settings, [0xFF, 0xF0, 0, 0, 0, 1]), request(1)),
            Case(
                "frames above 16 MB", .goAway(1), frame(Kind.settings, [0, 5, 1, 0, 0, 0])),
            Case(
                "an answer to no ping", .served(1), frame(Kind.ping, flags: 1, zeros(8)), request(1)
            ),
            Case("a long ping", .goAway(6), frame(Kind.ping, zeros(9))),
            Case(
                "a window of a stream that opens by nothing", .goAway(1), open(1),
                frame(Kind.windowUpdate, stream: 1, [0, 0, 0, 0])),
            Case(
                "two windows that are too much together", .goAway(3),
                frame(Kind.windowUpdate, [0x7F, 0xFF, 0, 0]),
                frame(Kind.windowUpdate, [0, 0, 0xFF, 0xFF])),
            Case(
                "continuations", .served(1), half(1),
                frame(Kind.continuation, stream: 1, Array(block[2..<3])),
                frame(Kind.continuation, flags: 4, stream: 1, Array(block[3...]))),
            Case(
                "a continuation of stream 0", .goAway(1), half(1),
                frame(Kind.continuation, flags: 4, Array(block[2...]))),
            Case(
                "a continuation behind the last", .goAway(1), open(1),
                frame(Kind.continuation, flags: 4, stream: 1, block)),
            Case(
                "a continuation behind data", .goAway(1), open(1), data(1),
                frame(Kind.continuation, flags: 4, stream: 1, block)),
            Case(
                "a length that two frames of data exceed", .reset(1, code: 1),
                frame(
                    Kind.headers, flags: 4, stream: 1,
                    HTTP2Wire.block(HTTP2Wire.head("POST", "/", [("content-length", "3")]))),
                data(1, [1, 2]), data(1, [3, 4], ends: true)),
            Case(
                "OPTIONS of the server as a whole", .served(1),
                frame(
                    Kind.headers, flags: 5, stream: 1,
                    HTTP2Wire.block(HTTP2Wire.head("OPTIONS", "*")))),
            Case(
                "the star of another method", .reset(1, code: 1),
                frame(
                    Kind.headers, flags: 5, stream: 1,
                    HTTP2Wire.block(HTTP2Wire.head("GET", "*")))),
        ], [false, true])
    func `frames`(_ test: Case, bytewise: Bool) throws { try run(test, bytewise: bytewise) }

    /// RFC 7541: a block that cannot be read ends the connection.
    @Test(
        arguments: [
            ("the index 0", [0x80]), ("an index above the table", [0xFF, 0x7F]),
            ("a literal whose name is not in the table", [0x7F, 0xFF, 0x7F, 1, 97]),
            ("another table behind the fields", block + [0x20]),
            ("a number above 32 bits", [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]),
            // `a` is 00011 in the code of Huffman.
            ("padding of a byte and more", block + [0, 1, 97, 0x82, 0x1F, 0xFF]),
            ("padding of zeros", block + [0, 1, 97, 0x81, 0x18]),
            ("the end of Huffman's code", block + [0, 1, 97, 0x84, 0xFF, 0xFF, 0xFF, 0xFC]),
            ("a string longer than the block", block + [0, 1, 97, 5, 98]),
        ] as [(String, [UInt8])])
    func `compression`(_ name: String, _ bytes: [UInt8]) throws {
        let test = Case(name, .goAway(9), frame(Kind.headers, flags: 5, stream: 1, bytes))
        try run(test, bytewise: false)
    }

    /// §6.9.2: the windows of open streams follow the setting, below zero too.
    @Test func `a window that shrinks while a stream is open`() throws {
        let upstream = try TestUpstream { _ in okay(String(repeating: "x", count: 10)) }
        let proxy = try ProxyFixture(upstream)
        let wire = HTTP2Wire(to: proxy.server.address, settings: [(4, 3)])
        wire.opensWindows = false
        wire.get(1, "/")
        #expect(wire.read { $0.answers[1]?.body.count == 3 })
        // By 2 below what was sent: now it stands at -2.
        wire.send(Kind.settings, [0, 4, 0, 0, 0, 1])
        wire.send(Kind.windowUpdate, stream: 1, [0, 0, 0, 2])
        wire.send(Kind.ping, zeros(8))
        #expect(wire.read { !$0.pongs.isEmpty })
        #expect(wire.answers[1]?.body.count == 3)
        wire.send(Kind.windowUpdate, stream: 1, [0, 0, 0, 1])
        #expect(wire.read { $0.answers[1]?.body.count == 4 })
        wire.send(Kind.settings, [0, 4, 0, 1, 0, 0])
        #expect(wire.answer(1).isWhole && wire.answers[1]?.body.count == 10)
    }

    @Test func `a setting that opens a stream's window too far`() throws {
        let upstream = try TestUpstream { _, socket in _ = socket.readToEnd() }
        let proxy = try ProxyFixture(upstream)
        let wire = HTTP2Wire(to: proxy.server.address)
        wire.get(1, "/")
        wire.send(Kind.windowUpdate, stream: 1, [0, 0, 0, 1])
        wire.send(Kind.settings, [0, 4, 0x7F, 0xFF, 0xFF, 0xFF])
        #expect(wire.end() == 3)
    }

    /// §3.4, on a connection that might have been HTTP/1.1's.
    @Test func `a preface that is nobody's is answered by nobody`() throws {
        let proxy = try ProxyFixture([.loopback(port: 1)])
        let wire = HTTP2Wire(to: proxy.server.address, begins: false)
        wire.socket.send("INVALID CONNECTION PREFACE\r\n\r\n")
        #expect(wire.socket.readToEnd().isEmpty)
        // What has anything of HTTP/1.1 gets its answer.
        for line in ["GET / FTP/1.1", "GET x HTTP/3.0", "GET http://a/ X", "GET  x", "hello"] {
            let client = proxy.client()
            client.send(line + "\r\nHost: a\r\n\r\n")
            let status = client.readResponse()?.status ?? 0
            #expect(status == 400 || status == 505, "\(line): \(status)")
        }
    }
}

private let block = HTTP2Wire.block(HTTP2Wire.head())
private let no: [UInt8] = [0, 0, 0, 8]

private func zeros(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: count) }

private func frame(_ type: UInt8, flags: UInt8 = 0, stream: UInt32 = 0, _ payload: [UInt8])
    -> [UInt8]
{
    HTTP2Wire.frame(type, flags: flags, stream: stream, payload)
}

private func request(_ stream: UInt32) -> [UInt8] {
    frame(HTTP2Wire.Kind.headers, flags: 5, stream: stream, block)
}

/// A request whose body comes.
private func open(_ stream: UInt32) -> [UInt8] {
    frame(
        HTTP2Wire.Kind.headers, flags: 4, stream: stream, HTTP2Wire.block(HTTP2Wire.head("POST")))
}

/// The first two bytes of a head.
private func half(_ stream: UInt32) -> [UInt8] {
    frame(HTTP2Wire.Kind.headers, flags: 1, stream: stream, Array(block[..<2]))
}

private func data(_ stream: UInt32, _ bytes: [UInt8] = [1], ends: Bool = false) -> [UInt8] {
    frame(HTTP2Wire.Kind.data, flags: ends ? 1 : 0, stream: stream, bytes)
}

private func padded(_ stream: UInt32) -> [UInt8] {
    frame(HTTP2Wire.Kind.data, flags: 8, stream: stream, [])
}
