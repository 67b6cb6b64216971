import COpenSSL
import Synchronization

/// How upstream connections speak TLS.
package struct TLSClientSettings: Hashable, Sendable {
    /// PEM; `nil`: the system's store.
    package var authorities: [UInt8]?
    /// Shown to upstreams that ask for a certificate.
    package var pair: TLSKeyPair?
    package var minimum: TLSVersion

    package init(
        authorities: [UInt8]? = nil, pair: TLSKeyPair? = nil, minimum: TLSVersion = .v1_2
    ) {
        self.authorities = authorities
        self.pair = pair
        self.minimum = minimum
    }
}

/// The client's side. There is no way to connect without verification: a session names whom it
/// wants to meet.
package final class TLSClientContext: TLSContext, @unchecked Sendable {
    // SAFETY: as `TLSContext`; nothing is added.

    package init(_ settings: TLSClientSettings) throws(TLSProblems) {
        try super.init(
            method: TLS_client_method(), minimum: settings.minimum, pair: settings.pair)
        SSL_CTX_set_verify(raw, SSL_VERIFY_PEER, nil)
        weir_ssl_ctx_set_cache_mode(
            raw, Int(SSL_SESS_CACHE_CLIENT) | Int(SSL_SESS_CACHE_NO_INTERNAL))
        SSL_CTX_sess_set_new_cb(raw, keepTicket)
        if let pem = settings.authorities {
            try Self.trust(pem, in: raw)
        } else {
            // Where OpenSSL was told to look when it was built, or by SSL_CERT_FILE and
            // SSL_CERT_DIR.
            SSL_CTX_set_default_verify_paths(raw)
        }
    }
}

/// Whom a client wants to meet.
package enum TLSServerName: Hashable, Sendable {
    /// A DNS name: sent as SNI, and what the certificate must name.
    case dns(String)
    /// The address that is connected to; nothing is sent (RFC 6066 §3).
    case address
}

/// The last ticket of one endpoint, for the next connection to it. On one loop.
final class TLSTicket {
    // SAFETY: owned; freed in `deinit` or when another one takes its place.
    private var session: OpaquePointer?
    /// The one that verified the peer: a session of another is not resumed.
    private weak var context: TLSContext?

    deinit { SSL_SESSION_free(session) }

    func keep(_ new: OpaquePointer, of context: TLSContext) {
        SSL_SESSION_free(session)
        session = new
        self.context = context
    }

    /// A resumed session shows no certificate, so the one that was verified must still hold.
    func session(for context: TLSContext) -> OpaquePointer? {
        guard let session, self.context === context,
            let certificate = SSL_SESSION_get0_peer(session),
            weir_x509_seconds_left(certificate) > 0
        else { return nil }
        return session
    }
}

/// Returns 1 when the reference to the session is ours now.
private func keepTicket(ssl: OpaquePointer?, ticket: OpaquePointer?) -> Int32 {
    guard let ticket, let session = TLSSession.of(ssl), let slot = session.ticket else { return 0 }
    slot.keep(ticket, of: session.context)
    return 1
}

/// What upstreams of one kind need for TLS, from any thread: the context of the moment, the name to
/// meet and the protocols to offer.
package final class TLSUpstream: Sendable {
    package let name: TLSServerName
    package let protocols: [ApplicationProtocol]
    private let current: TLSCurrent<TLSClientContext>
    /// Hears why a handshake failed; from the loop that it failed on.
    private let failed: @Sendable (TLSFailure, SocketAddress) -> Void

    package init(
        _ name: TLSServerName, _ current: TLSCurrent<TLSClientContext>,
        protocols: [ApplicationProtocol] = [.http2, .http1],
        failed: @escaping @Sendable (TLSFailure, SocketAddress) -> Void = { _, _ in }
    ) {
        self.name = name
        self.current = current
        self.protocols = protocols
        self.failed = failed
    }

    func session(to address: SocketAddress, ticket: TLSTicket) throws(TLSFailure) -> TLSSession {
        try TLSSession(
            client: current.context, expects: name, at: address, protocols: protocols,
            ticket: ticket)
    }

    func report(_ failure: TLSFailure, at address: SocketAddress) { failed(failure, address) }
}

/// The context of the moment: new sessions take it, and it is replaced as a whole.
package final class TLSCurrent<Context: Sendable>: Sendable {
    private let stored: Mutex<Context>

    package init(_ context: Context) { stored = Mutex(context) }

    package var context: Context { stored.withLock { $0 } }
    package func replace(_ context: Context) { stored.withLock { $0 = context } }
}
