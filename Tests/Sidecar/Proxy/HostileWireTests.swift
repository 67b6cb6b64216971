import Testing
import WeirCore

@testable import SidecarCore

/// Hostile conversations over real sockets: each is answered with the right status, nothing of it
/// reaches the upstream, and the connection is closed so that nothing behind it can be smuggled.
@Suite struct HostileWireTests {
    static let heads: [(String, Int)] = HostileHeads.cases.map { text, error in
        (text, error.reason.status)
    }

    /// Refused by rule, not by syntax.
    static let unsupported: [(String, Int)] = [
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n", 505),
    ]

    private static let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

    @Test(arguments: heads)
    func hostileHeads(text: String, status: Int) throws {
        let upstream = try TestUpstream { _ in okay("forwarded") }
        defer { upstream.close() }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send(text + Self.smuggled)
        let response = try #require(client.readResponse())
        #expect(response.status == status)
        #expect(response["content-type"] == "application/problem+json")
        #expect(response["connection"] == "close")
        #expect(client.readToEnd().isEmpty)
        #expect(upstream.connections.count == 0)
    }

    @Test(arguments: unsupported)
    func unsupportedRequests(text: String, status: Int) throws {
        let upstream = try TestUpstream { _ in okay("forwarded") }
        defer { upstream.close() }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send(text)
        #expect(client.readResponse()?.status == status)
        #expect(upstream.connections.count == 0)
    }

    /// The head is fine, the framing of the body is not: the upstream has the head by then, and
    /// must never take what came for a whole request.
    @Test(arguments: [
        "g\r\n", "\r\n", "-1\r\n", "0x1\r\nA\r\n", " 1\r\nA\r\n", "1 \r\nA\r\n", "1\nA\n",
        "1\r\nAB\r\n", "1\r\nA\n0\r\n\r\n", "FFFFFFFFFFFFFFFFF\r\n", "1;a\u{0}\r\nA\r\n",
        "0\r\n\n", "0\r\nA: b\n\r\n", "0\r\nA: b\r\nX",
    ])
    func chunkedBodies(body: String) throws {
        let counter = Counter()
        let upstream = try TestUpstream { upstream, socket in
            if socket.readRequest() != nil { counter.increment() }
        }
        defer { upstream.close() }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        client.finishWriting()
        let response = client.readResponse()
        #expect(response == nil || response?.status == 400 || response?.status == 502)
        #expect(client.readToEnd().isEmpty)
        #expect(eventually { proxy.outcomes.all.count == 1 })
        #expect(counter.count == 0)
    }

    /// Responses that no client may get as they are: 502, or cut where the head was fine.
    @Test(arguments: [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", true),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", true),
        ("HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", true),
        ("HTTP/9.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd", false),
        ("HTTP/1.1 200 OK\r\nX: " + String(repeating: "a", count: 40_000) + "\r\n\r\n", true),
    ])
    func upstreamResponses(text: String, isRefused: Bool) throws {
        let upstream = try TestUpstream { _ in text }
        defer { upstream.close() }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send(get("/"))
        let response = try #require(client.readResponse())
        if isRefused {
            #expect(response.status == 502)
        } else {
            #expect(response.status == 200 && !response.isWhole)
        }
        #expect(proxy.outcomes.waitForOne()?.reason == .upstreamProtocol)
    }

    /// A response that nobody asked for must not become the answer to the next request.
    @Test func unsolicitedResponses() throws {
        let upstream = try TestUpstream { request in
            request.path == "/1" ? okay("one") + okay("poison") : okay("two")
        }
        defer { upstream.close() }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send(get("/1"))
        #expect(client.readResponse()?.text == "one")
        client.send(get("/2"))
        #expect(client.readResponse()?.text == "two")
        #expect(upstream.connections.count == 2)
    }
}
