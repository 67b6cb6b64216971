import COpenSSL
import Glibc
import Testing

@testable import SidecarCore

@Suite struct TLSSessionTests {
    @Test func `both ends read what the other writes, and see an orderly end`() throws {
        let pair = try TLSPair(TestCertificates.client(), TestCertificates.server())
        #expect(pair.shakeHands().isDone)
        #expect(pair.client.version == "TLSv1.3")
        #expect(TLSPair.write(pair.client, "ask") == 3)
        #expect(TLSPair.read(pair.server).bytes == Array("ask".utf8))
        #expect(TLSPair.read(pair.server).code == EAGAIN)
        #expect(pair.server.closeNotify())
        #expect(TLSPair.read(pair.client).result == 0)
    }

    @Test func `an end without close_notify is a reset and no end`() throws {
        let pair = try TLSPair(TestCertificates.client(), TestCertificates.server())
        #expect(pair.shakeHands().isDone)
        pair.closeClient()
        let read = TLSPair.read(pair.server)
        #expect(read.result == -1)
        #expect(read.code == ECONNRESET)
    }

    @Test func `two pieces are one record`() throws {
        let pair = try TLSPair(TestCertificates.client(), TestCertificates.server())
        #expect(pair.shakeHands().isDone)
        let big = [UInt8](repeating: 7, count: 40_000)
        let taken = big.withUnsafeBytes { bytes in
            pair.client.write(
                UnsafeRawBufferPointer(rebasing: bytes[..<100]),
                UnsafeRawBufferPointer(rebasing: bytes[100...]))
        }
        var got: [UInt8] = []
        while got.count < taken {
            let read = TLSPair.read(pair.server)
            guard read.result > 0 else { break }
            got += read.bytes
        }
        #expect(taken > 16_384)
        #expect(got == Array(big.prefix(taken)))
    }

    private static let otherName = X509_V_ERR_HOSTNAME_MISMATCH

    /// What a peer's certificate must be.
    struct Case: Sendable, CustomStringConvertible {
        var server: String
        var name: TLSServerName
        var verdict: Int32?
        var description: String { "\(server) as \(name)" }
    }

    @Test(arguments: [
        Case(server: "server", name: .dns("localhost")),
        Case(server: "server", name: .address),
        Case(server: "server", name: .dns("api.example.test"), verdict: Self.otherName),
        Case(server: "other-name", name: .dns("api.example.test")),
        Case(server: "other-name", name: .address, verdict: X509_V_ERR_IP_ADDRESS_MISMATCH),
        Case(server: "other-name", name: .dns("example.test"), verdict: Self.otherName),
        // The name in the subject is no host name.
        Case(server: "server", name: .dns("server"), verdict: Self.otherName),
        // A certificate for clients is none for a server.
        Case(server: "client", name: .dns("localhost"), verdict: X509_V_ERR_INVALID_PURPOSE),
    ])
    func `a server is who it was expected to be`(_ expected: Case) throws {
        let pair = try TLSPair(
            TestCertificates.client(), TestCertificates.server(expected.server),
            expects: expected.name)
        let verdicts = pair.shakeHands()
        #expect(verdicts.isDone == (expected.verdict == nil))
        #expect(verdicts.client == expected.verdict.map { .untrusted(Int($0)) })
    }

    @Test func `a server of an unknown authority is refused`() throws {
        let stranger = try TLSClientContext(
            TLSClientSettings(authorities: TestCertificates.pem("other-ca")))
        let verdicts = try TLSPair(stranger, TestCertificates.server()).shakeHands()
        #expect(
            verdicts.client
                == .untrusted(Int(X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY)))
        #expect("\(verdicts.client.map(\.description) ?? "")".contains("local issuer certificate"))
        // The client's alert reaches the server, whose operator reads of it.
        #expect("\(verdicts.server.map(\.description) ?? "")".contains("unknown ca"))
    }

    // MARK: Clients' certificates

    @Test(arguments: [
        ("client", PeerIdentity.spiffe("spiffe://mesh.test/agent/one")),
        ("ci", PeerIdentity.subject("CN=ci runner")),
        ("two-ids", PeerIdentity.subject("CN=two-ids")),
    ])
    func `a client is whom its certificate names`(_ name: String, _ identity: PeerIdentity) throws {
        let pair = try TLSPair(TestCertificates.client(name), TestCertificates.strictServer())
        #expect(pair.shakeHands().isDone)
        #expect(pair.server.peer == identity)
    }

    @Test func `without a client authority nobody is asked`() throws {
        let pair = try TLSPair(TestCertificates.client("client"), TestCertificates.server())
        #expect(pair.shakeHands().isDone)
        #expect(pair.server.peer == nil)
    }

    @Test func `a client without a certificate is refused`() throws {
        let verdicts = try TLSPair(TestCertificates.client(), TestCertificates.strictServer())
            .shakeHands()
        #expect(!verdicts.isDone)
        #expect(verdicts.server == .noCertificate)
    }

    @Test func `a client of another authority is refused`() throws {
        let verdicts = try TLSPair(
            TestCertificates.client("stranger"), TestCertificates.strictServer()
        ).shakeHands()
        #expect(
            verdicts.server
                == .untrusted(Int(X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY)))
    }

    @Test func `of verified clients only those connect that are named`() throws {
        let one = PeerIdentity.spiffe("spiffe://mesh.test/agent/one")
        for (patterns, isAllowed) in [
            (["spiffe://mesh.test/agent/one"], true), (["spiffe://mesh.test/agent/*"], true),
            (["spiffe://mesh.test/agent/two"], false), (["spiffe://mesh.test/agent/on"], false),
            (["spiffe://mesh.test/gateway/*", "CN=ci runner"], false),
        ] {
            let pair = try TLSPair(
                TestCertificates.client("client"), TestCertificates.strictServer(patterns))
            let verdicts = pair.shakeHands()
            #expect(verdicts.isDone == isAllowed, "\(patterns)")
            #expect(verdicts.server == (isAllowed ? nil : .notAllowed(one)), "\(patterns)")
        }
    }

    @Test func `a pattern that would match by accident is none`() {
        for text in ["", "*", "spiffe://mesh*", "spiffe://*", "CN=c*", "spiffe://a/*/b", "a*b"] {
            #expect(IdentityPattern(text) == nil, "\(text)")
        }
        #expect(IdentityPattern("spiffe://mesh.test/*") != nil)
        #expect(IdentityPattern("CN=ci runner") != nil)
    }

    // MARK: Application protocols

    @Test func `the server's first protocol that the client has is spoken`() throws {
        let server = try TestCertificates.server(protocols: [.http2, .http1])
        for (offered, chosen) in [
            ([ApplicationProtocol.http1, .http2], ApplicationProtocol.http2),
            ([.http1], .http1), ([], nil),
        ] {
            let pair = try TLSPair(TestCertificates.client(), server, protocols: offered)
            #expect(pair.shakeHands().isDone)
            #expect(pair.client.applicationProtocol == chosen)
            #expect(pair.server.applicationProtocol == chosen)
        }
    }

    @Test func `a client that speaks nothing of ours is told`() throws {
        let pair = try TLSPair(
            TestCertificates.client(), TestCertificates.server(protocols: [.http1]),
            protocols: [.http2])
        let verdicts = pair.shakeHands()
        #expect(!verdicts.isDone)
        #expect(
            "\(verdicts.server.map(\.description) ?? "")".contains("no application protocol"))
    }

    // MARK: Resumption

    @Test func `a ticket spares the next handshake its certificate`() throws {
        let client = try TestCertificates.client("client")
        let server = try TestCertificates.strictServer()
        let ticket = TLSTicket()
        let first = try TLSPair(client, server, ticket: ticket)
        #expect(first.shakeHands().isDone)
        #expect(!first.client.isResumed)
        let second = try TLSPair(client, server, ticket: ticket)
        #expect(second.shakeHands().isDone)
        #expect(second.server.isResumed)
        #expect(second.server.peer == .spiffe("spiffe://mesh.test/agent/one"))
    }

    @Test func `a ticket does not pass another context of either side`() throws {
        let client = try TestCertificates.client()
        let server = try TestCertificates.server()
        let ticket = TLSTicket()
        #expect(try TLSPair(client, server, ticket: ticket).shakeHands().isDone)
        let renewed = try TLSPair(client, TestCertificates.server(), ticket: ticket)
        #expect(renewed.shakeHands().isDone)
        #expect(!renewed.server.isResumed)
        let trusting = try TLSPair(TestCertificates.client(), server, ticket: ticket)
        #expect(trusting.shakeHands().isDone)
        #expect(!trusting.server.isResumed)
    }

    @Test(arguments: [("server", 7_200...7_200), ("soon", 2_000...3_000)])
    func `a ticket ends with the certificate`(_ name: String, _ seconds: ClosedRange<UInt>) throws {
        let client = try TestCertificates.client()
        let ticket = TLSTicket()
        #expect(
            try TLSPair(client, TestCertificates.server(name), ticket: ticket).shakeHands().isDone)
        let session = try #require(ticket.session(for: client))
        #expect(seconds.contains(SSL_SESSION_get_ticket_lifetime_hint(session)))
    }

    // MARK: Hostile bytes

    @Test(arguments: [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n", String(repeating: "\u{16}\u{3}\u{1}", count: 50),
        String(repeating: "\u{0}", count: 500), "\u{16}\u{3}\u{3}\u{0}\u{4}\u{1}\u{0}\u{0}\u{0}",
    ])
    func `what is no handshake fails and does no harm`(_ text: String) throws {
        let pair = try TLSPair(TestCertificates.client(), TestCertificates.server())
        let bytes = Array(text.utf8)
        #expect(send(pair.clientEnd, bytes, bytes.count, 0) == bytes.count)
        _ = pair.server.handshake()
        // What claims to be the beginning of a long record is one until it ends.
        pair.closeClient()
        guard case .failed(let failure) = pair.server.handshake() else {
            Issue.record("still waiting")
            return
        }
        #expect(!failure.description.isEmpty)
    }

    // MARK: What a context is made of

    @Test func `every problem of certificate and key is told`() throws {
        func problems(_ certificate: String, _ key: String) -> [TLSProblem] {
            let pair = TLSKeyPair(
                certificate: TestCertificates.pem(certificate), key: TestCertificates.pem(key))
            do throws(TLSProblems) {
                _ = try TLSServerContext(TLSServerSettings(pair))
                return []
            } catch {
                return error.list
            }
        }
        #expect(problems("server", "server-key") == [])
        #expect(
            problems("server-key", "server").map(\.part) == [.certificate, .key])
        #expect(
            problems("server", "client-key")
                == [TLSProblem(part: .key, message: "does not belong to the certificate")])
        #expect(
            problems("server", "locked-key").map(\.message)
                == ["holds no private key in PEM without a passphrase"])
        #expect(
            problems("expired", "expired-key").map(\.message) == ["has expired"])
        #expect(throws: TLSProblems.self) {
            try TLSClientContext(TLSClientSettings(authorities: Array("nothing".utf8)))
        }
    }
}
