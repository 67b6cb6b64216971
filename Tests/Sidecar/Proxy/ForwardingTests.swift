import Glibc
import Testing
import WeirCore

@testable import SidecarCore

@Suite struct ForwardingTests {
    @Test func connectionsAreKeptOnBothSides() throws {
        let upstream = try TestUpstream { okay("you asked for \($0.path)") }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        for number in 0..<10 {
            client.send(get("/\(number)"))
            let response = try #require(client.readResponse())
            #expect(response.status == 200 && response.text == "you asked for /\(number)")
            #expect(response["weir-request-id"]?.hasPrefix("req_") == true)
            #expect(response["date"]?.hasSuffix("GMT") == true && response["via"] == "1.1 weir")
        }
        #expect(upstream.connections.count == 1)
        #expect(proxy.outcomes.all.allSatisfy { $0.kind == .completed && $0.status == 200 })
        #expect(proxy.outcomes.all.count == 10)
    }

    @Test func pipelinedRequestsAreAnsweredInOrder() throws {
        let upstream = try TestUpstream { okay("[\($0.path) \($0.text)]") }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        var all = ""
        for number in 0..<30 {
            all += number % 2 == 0 ? get("/\(number)") : post("/\(number)", "body\(number)")
        }
        client.send(all)
        for number in 0..<30 {
            let body = number % 2 == 0 ? "" : "body\(number)"
            #expect(client.readResponse()?.text == "[/\(number) \(body)]")
        }
    }

    @Test func headsArriveByteByByte() throws {
        let upstream = try TestUpstream { okay($0.text) }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        Socket.disableNagle(client.raw)
        for byte in post("/", "abc").utf8 { client.send([byte]) }
        #expect(client.readResponse()?.text == "abc")
    }

    @Test func chunkedBodiesAreFramedAnew() throws {
        let upstream = try TestUpstream { request in
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n"
                + "3;ext=1\r\n\(request.text.prefix(3))\r\n02\r\nde\r\n0\r\nx-sum: 5\r\n"
                + "content-length: 9\r\nweir-settlement: forged\r\n\r\n"
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send("1;x\r\na\r\n0002\r\nbc\r\n0\r\nX-Sum: 1\r\nTE: x\r\n\r\n")
        let response = try #require(client.readResponse())
        #expect(response.isWhole && response.text == "abcde" && response.trailers == ["x-sum: 5"])
        let seen = try #require(upstream.lastRequest)
        #expect(seen.text == "abc" && seen.trailers == ["X-Sum: 1"])
        #expect(seen["transfer-encoding"] == "chunked" && seen["content-length"] == nil)
        client.send(get("/again"))
        #expect(client.readResponse()?.status == 200)
        #expect(upstream.connections.count == 1)
    }

    @Test func responsesWithoutBodies() throws {
        let upstream = try TestUpstream { request in
            switch request.path {
            case "/204": "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"
            case "/304": "HTTP/1.1 304 Not Modified\r\nContent-Length: 700\r\nETag: x\r\n\r\n"
            default: "HTTP/1.1 200 OK\r\nContent-Length: 700\r\n\r\n"
            }
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send(get("/204") + get("/304") + "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + get("/204"))
        let first = try #require(client.readResponse())
        #expect(first.status == 204 && first["content-length"] == nil)
        let second = try #require(client.readResponse())
        #expect(second.status == 304 && second["content-length"] == "700")
        let third = try #require(client.readResponse(method: "HEAD"))
        #expect(third.status == 200 && third["content-length"] == "700")
        #expect(client.readResponse()?.status == 204)
        #expect(upstream.connections.count == 1)
    }

    @Test func fieldsOfTheHopAndOfTheMeshDoNotPass() throws {
        let upstream = try TestUpstream { _ in
            okay(
                "x",
                "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
                    + "weir-settlement: forged\r\nX-Kept: 1\r\nServer: agent\r\n")
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send(
            get(
                "/",
                "Connection: x-mine, keep-alive\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
                    + "Proxy-Authorization: x\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"
                    + "weir-tier: gold\r\nWeir-Delegation: forged\r\nAuthorization: Bearer x\r\n"
                    + "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\n"
                    + "X-Forwarded-Proto: https\r\nForwarded: for=1.2.3.4\r\nVia: 1.1 a\r\n"))
        let response = try #require(client.readResponse())
        for name in ["x-hop", "keep-alive", "weir-settlement", "connection"] {
            #expect(response[name] == nil, "\(name)")
        }
        #expect(response["x-kept"] == "1" && response["server"] == "agent")
        let seen = try #require(upstream.lastRequest)
        for name in [
            "connection", "x-mine", "keep-alive", "te", "proxy-authorization", "upgrade",
            "http2-settings", "weir-tier", "weir-delegation",
        ] { #expect(seen[name] == nil, "\(name)") }
        #expect(seen["authorization"] == "Bearer x" && seen["host"] == "agent")
        #expect(seen.all("x-forwarded-for") == ["1.2.3.4, 5.6.7.8, 127.0.0.1"])
        #expect(seen.all("x-forwarded-proto") == ["http"])
        #expect(seen["x-forwarded-host"] == "agent")
        #expect(seen.all("forwarded") == ["for=1.2.3.4, for=\"127.0.0.1\";proto=http"])
        #expect(seen.all("via") == ["1.1 a", "1.1 weir"])
        #expect(seen["traceparent"]?.utf8.count == 55)
    }

    @Test func traceparentPassesWhenItIsOne() throws {
        let upstream = try TestUpstream { _ in okay("") }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        client.send(get("/", "traceparent: \(good)\r\n"))
        _ = client.readResponse()
        #expect(upstream.lastRequest?.all("traceparent") == [good])
        let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01"
        client.send(get("/", "traceparent: \(zero)\r\n"))
        _ = client.readResponse()
        let started = upstream.lastRequest?.all("traceparent") ?? []
        #expect(started.count == 1 && started != [zero])
    }

    @Test func expectationsAreForwarded() throws {
        let upstream = try TestUpstream { upstream, socket in
            guard let head = socket.readHead(), head["expect"] == "100-continue" else { return }
            socket.send("HTTP/1.1 100 Continue\r\n\r\n")
            let body = socket.read(3) ?? []
            socket.send("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
            socket.send(okay(String(decoding: body, as: UTF8.self)))
            _ = socket.readLine()
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        #expect(client.readHead()?.status == 100)
        client.send("abc")
        let hints = client.readHead()
        #expect(hints?.status == 103 && hints?["link"] == "x")
        #expect(client.readResponse()?.text == "abc")
    }

    @Test func oldClients() throws {
        let upstream = try TestUpstream { request in
            request.path == "/chunked"
                ? "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
                : okay("abc")
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        let first = try #require(client.readResponse())
        #expect(first["connection"] == "keep-alive" && first.text == "abc")
        client.send("GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        let second = try #require(client.readResponse())
        #expect(second["transfer-encoding"] == nil && second["connection"] == "close")
        #expect(second.text == "abc" && client.isClosedByPeer())
    }

    @Test func oldUpstreamsEndTheirBodyByClosing() throws {
        let upstream = try TestUpstream { upstream, socket in
            _ = socket.readHead()
            socket.send("HTTP/1.0 200 OK\r\n\r\nuntil the end")
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        for _ in 0..<2 {
            client.send(get("/"))
            let response = try #require(client.readResponse())
            #expect(response["transfer-encoding"] == "chunked" && response.text == "until the end")
            #expect(response.isWhole)
        }
    }

    @Test func closeIsHonouredOnBothSides() throws {
        let upstream = try TestUpstream { upstream, socket in
            _ = socket.readHead()
            socket.send(okay("x", "Connection: close\r\n"))
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send(get("/"))
        #expect(client.readResponse()?["connection"] == nil)
        client.send(get("/", "Connection: close\r\n"))
        #expect(client.readResponse()?["connection"] == "close")
        #expect(client.isClosedByPeer())
        #expect(upstream.connections.count == 2)
    }

    @Test func aHalfClosedClientGetsItsAnswer() throws {
        let upstream = try TestUpstream { _ in
            // tidy: a slow upstream is the subject
            usleep(50_000)
            return okay("late")
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send(get("/"))
        client.finishWriting()
        #expect(client.readResponse()?.text == "late")
        #expect(client.isClosedByPeer())
    }

    @Test func eventsAreNotDelayed() throws {
        let step = Signal()
        let upstream = try TestUpstream { upstream, socket in
            _ = socket.readHead()
            socket.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            socket.send("9\r\ndata: a\n\n\r\n")
            _ = step.wait()
            socket.send("9\r\ndata: b\n\n\r\n0\r\n\r\n")
            _ = socket.readLine()
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send(get("/"))
        #expect(client.readHead()?.status == 200)
        #expect(client.readLine() == "9")
        #expect(client.read(11).map { String(decoding: $0, as: UTF8.self) } == "data: a\n\n\r\n")
        step.set()
        #expect(client.readLine() == "9")
    }
}
