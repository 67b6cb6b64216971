import Testing

@testable import SidecarCore

/// What RFC 9110 and RFC 9112 want of an intermediary and the other tests of this folder do not
/// show in passing; `docs/conformance.md` says which requirement each test is for.
@Suite struct ConformanceTests {
    @Test func theServerAsAWholeIsAsked() throws {
        let upstream = try TestUpstream { okay(String($0.first.dropLast(9))) }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(client.readResponse()?.text == "OPTIONS *")
        client.send("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(client.readResponse()?.text == "OPTIONS *")
        client.send("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(client.readResponse()?.text == "GET /")
    }

    @Test func forwardsAreCounted() throws {
        let upstream = try TestUpstream { okay($0["max-forwards"] ?? "none") }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        func ask(_ field: String, method: String = "OPTIONS") -> TestMessage? {
            client.send("\(method) / HTTP/1.1\r\nHost: a\r\n\(field)\r\n")
            return client.readResponse()
        }
        #expect(ask("Max-Forwards: 3\r\n")?.text == "2")
        #expect(ask("Max-Forwards: 999999999\r\n")?.text == "99")
        #expect(ask("")?.text == "none")
        // Only TRACE and OPTIONS count; for others it is a field like any other.
        #expect(ask("Max-Forwards: 0\r\n", method: "GET")?.text == "0")
        let forwarded = upstream.requestCount
        let last = ask("Max-Forwards: 0\r\n")
        #expect(last?.status == 204 && last?["allow"]?.contains("OPTIONS") == true)
        #expect(ask("Max-Forwards: one\r\n")?.status == 400)
        #expect(upstream.requestCount == forwarded, "neither may reach the agent")
    }

    /// RFC 9110 §7.6.1: what `Connection` names goes no further, in a 1xx response neither.
    @Test func fieldsOfAHopEndInEveryMessage() throws {
        let upstream = try TestUpstream { request in
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n"
                + okay(request["x-hop"] ?? "clean", "Connection: x-hop\r\nX-Hop: 2\r\n")
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send(get("/", "Connection: x-hop\r\nX-Hop: 0\r\n"))
        let early = try #require(client.readHead())
        #expect(early.status == 103 && early["link"] == "</a>" && early["x-hop"] == nil)
        let final = try #require(client.readResponse())
        #expect(final.text == "clean" && final["x-hop"] == nil && final["connection"] == nil)
    }

    /// RFC 9112 §6.3: what ends before its length is no whole message, and goes nowhere else.
    @Test func requestsThatEndEarlyAreNotWhole() throws {
        let counter = Counter()
        let upstream = try TestUpstream { _, socket in
            if socket.readRequest() != nil { counter.increment() }
        }
        defer { upstream.close() }
        let proxy = try ProxyFixture(upstream)
        for body in [
            "Content-Length: 10\r\n\r\nhello",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        ] {
            let client = proxy.client()
            client.send("POST / HTTP/1.1\r\nHost: a\r\n" + body)
            client.finishWriting()
            #expect(client.readToEnd().isEmpty)
        }
        #expect(eventually { proxy.outcomes.all.count == 2 })
        #expect(proxy.outcomes.all.allSatisfy { $0.kind == .clientGone })
        #expect(counter.count == 0)
    }

    /// RFC 9110 §5.6.1: a list may have empty elements, and `close` counts wherever it stands.
    @Test func listsMayHaveEmptyElements() throws {
        let upstream = try TestUpstream { okay($0["x-hop"] ?? "clean") }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send(get("/", "Connection: , x-hop,, ,\r\nX-Hop: 1\r\n"))
        let response = client.readResponse()
        #expect(response?.text == "clean" && response?["connection"] == nil)
        client.send(get("/", "Connection: ,,close,\r\n"))
        #expect(client.readResponse()?["connection"] == "close")
        #expect(client.isClosedByPeer())
    }

    /// RFC 9110 §9.1: any token is a method, and case matters.
    @Test func methodsAreTheAgents() throws {
        let upstream = try TestUpstream { okay(String($0.first.dropLast(11))) }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        for method in ["get", "PROPFIND", "M-SEARCH", "!#$%&'*+.^_`|~"] {
            client.send("\(method) / HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(client.readResponse()?.text == method)
        }
    }
}
