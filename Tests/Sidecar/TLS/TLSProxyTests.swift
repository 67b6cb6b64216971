import Glibc
import Synchronization
import Testing

@testable import SidecarCore

/// Two sidecars in a row: plaintext to the first, TLS between them, plaintext behind.
private final class TLSChain {
    let back: ProxyFixture
    let front: ProxyFixture
    let serverContext: TLSCurrent<TLSServerContext>

    init(
        _ upstream: [SocketAddress], server: TLSServerContext, client: TLSClientContext,
        name: TLSServerName = .dns("localhost"), timeouts: Timeouts = Timeouts()
    ) throws {
        serverContext = TLSCurrent(server)
        back = try ProxyFixture(
            upstream, timeouts: timeouts, tls: TLSListener(serverContext),
            make: { IdentityEcho(target: $0, outcomes: $1) })
        let box = FailureList()
        let target = TLSUpstream(name, TLSCurrent(client)) { failure, _ in box.append(failure) }
        seen = box
        front = try ProxyFixture(
            [back.server.address], timeouts: timeouts, transport: .tls(target))
    }

    private let seen: FailureList
    var upstreamFailures: [TLSFailure] { seen.all }

    func stop() {
        front.stop()
        back.stop()
    }
}

private final class FailureList: Sendable {
    private let list = Mutex<[TLSFailure]>([])
    func append(_ failure: TLSFailure) { list.withLock { $0.append(failure) } }
    var all: [TLSFailure] { list.withLock { $0 } }
}

/// Says upstream whom the client's certificate names.
private final class IdentityEcho: TestInterceptor {
    override func requestBegan(_ exchange: Exchange) -> Verdict {
        _ = exchange.addedRequestFields.add(
            "test-identity", exchange.peerIdentity?.description ?? "nobody")
        return .admit(target)
    }
}

@Suite struct TLSProxyTests {
    private static func echo() throws -> TestUpstream {
        try TestUpstream { request in
            okay(
                "\(request["test-identity"] ?? "") \(request["x-forwarded-proto"] ?? "") "
                    + String(request.body.count))
        }
    }

    @Test func `requests pass through TLS on both sides, and say so`() throws {
        let upstream = try Self.echo()
        let chain = try TLSChain(
            [upstream.address], server: TestCertificates.strictServer(),
            client: TestCertificates.client("client"))
        defer { chain.stop() }
        let client = chain.front.client()
        for _ in 0..<3 {
            client.send(get("/"))
            // The first proxy said http, and the second does not believe it.
            #expect(client.readResponse()?.text == "spiffe://mesh.test/agent/one https 0")
        }
        #expect(upstream.connections.count == 1)
    }

    @Test func `large bodies pass whole in both directions`() throws {
        let upstream = try TestUpstream { request in okay(request.text) }
        let chain = try TLSChain(
            [upstream.address], server: TestCertificates.server(),
            client: TestCertificates.client())
        defer { chain.stop() }
        let client = chain.front.client()
        let body = (0..<400_000).map { String($0) }.joined()
        let sender = Thread { client.send(post("/", body)) }
        sender.start()
        let response = client.readResponse()
        #expect(response?.text == body)
        #expect(response?.isWhole == true)
    }

    @Test func `a slow reader slows its upstream and loses nothing`() throws {
        let big = String(repeating: "0123456789abcdef", count: 1 << 19)
        let upstream = try TestUpstream { _ in okay(big) }
        let chain = try TLSChain(
            [upstream.address], server: TestCertificates.server(),
            client: TestCertificates.client())
        defer { chain.stop() }
        let client = chain.front.client()
        client.send(get("/"))
        let head = client.readHead()
        #expect(head?.status == 200)
        #expect(eventually { chain.front.onLoop { $0.loop.pool.lentBytes } > 0 })
        #expect(client.read(big.utf8.count) == Array(big.utf8))
    }

    @Test func `an upstream with another name is refused and not called`() throws {
        let upstream = try Self.echo()
        let chain = try TLSChain(
            [upstream.address], server: TestCertificates.server("other-name"),
            client: TestCertificates.client())
        defer { chain.stop() }
        let client = chain.front.client()
        client.send(get("/"))
        let response = client.readResponse()
        #expect(response?.status == 502)
        #expect(response?.text.contains("upstream_error") == true)
        #expect(upstream.requestCount == 0)
        #expect(chain.upstreamFailures == [.untrusted(62)])
        #expect(
            chain.front.outcomes.waitForOne()?.upstreamFailure == .handshakeFailed(.untrusted(62)))
        #expect(chain.front.outcomes.all.first?.upstreamTouched == false)
    }

    @Test func `a reload concerns new connections only`() throws {
        let upstream = try Self.echo()
        let chain = try TLSChain(
            [upstream.address], server: TestCertificates.server(),
            client: TestCertificates.client())
        defer { chain.stop() }
        let old = chain.front.client()
        old.send(get("/"))
        #expect(old.readResponse()?.status == 200)
        // From here on, a new upstream connection would fail.
        chain.serverContext.replace(try TestCertificates.server("other-name"))
        old.send(get("/"))
        #expect(old.readResponse()?.status == 200)
        #expect(upstream.connections.count == 1)
        // Away with the idle one: the next connection meets the new certificate.
        chain.front.onLoop { _ in chain.front.target.closeIdleConnections() }
        old.send(get("/"))
        #expect(old.readResponse()?.status == 502)
    }

    // MARK: The end of a body

    /// A TLS server that answers with a body that ends with the connection.
    private static func closing(orderly: Bool) throws -> TestUpstream {
        let context = try TestCertificates.server()
        return try TestUpstream { _, socket in
            guard let session = try? TLSSession(server: context), session.attach(socket.raw) else {
                return
            }
            guard case .done = session.handshake() else { return }
            _ = TLSPair.read(session)
            _ = TLSPair.write(session, "HTTP/1.1 200 OK\r\n\r\nhalf of the truth")
            if orderly { _ = session.closeNotify() }
        }
    }

    @Test(arguments: [true, false])
    func `a body that ends with the connection is whole only behind close_notify`(
        _ orderly: Bool
    ) throws {
        let upstream = try Self.closing(orderly: orderly)
        let front = try ProxyFixture(
            [upstream.address],
            transport: .tls(
                TLSUpstream(.dns("localhost"), TLSCurrent(try TestCertificates.client()))))
        defer { front.stop() }
        let client = front.client()
        client.send(get("/"))
        let response = client.readResponse()
        #expect(response?.status == 200)
        #expect(response?.isWhole == orderly)
        #expect(
            front.outcomes.waitForOne()?.upstreamFailure == (orderly ? nil : .diedMidStream))
    }

    // MARK: Handshakes that do not end

    @Test func `a slow handshake is closed in time`() throws {
        var timeouts = Timeouts()
        timeouts.handshakeNanoseconds = 200_000_000
        let failures = FailureList()
        let server = try ProxyFixture(
            [.loopback(port: 1)], timeouts: timeouts,
            tls: TLSListener(TLSCurrent(try TestCertificates.server())) { failure, _ in
                failures.append(failure)
            })
        defer { server.stop() }
        let client = server.client()
        client.send([0x16])
        #expect(client.isClosedByPeer())
        #expect(failures.all == [.connection(ETIMEDOUT)])
        #expect(server.onLoop { $0.connectionCount } == 0)
    }

    @Test func `handshakes that do not end are bounded, and others still serve`() throws {
        let upstream = try Self.echo()
        let chain = try TLSChain(
            [upstream.address], server: TestCertificates.server(),
            client: TestCertificates.client())
        defer { chain.stop() }
        var half: [TestSocket] = []
        for _ in 0..<(TLSLimits.handshakesPerLoop + 50) { half.append(chain.back.client()) }
        #expect(eventually { chain.back.onLoop { $0.connectionCount } > 1_000 })
        #expect(
            chain.back.onLoop { $0.connectionCount } <= TLSLimits.handshakesPerLoop)
        let client = chain.front.client()
        client.send(get("/"))
        #expect(client.readResponse()?.status == 200)
    }

    @Test func `plaintext to a TLS listener is closed and nothing else`() throws {
        let failures = FailureList()
        let server = try ProxyFixture(
            [.loopback(port: 1)],
            tls: TLSListener(TLSCurrent(try TestCertificates.server())) { failure, _ in
                failures.append(failure)
            })
        defer { server.stop() }
        let client = server.client()
        client.send(get("/"))
        _ = client.readToEnd()
        #expect(eventually { server.onLoop { $0.connectionCount } == 0 })
        #expect(failures.all.map(\.description) == ["the handshake failed: http request"])
    }
}
