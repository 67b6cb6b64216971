import Testing

@testable import SidecarCore

/// Heads made of HTTP/2 fields look like those of HTTP/1.1.
@Suite struct HTTP2HeadAssemblerTests {
    private typealias Fields = [(String, String)]

    private static let get: Fields = [
        (":method", "GET"), (":scheme", "http"), (":path", "/a?b=1"), (":authority", "agent:80"),
    ]

    private func add(_ fields: [(String, String)], to assembler: HTTP2HeadAssembler) {
        for (name, value) in fields {
            Array(name.utf8).withUnsafeBytes { name in
                Array(value.utf8).withUnsafeBytes { assembler.add(name: name, value: $0) }
            }
        }
    }

    private func assemble(
        kind: HTTP2HeadAssembler.Kind = .request, _ fields: [(String, String)],
        endsStream: Bool = true, _ check: (Result<HTTPHead, HeadError>) -> Void
    ) {
        let assembler = HTTP2HeadAssembler()
        assembler.begin(kind)
        add(fields, to: assembler)
        check(assembler.finish(endsStream: endsStream))
    }

    private func failure(_ fields: [(String, String)], endsStream: Bool = true) -> HeadError? {
        var failure: HeadError?
        assemble(fields, endsStream: endsStream) {
            if case .failure(let error) = $0 { failure = error }
        }
        return failure
    }

    private func text(of head: HTTPHead) -> String {
        String(
            decoding: UnsafeRawBufferPointer(start: head.base, count: head.byteCount), as: UTF8.self
        )
    }

    @Test func `a request has its target, its host and its lines side by side`() throws {
        assemble(Self.get + [("accept", "*/*"), ("authorization", "Bearer x")]) { result in
            guard case .success(let head) = result else {
                Issue.record("refused")
                return
            }
            #expect(head.method == .get && head.text(head.methodRange) == "GET")
            #expect(head.text(head.target) == "/a?b=1")
            #expect(head.text(head.host) == "agent:80")
            #expect(head.string(of: .authorization) == "Bearer x")
            #expect(head.flags.contains(.http2) && !head.flags.contains(.chunked))
            let lines = text(of: head).dropFirst(Int(head.fields[0].name.offset))
            #expect(
                lines == "host: agent:80\r\naccept: */*\r\nauthorization: Bearer x\r\n\r\n")
        }
    }

    @Test func `pseudo-fields may come in any order`() {
        let reversed = Array(Self.get.reversed())
        assemble(reversed + [("a", "b")]) { result in
            guard case .success(let head) = result else {
                Issue.record("refused")
                return
            }
            #expect(head.text(head.target) == "/a?b=1" && head.text(head.host) == "agent:80")
            let lines = text(of: head).dropFirst(Int(head.fields[0].name.offset))
            #expect(lines == "host: agent:80\r\na: b\r\n\r\n")
        }
    }

    @Test func `crumbs of cookies become one line`() {
        let crumbs = [("cookie", "a=1"), ("accept", "x"), ("cookie", "b=2"), ("cookie", "c=3")]
        assemble(Self.get + crumbs) { result in
            guard case .success(let head) = result else {
                Issue.record("refused")
                return
            }
            #expect(head.count(of: .cookie) == 1)
            #expect(head.string(of: .cookie) == "a=1; b=2; c=3")
            #expect(text(of: head).hasSuffix("accept: x\r\ncookie: a=1; b=2; c=3\r\n\r\n"))
        }
    }

    @Test func `a body without a length is one of unknown length`() {
        assemble(Self.get, endsStream: false) { result in
            guard case .success(let head) = result else {
                Issue.record("refused")
                return
            }
            #expect(head.flags.contains(.chunked) && head.contentLength == -1)
        }
        assemble(Self.get + [("content-length", "5")], endsStream: false) { result in
            guard case .success(let head) = result else {
                Issue.record("refused")
                return
            }
            #expect(!head.flags.contains(.chunked) && head.contentLength == 5)
        }
    }

    @Test func `a response keeps its status apart from its lines`() {
        assemble(
            kind: .response, [(":status", "207"), ("content-length", "3"), ("set-cookie", "a")]
        ) {
            guard case .success(let head) = $0 else {
                Issue.record("refused")
                return
            }
            #expect(head.status == 207 && head.contentLength == 3)
            #expect(text(of: head) == "content-length: 3\r\nset-cookie: a\r\n\r\n")
        }
    }

    @Test(arguments: [
        // Host and authority (RFC 9113 §8.3.1), as strict as for HTTP/1.1.
        ([("host", "other")], HeadError.malformed),
        ([("host", "agent:80"), ("host", "agent:80")], .malformed),
        // Names that a CGI server would take for others.
        ([("content_length", "5")], .malformed), ([("weir_tier", "x")], .malformed),
        ([("content-length", "1"), ("content-length", "1")], .malformed),
        ([("content-length", "1, 1")], .malformed), ([("content-length", "-1")], .malformed),
        ([("content-length", "5")], .malformed), ([("expect", "magic")], .expectation),
    ])
    func `refused like HTTP/1.1's`(_ fields: [(String, String)], _ error: HeadError) {
        #expect(failure(Self.get + fields) == error)
    }

    @Test(arguments: [
        [(":method", "GET"), (":scheme", "http"), (":path", ""), (":authority", "a")],
        [(":method", "GET"), (":scheme", "http"), (":path", "a"), (":authority", "a")],
        [(":method", "GET"), (":scheme", "http"), (":path", "*"), (":authority", "a")],
        [(":method", "OPTIONS"), (":scheme", "http"), (":path", "*x"), (":authority", "a")],
        [(":method", "GET"), (":scheme", "http"), (":path", "/a#b"), (":authority", "a")],
        [(":method", "GET"), (":scheme", "http"), (":path", "/a b"), (":authority", "a")],
        [(":method", "GET"), (":scheme", "http"), (":path", "/a\r\nb: c"), (":authority", "a")],
        [(":method", "GET"), (":scheme", "ftp"), (":path", "/"), (":authority", "a")],
        [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "u@a")],
        [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "")],
        [(":method", "GET"), (":scheme", "http"), (":path", "/")],
        [(":method", "G T"), (":scheme", "http"), (":path", "/"), (":authority", "a")],
        [
            (":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"),
            (":x", "y"),
        ],
        [(":method", "CONNECT"), (":path", "/"), (":authority", "a:80")],
    ])
    func `malformed pseudo-fields`(_ fields: [(String, String)]) {
        #expect(failure(fields) == .malformed)
    }

    @Test func `what is too large`() {
        let long = String(repeating: "x", count: Limits.headBytesMax)
        let many = Array(repeating: ("a", "b"), count: Limits.fieldsMax)
        for fields in [[("big", long)], [("cookie", long)], many] {
            #expect(failure(Self.get + fields) == .tooLarge)
        }
    }

    @Test func `a path is too long, and nothing is stored behind an error`() {
        let path = "/" + String(repeating: "p", count: Limits.targetBytesMax)
        let assembler = HTTP2HeadAssembler()
        assembler.begin(.request)
        add([(":method", "GET"), (":path", path)], to: assembler)
        #expect(assembler.progress.failure == .targetTooLong)
        let before = assembler.progress.listBytes
        add([("a", "b")], to: assembler)
        #expect(assembler.progress.listBytes == before + 34, "counted nevertheless")
    }

    @Test func `trailers have no pseudo-fields and a limit of their own`() {
        assemble(kind: .trailers, [("weir-settlement", "x")]) {
            guard case .success(let head) = $0 else {
                Issue.record("refused")
                return
            }
            #expect(head.string(of: .weir) == "x")
        }
        var refused = 0
        let large = String(repeating: "x", count: Limits.trailerBytesMax)
        for fields in [[(":path", "/")], [("a", large)]] {
            assemble(kind: .trailers, fields) { if case .failure = $0 { refused += 1 } }
        }
        #expect(refused == 2)
    }

    @Test func `a block that spans reads is taken out and put back`() {
        let pool = BufferPool()
        let assembler = HTTP2HeadAssembler()
        assembler.begin(.request)
        add(Self.get + [("cookie", "a=1"), ("first", "1")], to: assembler)
        let progress = assembler.progress
        var parked = ByteQueue()
        #expect(assembler.park(in: &parked, pool: pool))
        assembler.begin(.request)
        add([(":method", "POST"), (":path", "/other"), ("another", "block")], to: assembler)
        assembler.resume(progress, from: &parked, pool: pool)
        #expect(parked.isEmpty && pool.lentBytes == 0)
        add([("cookie", "b=2"), ("last", "2")], to: assembler)
        guard case .success(let head) = assembler.finish(endsStream: true) else {
            Issue.record("refused")
            return
        }
        #expect(head.method == .get && head.text(head.target) == "/a?b=1")
        #expect(
            text(of: head).hasSuffix("first: 1\r\nlast: 2\r\ncookie: a=1; b=2\r\n\r\n"))
    }
}
