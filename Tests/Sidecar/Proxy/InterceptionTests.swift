import Glibc
import Synchronization
import Testing
import WeirCore

@testable import SidecarCore

/// Verdicts of every kind, changed messages, trailers, local answers and requests of our own.
@Suite struct InterceptionTests {
    private final class Scripted: TestInterceptor {
        var began: ((Exchange) -> Verdict)?
        var held: ((Exchange, UnsafeRawBufferPointer) -> Verdict)?
        var responded: ((Exchange, Int) -> Void)?
        var bytes: ((Exchange, UnsafeRawBufferPointer) -> Void)?
        var ended: ((Exchange, ExchangeOutcome) -> Void)?

        override func requestBegan(_ exchange: Exchange) -> Verdict {
            began?(exchange) ?? .admit(target)
        }
        override func requestBodyHeld(
            _ exchange: Exchange, _ body: UnsafeRawBufferPointer
        ) -> Verdict { held?(exchange, body) ?? .admit(target) }
        override func responseBegan(_ exchange: Exchange, status: Int) {
            responded?(exchange, status)
        }
        override func responseBytes(_ exchange: Exchange, _ bytes: UnsafeRawBufferPointer) {
            self.bytes?(exchange, bytes)
        }
        override func exchangeEnded(_ exchange: Exchange, _ outcome: ExchangeOutcome) {
            ended?(exchange, outcome)
            super.exchangeEnded(exchange, outcome)
        }
    }

    private func proxy(
        _ upstreams: [SocketAddress], _ configure: (Scripted) -> Void
    ) throws -> ProxyFixture {
        try ProxyFixture(upstreams) { target, log in
            let scripted = Scripted(target: target, outcomes: log)
            configure(scripted)
            return scripted
        }
    }

    private func text(_ bytes: UnsafeRawBufferPointer) -> String {
        String(decoding: bytes, as: UTF8.self)
    }

    // MARK: Refusals

    @Test func refusalsKeepTheConnectionWhenTheBodyIsSmall() throws {
        let proxy = try proxy([]) { scripted in
            scripted.began = { _ in
                var refusal = Refusal(.rateLimited, detail: "slow down", retryAfterSeconds: 7)
                refusal.fields = [("ratelimit", "\"default\";r=0;t=7")]
                refusal.members = [("tier", "free")]
                return .refuse(refusal)
            }
        }
        let client = proxy.client()
        let chunked =
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        for request in [get("/"), post("/", "body"), chunked, get("/")] {
            client.send(request)
            let response = try #require(client.readResponse())
            #expect(response.status == 429 && response["retry-after"] == "7")
            #expect(response["weir-decision"] == "rate_limited" && response["connection"] == nil)
            #expect(response["ratelimit"] == "\"default\";r=0;t=7")
            let document = try JSON.parse(response.body).object
            #expect(document?["reason"]?.string == "rate_limited")
            #expect(document?["tier"]?.string == "free")
            #expect(document?["request_id"]?.string == response["weir-request-id"])
        }
        #expect(proxy.outcomes.all.count == 4)
        #expect(proxy.outcomes.all.allSatisfy { $0.kind == .refused && !$0.upstreamTouched })
    }

    @Test(arguments: ["Content-Length: 100000000", "Content-Length: 5\r\nExpect: 100-continue"])
    func refusalsCloseWhenTheBodyIsNotWorthReading(fields: String) throws {
        let proxy = try proxy([]) { $0.began = { _ in .refuse(Refusal(.forbidden)) } }
        let client = proxy.client()
        client.send("POST / HTTP/1.1\r\nHost: a\r\n\(fields)\r\n\r\n")
        let response = try #require(client.readResponse())
        #expect(response.status == 403 && response["connection"] == "close")
        #expect(client.isClosedByPeer())
    }

    @Test func aRefusalReachesAClientThatStillSends() throws {
        let proxy = try proxy([]) { $0.began = { _ in .refuse(Refusal(.forbidden)) } }
        let client = proxy.client()
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
        client.send([UInt8](repeating: 120, count: 150_000))
        #expect(client.readResponse()?.status == 403)
    }

    // MARK: Held bodies

    @Test func bodiesAreHeldAndReplaced() throws {
        let upstream = try TestUpstream { okay($0.text) }
        let proxy = try proxy([upstream.address]) { scripted in
            scripted.began = { exchange in
                exchange.removeRequestField(.acceptEncoding)
                exchange.addedRequestFields.add("accept-encoding", "identity")
                exchange.targetOverride = "/v2"
                return .holdBody(bytesMax: 1_000_000)
            }
            scripted.held = { exchange, body in
                if self.text(body) == "refuse" { return .refuse(Refusal(.invalid)) }
                let replacement = Array("<\(self.text(body))>".utf8)
                precondition(replacement.withUnsafeBytes { exchange.replaceHeldBody($0) })
                return .admit(scripted.target)
            }
        }
        let client = proxy.client()
        client.send(post("/v1", "abc", "Accept-Encoding: gzip\r\n"))
        #expect(client.readResponse()?.text == "<abc>")
        let seen = try #require(upstream.lastRequest)
        #expect(seen.path == "/v2" && seen.all("accept-encoding") == ["identity"])
        #expect(seen.all("content-length") == ["5"])
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send("2\r\nxy\r\n1\r\nz\r\n0\r\n\r\n")
        #expect(client.readResponse()?.text == "<xyz>")
        #expect(upstream.lastRequest?["transfer-encoding"] == nil)
        client.send(post("/", "refuse"))
        #expect(client.readResponse()?.status == 422)
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        #expect(client.readHead()?.status == 100)
        client.send("abc")
        #expect(client.readResponse()?.text == "<abc>")
        #expect(upstream.lastRequest?["expect"] == nil)
        let large = String(repeating: "x", count: 500_000)
        client.send(post("/", large))
        #expect(client.readResponse()?.body.count == 500_002)
        #expect(proxy.onLoop { $0.loop.pool.lentBytes } == 0)
    }

    @Test(arguments: [
        "Content-Length: 11\r\n\r\nhello world",
        "Transfer-Encoding: chunked\r\n\r\nB\r\nhello world\r\n0\r\n\r\n",
    ])
    func bodiesThatAreTooLargeToHold(body: String) throws {
        let proxy = try proxy([]) { $0.began = { _ in .holdBody(bytesMax: 10) } }
        let client = proxy.client()
        client.send("POST / HTTP/1.1\r\nHost: a\r\n" + body)
        #expect(client.readResponse()?.status == 413)
        client.send("POST / HTTP/1.1\r\nHost: a\r\n" + body)
        #expect(client.readResponse()?.status == 413)
    }

    @Test func decisionsMayComeLater() throws {
        let upstream = try TestUpstream { okay($0.text) }
        let proxy = try proxy([upstream.address]) { scripted in
            scripted.began = { exchange in
                exchange.worker.loop.schedule(afterNanoseconds: 10_000_000) {
                    exchange.resume(with: .admit(scripted.target))
                }
                return .wait
            }
        }
        let client = proxy.client()
        for number in 0..<3 {
            client.send(post("/", "later\(number)"))
            #expect(client.readResponse()?.text == "later\(number)")
        }
    }

    // MARK: Trailers

    @Test func settlementsAreTrailersOrFields() throws {
        let upstream = try TestUpstream { request in
            switch request.path {
            case "/none": "HTTP/1.1 204 No Content\r\n\r\n"
            case "/chunked":
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            case "/empty": okay("")
            default: okay("abc")
            }
        }
        let proxy = try proxy([upstream.address]) { scripted in
            scripted.began = { exchange in
                exchange.declaresTrailers = true
                return .admit(scripted.target)
            }
            scripted.ended = { exchange, _ in
                exchange.responseTrailers.add("weir-settlement", "paid")
            }
        }
        let client = proxy.client()
        for path in ["/", "/chunked", "/empty"] {
            client.send(get(path))
            let response = try #require(client.readResponse())
            #expect(response.text == (path == "/empty" ? "" : "abc"), "\(path)")
            #expect(response["trailer"] == "weir-settlement" && response["content-length"] == nil)
            #expect(response.trailers == ["weir-settlement: paid"], "\(path)")
        }
        client.send(get("/none"))
        let none = try #require(client.readResponse())
        #expect(none.status == 204 && none["weir-settlement"] == "paid" && none["trailer"] == nil)
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(client.readResponse(method: "HEAD")?["weir-settlement"] == "paid")
        #expect(proxy.outcomes.all.count == 5 && upstream.connections.count == 1)
    }

    @Test func aStreamIsCutShortInGoodOrder() throws {
        let upstream = try TestUpstream { upstream, socket in
            _ = socket.readHead()
            socket.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
            _ = socket.readLine()
        }
        let proxy = try proxy([upstream.address]) { scripted in
            scripted.bytes = { exchange, _ in
                exchange.worker.loop.schedule(afterNanoseconds: 5_000_000) {
                    let last = Array("end".utf8)
                    last.withUnsafeBytes {
                        exchange.cutShort(lastBytes: $0, reason: .budgetExhausted)
                    }
                }
            }
        }
        let client = proxy.client()
        client.send(get("/"))
        let response = try #require(client.readResponse())
        #expect(response.isWhole && response.text == "aend")
        #expect(proxy.outcomes.waitForOne()?.kind == .cutShort)
    }

    // MARK: Local answers

    @Test func localAnswers() throws {
        let proxy = try proxy([]) { scripted in
            scripted.began = { _ in
                .local(
                    LocalHandler { request in
                        LocalResponse(
                            status: 201, contentType: "text/plain",
                            Array("\(request.method) \(request.path) \(request.query ?? "-") ".utf8)
                                + request.body)
                    })
            }
        }
        let client = proxy.client()
        client.send(get("/a?b=c") + post("/d", "body") + "HEAD /e HTTP/1.1\r\nHost: a\r\n\r\n")
        let first = try #require(client.readResponse())
        #expect(first.status == 201 && first.text == "GET /a b=c ")
        #expect(first["content-type"] == "text/plain")
        #expect(client.readResponse()?.text == "POST /d - body")
        #expect(client.readResponse(method: "HEAD")?["content-length"] == "10")
        #expect(proxy.outcomes.all.allSatisfy { $0.kind == .answered })
    }

    @Test func ofItsOwnFieldsALocalAnswerSeesThePublicOnesOnly() throws {
        let proxy = try proxy([]) { scripted in
            scripted.began = { _ in
                .local(
                    LocalHandler(publicFields: ["weir-tags"]) { request in
                        let names = request.fields.map { $0.name.lowercased() }
                        let own = names.filter { $0.hasPrefix("weir-") }.joined(separator: " ")
                        return LocalResponse(
                            status: 200, contentType: "text/plain", Array(own.utf8))
                    })
            }
        }
        let client = proxy.client()
        client.send(
            "GET / HTTP/1.1\r\nHost: a\r\nWeir-Tags: a\r\nweir-delegation: x\r\n"
                + "weir-tags-too: b\r\n\r\n")
        #expect(client.readResponse()?.text == "weir-tags")
    }

    @Test func localStreamsArePushedBackAndCancelled() throws {
        let cancelled = Signal()
        let written = Counter()
        let proxy = try proxy([]) { scripted in
            scripted.began = { exchange in
                let loop = exchange.worker.loop
                return .local(
                    LocalHandler { _ in
                        LocalResponse(
                            status: 200,
                            body: .stream { writer in
                                defer { cancelled.set() }
                                for _ in 0..<10_000 {
                                    try await writer.write([UInt8](repeating: 120, count: 10_000))
                                    written.increment()
                                    try await loop.sleep(nanoseconds: 1)
                                }
                            })
                    })
            }
        }
        let client = proxy.client()
        client.send(get("/"))
        #expect(client.readHead()?["transfer-encoding"] == "chunked")
        // Nobody reads: the writer is suspended long before 100 MB.
        var before = -1
        #expect(
            eventually {
                // tidy: the pause between two looks at a counter
                usleep(50_000)
                defer { before = written.count }
                return written.count == before && before > 0
            })
        #expect(written.count < 2000 && !cancelled.isSet)
        client.reset()
        #expect(cancelled.wait())
        #expect(eventually { proxy.onLoop { $0.loop.pool.lentBytes } == 0 })
    }

    // MARK: Requests of our own

    @Test func ownRequests() throws {
        let upstream = try TestUpstream { request in
            request.path == "/trailers"
                ? "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
                    + "weir-cost-usd: 1\r\n\r\n3\r\nabc\r\n"
                    + "0\r\nweir-settlement: paid\r\n\r\n" : okay(request.text)
        }
        let proxy = try proxy([]) { scripted in
            let worker = scripted.target.worker
            let target = UpstreamTarget(
                name: "own", worker: worker, addresses: [upstream.address])
            let client = HTTPClient(worker: worker)
            scripted.began = { _ in
                .local(
                    LocalHandler { request in
                        var report: [String] = []
                        do {
                            let first = try await client.send(
                                ClientRequest(method: "POST", target: "/", body: request.body),
                                to: target, deadlineNanoseconds: 1_000_000_000)
                            report.append(String(decoding: first.body, as: UTF8.self))
                            let second = try await client.send(
                                ClientRequest(
                                    target: "/trailers", fields: [("weir-delegation", "mine")]),
                                to: target, deadlineNanoseconds: 1_000_000_000)
                            report.append(second.trailer("weir-settlement") ?? "-")
                            report.append(second.field("weir-cost-usd") ?? "-")
                            _ = try await client.send(
                                ClientRequest(target: "/bad target"), to: target,
                                deadlineNanoseconds: 1_000_000_000)
                        } catch {
                            report.append((error as? ClientError)?.reason.name ?? "-")
                        }
                        return LocalResponse(
                            status: 200, contentType: "text/plain",
                            Array(report.joined(separator: " ").utf8))
                    })
            }
        }
        let client = proxy.client()
        client.send(post("/", "hello"))
        #expect(client.readResponse()?.text == "hello paid 1 malformed")
        let seen = try #require(upstream.lastRequest)
        #expect(seen["weir-delegation"] == "mine" && seen["x-forwarded-for"] == nil)
    }
}
