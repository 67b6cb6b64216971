import Testing

@testable import SidecarCore

/// Requests that no reader may take, and why. Also sent over real sockets in `HostileWireTests`.
enum HostileHeads {
    static let cases: [(String, HeadError)] = [
        // Line endings and controls.
        ("GET / HTTP/1.1\nHost: a\n\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\u{0}b\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\u{7F}b\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 12345678\u{1}\r\n\r\n", .malformed),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", .malformed),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", .malformed),
        ("\u{16}\u{3}\u{1}", .malformed),
        // Request line.
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", .malformed),
        ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", .malformed),
        ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", .malformed),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", .malformed),
        ("GET /\r\nHost: a\r\n\r\n", .malformed),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", .malformed),
        ("GET / HTTP/1.1x\r\nHost: a\r\n\r\n", .malformed),
        ("GET / HTTP/11\r\nHost: a\r\n\r\n", .malformed),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", .version),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", .version),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", .version),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", .malformed),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", .malformed),
        ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", .malformed),
        ("GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", .malformed),
        ("GET /\u{E4} HTTP/1.1\r\nHost: a\r\n\r\n", .malformed),
        ("GET /\u{0} HTTP/1.1\r\nHost: a\r\n\r\n", .malformed),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", .malformed),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", .malformed),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", .malformed),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", .malformed),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", .malformed),
        ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", .malformed),
        (String(repeating: "A", count: 33) + " / HTTP/1.1\r\nHost: a\r\n\r\n", .malformed),
        // Field lines.
        ("GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\u{E4}: b\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\nweir-a_b: c\r\n\r\n", .malformed),
        // Host.
        ("GET / HTTP/1.1\r\n\r\n", .malformed),
        ("GET http://a/ HTTP/1.1\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", .malformed),
        // Framing.
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", .malformed),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            .malformed
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            .malformed
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", .malformed),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", .malformed),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", .malformed),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n", .malformed),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", .malformed),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 05\r\n\r\n", .malformed),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 00\r\n\r\n", .malformed),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\n", .malformed),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            .malformed
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            .malformed
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", .malformed),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", .malformed),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", .malformed),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", .malformed),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
                + "Transfer-Encoding: chunked\r\n\r\n", .malformed
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \u{B}chunked\r\n\r\n", .malformed),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", .malformed),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", .notImplemented),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", .malformed),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\n\r\n", .malformed),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\nweir_tier: gold\r\n\r\n", .malformed),
        // Connection and Expect.
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: authorization\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x-forwarded-for\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: weir-delegation\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: a b\r\n\r\n", .malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", .expectation),
        // Sizes.
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX: " + String(repeating: "b", count: 33_000) + "\r\n\r\n",
            .tooLarge
        ),
        (
            "GET /" + String(repeating: "b", count: 9000) + " HTTP/1.1\r\nHost: a\r\n\r\n",
            .targetTooLong
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\n" + String(repeating: "X: b\r\n", count: 100) + "\r\n",
            .tooLarge
        ),
    ]
}

@Suite struct HeadParserTests {
    @Test(arguments: HostileHeads.cases)
    func hostileHeadsAreRefused(text: String, error: HeadError) {
        #expect(HeadFixture(text).result == .failed(error))
    }

    @Test func anOrdinaryRequestIsTakenApart() throws {
        let text =
            "POST /v1/chat?x=1 HTTP/1.1\r\nHost: agent.local:8000\r\nContent-Length:  5 \r\n"
            + "Content-Type:application/json\r\nX-Other: a,\tb\r\n"
            + "Connection: keep-alive\r\n\r\nhello"
        let fixture = HeadFixture(text)
        #expect(fixture.result == .complete(text.utf8.count - 5))
        let head = fixture.head
        #expect(head.method == .post && head.minorVersion == 1 && head.contentLength == 5)
        #expect(head.text(head.target) == "/v1/chat?x=1")
        #expect(String(decoding: head.path, as: UTF8.self) == "/v1/chat")
        #expect(head.text(head.host) == "agent.local:8000")
        #expect(head.fieldCount == 5 && head.keepsAlive)
        #expect(head.string(of: .contentType) == "application/json")
        #expect(head.string(named: "x-other") == "a,\tb")
        #expect(head.value(of: .authorization) == nil)
    }

    @Test func anAbsoluteTargetBecomesOrigin() {
        let fixture = HeadFixture("GET http://A:80/x?y HTTP/1.1\r\nHost: a:80\r\n\r\n")
        let head = fixture.head
        defer { withExtendedLifetime(fixture) {} }
        #expect(head.text(head.target) == "/x?y" && head.text(head.host) == "A:80")
    }

    @Test(arguments: [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ("OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", true),
    ])
    func whetherTheConnectionStays(text: String, keepsAlive: Bool) {
        let fixture = HeadFixture(text)
        #expect(fixture.result == .complete(text.utf8.count))
        #expect(fixture.head.keepsAlive == keepsAlive)
    }

    /// Every prefix of a head needs more, and the scan finds the end where the parser does.
    @Test func headsArriveInPieces() {
        let text = "POST /a HTTP/1.1\r\nHost: a\r\nX-Y: z\r\nContent-Length: 3\r\n\r\nabc"
        var scan = HeadScan()
        let bytes = Array(text.utf8)
        for count in 1..<bytes.count {
            let prefix = String(decoding: bytes[..<count], as: UTF8.self)
            let hasEnd = bytes[..<count].withUnsafeBytes { scan.hasEnd($0) }
            let isWhole = count >= bytes.count - 3
            #expect(hasEnd == isWhole)
            #expect(
                HeadFixture(prefix).result == (isWhole ? .complete(bytes.count - 3) : .needsMore))
        }
    }

    /// RFC 9112 §3: what is longer than we read is told apart before its end has come.
    @Test func longHeadsAreToldApart() {
        let long = String(repeating: "b", count: 100_000)
        #expect(HeadFixture("GET /" + long).result == .failed(.targetTooLong))
        #expect(HeadFixture("\r\nGET /" + long).result == .failed(.targetTooLong))
        #expect(HeadFixture(long).result == .failed(.malformed))
        #expect(HeadFixture("GET / HTTP/1.1\r\nX: " + long).result == .failed(.tooLarge))
        #expect(HeadFixture("HTTP/1.1 200 " + long, isRequest: false).result == .failed(.tooLarge))
    }

    /// An empty line in front is forgiven, a second one is not: the scan must not wait for more.
    @Test func theScanFindsTheSecondEmptyLine() {
        var scan = HeadScan()
        let bytes = Array("\r\n\r\n".utf8)
        #expect(!bytes[..<2].withUnsafeBytes { scan.hasEnd($0) })
        #expect(bytes.withUnsafeBytes { scan.hasEnd($0) })
    }

    /// RFC 9110 §7.8 and §10.1.1: neither exists for HTTP/1.0.
    @Test func oldRequestsNeitherUpgradeNorWait() {
        let fields = "Connection: upgrade\r\nUpgrade: websocket\r\nExpect: 100-continue\r\n\r\n"
        let old = HeadFixture("GET / HTTP/1.0\r\n" + fields).head.flags
        #expect(!old.contains(.websocket) && !old.contains(.expectsContinue))
        let new = HeadFixture("GET / HTTP/1.1\r\nHost: a\r\n" + fields).head.flags
        #expect(new.contains(.websocket) && new.contains(.expectsContinue))
    }

    /// Whatever a peer sends, parsing ends without a trap. Seeded: a failure is repeatable.
    @Test func mutatedHeadsNeverTrap() {
        var random = SeededRandom(state: 42)
        let seeds = HostileHeads.cases.map(\.0).filter { $0.utf8.count < 500 }
        for round in 0..<3000 {
            var bytes = Array(seeds[round % seeds.count].utf8)
            for _ in 0..<(1 + round % 4) where !bytes.isEmpty {
                let position = Int(random.next() % UInt64(bytes.count))
                bytes[position] = UInt8(truncatingIfNeeded: random.next())
            }
            _ =
                HeadFixture(String(decoding: bytes, as: UTF8.self), isRequest: round % 2 == 0)
                .result
        }
    }

    @Test(arguments: [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true),
        ("HTTP/1.1 200\r\n\r\n", true), ("HTTP/1.1 200 \r\n\r\n", true),
        ("HTTP/1.1 099 X\r\n\r\n", false), ("HTTP/1.1 600 X\r\n\r\n", false),
        ("HTTP/1.1  200 OK\r\n\r\n", false), ("HTTP/1.1 20 OK\r\n\r\n", false),
        ("HTTP/2 200 OK\r\n\r\n", false), ("ICY 200 OK\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", false),
    ])
    func responses(text: String, isFine: Bool) {
        let result = HeadFixture(text, isRequest: false).result
        #expect((result == .complete(text.utf8.count)) == isFine)
    }
}

struct SeededRandom: RandomNumberGenerator {
    var state: UInt64
    /// SplitMix64 (Steele, Lea, Flood 2014).
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ word >> 30) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ word >> 27) &* 0x94D0_49BB_1331_11EB
        return word ^ word >> 31
    }
}
