import CLinux
import Glibc

@testable import SidecarCore

/// The certificates of `Tests/TLS/make-certificates`, made once for a run of the tests.
enum TestCertificates {
    // SAFETY: made once; immutable.
    private static let folder: TemporaryFolder = {
        let folder = TemporaryFolder()
        var root = #filePath.split(separator: "/").dropLast(3)
        root.append("TLS")
        let script = "/" + root.joined(separator: "/") + "/make-certificates"
        precondition(system("\(script) \(folder.path)") == 0, "no certificates: is openssl there?")
        return folder
    }()

    static func path(_ name: String) -> String { "\(folder.path)/\(name).pem" }
    static func pem(_ name: String) -> [UInt8] { folder.read("\(name).pem") }

    static func pair(_ name: String) -> TLSKeyPair {
        TLSKeyPair(certificate: pem(name), key: pem("\(name)-key"))
    }

    /// Trusts the test's authority.
    static func client(_ pair: String? = nil) throws -> TLSClientContext {
        try TLSClientContext(
            TLSClientSettings(authorities: pem("ca"), pair: pair.map(Self.pair)))
    }

    static func server(
        _ pair: String = "server", protocols: [ApplicationProtocol] = [.http1]
    ) throws -> TLSServerContext {
        try TLSServerContext(TLSServerSettings(Self.pair(pair), protocols: protocols))
    }

    /// Asks clients for a certificate.
    static func strictServer(_ identities: [String] = []) throws -> TLSServerContext {
        try TLSServerContext(
            TLSServerSettings(
                pair("server"), clientAuthorities: pem("ca"),
                clientIdentities: identities.compactMap(IdentityPattern.init)))
    }
}

/// Both ends of a TLS connection over a socket pair, moved by the test.
final class TLSPair {
    let client: TLSSession
    let server: TLSSession
    let clientEnd: Int32
    let serverEnd: Int32
    private var isClientClosed = false

    init(
        _ client: TLSClientContext, _ server: TLSServerContext,
        expects name: TLSServerName = .dns("localhost"), protocols: [ApplicationProtocol] = [],
        ticket: TLSTicket = TLSTicket()
    ) throws {
        var ends: [Int32] = [0, 0]
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        precondition(socketpair(AF_UNIX, kind, 0, &ends) == 0, "socketpair")
        (clientEnd, serverEnd) = (ends[0], ends[1])
        self.client = try TLSSession(
            client: client, expects: name, at: .loopback(port: 443), protocols: protocols,
            ticket: ticket)
        self.server = try TLSSession(server: server)
        precondition(self.client.attach(clientEnd) && self.server.attach(serverEnd), "attach")
    }

    deinit {
        closeClient()
        close(serverEnd)
    }

    func closeClient() {
        guard !isClientClosed else { return }
        isClientClosed = true
        close(clientEnd)
    }

    /// What each side says of it; `nil`: it is still waiting for the other.
    struct Verdicts { var client: TLSFailure?, server: TLSFailure?, isDone = false }

    func shakeHands() -> Verdicts {
        var verdicts = Verdicts()
        for _ in 0..<20 {
            let first = client.handshake()
            if case .failed(let failure) = first { verdicts.client = failure }
            let second = server.handshake()
            if case .failed(let failure) = second { verdicts.server = failure }
            // TLS 1.3: the server refuses a client that believes to be done.
            if verdicts.server != nil { break }
            if case .done = first, case .done = second {
                verdicts.isDone = verdicts.client == nil
                break
            }
            if verdicts.client != nil, verdicts.server != nil { break }
        }
        // Takes the tickets in, which come behind the handshake.
        _ = TLSPair.read(client)
        return verdicts
    }

    static func read(_ session: TLSSession) -> (bytes: [UInt8], result: Int, code: Int32) {
        var room = [UInt8](repeating: 0, count: 32_768)
        let count = room.withUnsafeMutableBytes { session.read($0) }
        let code = errno
        return (Array(room.prefix(max(count, 0))), count, count < 0 ? code : 0)
    }

    static func write(_ session: TLSSession, _ text: String) -> Int {
        Array(text.utf8).withUnsafeBytes {
            session.write($0, UnsafeRawBufferPointer(start: nil, count: 0))
        }
    }
}
