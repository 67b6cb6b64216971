import COpenSSL

/// How a listener speaks TLS.
package struct TLSServerSettings: Hashable, Sendable {
    package var pair: TLSKeyPair
    /// PEM; clients must show a certificate of one of these authorities.
    package var clientAuthorities: [UInt8]?
    /// Which of them may connect; empty: all.
    package var clientIdentities: [IdentityPattern]
    package var minimum: TLSVersion
    package var protocols: [ApplicationProtocol]

    package init(
        _ pair: TLSKeyPair, clientAuthorities: [UInt8]? = nil,
        clientIdentities: [IdentityPattern] = [], minimum: TLSVersion = .v1_2,
        protocols: [ApplicationProtocol] = ApplicationProtocol.served
    ) {
        self.pair = pair
        self.clientAuthorities = clientAuthorities
        self.clientIdentities = clientIdentities
        self.minimum = minimum
        self.protocols = protocols
    }
}

/// The server's side. Tickets are the only kind of resumption, their keys are this context's own
/// and die with it: another certificate, another client CA or a rotation is another context, so no
/// ticket passes what is no longer true.
package final class TLSServerContext: TLSContext, @unchecked Sendable {
    // SAFETY: as `TLSContext`; what is added here is immutable.
    let identities: [IdentityPattern]
    private let protocols: [UInt8]

    package init(_ settings: TLSServerSettings) throws(TLSProblems) {
        identities = settings.clientIdentities
        protocols = ApplicationProtocol.wire(settings.protocols)
        try super.init(
            method: TLS_server_method(), minimum: settings.minimum, pair: settings.pair)
        // Ephemeral keys and authenticated ciphers only, as HTTP/2 demands (RFC 9113 §9.2.2);
        // those of TLS 1.3 are all of that kind.
        let list = SSL_CTX_set_cipher_list(raw, "ECDHE+AESGCM:ECDHE+CHACHA20")
        precondition(list == 1, "no cipher of TLS 1.2")
        SSL_CTX_set_alpn_select_cb(raw, selectProtocol, nil)
        weir_ssl_ctx_set_cache_mode(raw, Int(SSL_SESS_CACHE_OFF))
        SSL_CTX_set_timeout(raw, Int(TLSLimits.ticketSeconds))
        // Without a name of its own for what is resumed, OpenSSL refuses tickets that carry a
        // client's certificate.
        SSL_CTX_set_session_id_context(raw, "weir", 4)
        SSL_CTX_set_session_ticket_cb(raw, boundTicket, nil, nil)
        guard let pem = settings.clientAuthorities else { return }
        try Self.trust(pem, in: raw) { SSL_CTX_add_client_CA(raw, $0.raw) }
        SSL_CTX_set_verify(
            raw, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, verifyClient)
    }

    /// The first of ours that the client has too (RFC 7301 §3.2).
    fileprivate func select(
        from offered: UnsafeRawBufferPointer
    ) -> (start: UnsafePointer<UInt8>, count: UInt8)? {
        var own = protocols[...]
        while let length = own.first {
            let name = own.dropFirst().prefix(Int(length))
            own = own.dropFirst(1 + Int(length))
            var offset = 0
            while offset < offered.count {
                let count = Int(offered[offset])
                let candidate = offered.dropFirst(offset + 1).prefix(count)
                if candidate.elementsEqual(name), let base = offered.baseAddress {
                    let start = base + offset + 1
                    return (start.assumingMemoryBound(to: UInt8.self), length)
                }
                offset += 1 + count
            }
        }
        return nil
    }

    fileprivate func allows(_ identity: PeerIdentity) -> Bool {
        identities.isEmpty || identities.contains { $0.matches(identity) }
    }
}

private func selectProtocol(
    ssl: OpaquePointer?, chosen: UnsafeMutablePointer<UnsafePointer<UInt8>?>?,
    chosenCount: UnsafeMutablePointer<UInt8>?, offered: UnsafePointer<UInt8>?, count: UInt32,
    argument: UnsafeMutableRawPointer?
) -> Int32 {
    let offered = UnsafeRawBufferPointer(start: offered, count: Int(count))
    guard let context = TLSContext.of(ssl) as? TLSServerContext,
        let selection = context.select(from: offered)
    else { return SSL_TLSEXT_ERR_ALERT_FATAL }
    chosen?.pointee = selection.start
    chosenCount?.pointee = selection.count
    return SSL_TLSEXT_ERR_OK
}

/// Before a ticket is made: it ends with our certificate and with the client's at the latest,
/// because neither is looked at again when the session is resumed.
private func boundTicket(ssl: OpaquePointer?, argument: UnsafeMutableRawPointer?) -> Int32 {
    guard let context = TLSContext.of(ssl), let session = SSL_get_session(ssl) else { return 0 }
    var seconds = min(TLSLimits.ticketSeconds, context.certificate?.secondsLeft ?? 0)
    if let peer = SSL_get1_peer_certificate(ssl) {
        seconds = min(seconds, Certificate(owning: peer).secondsLeft)
    }
    SSL_SESSION_set_timeout(session, Int(seconds))
    return 1
}

private func verifyClient(holds: Int32, store: OpaquePointer?) -> Int32 {
    guard holds == 1, X509_STORE_CTX_get_error_depth(store) == 0 else { return holds }
    let pointer = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx())
    let ssl = pointer.map { OpaquePointer($0) }
    guard let raw = X509_STORE_CTX_get_current_cert(store), X509_up_ref(raw) == 1 else { return 0 }
    let identity = PeerIdentity(Certificate(owning: raw))
    guard let context = TLSContext.of(ssl) as? TLSServerContext, let session = TLSSession.of(ssl)
    else { return 0 }
    if context.allows(identity) { return 1 }
    session.refused = identity
    X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION)
    return 0
}
