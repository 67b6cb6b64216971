import COpenSSL

package enum TLSVersion: String, Hashable, Sendable, CaseIterable {
    case v1_2 = "1.2"
    case v1_3 = "1.3"

    var code: Int32 {
        switch self {
        case .v1_2: TLS1_2_VERSION
        case .v1_3: TLS1_3_VERSION
        }
    }
}

/// What a connection speaks, as ALPN names it (RFC 7301).
package enum ApplicationProtocol: String, Hashable, Sendable {
    case http1 = "http/1.1"
    case http2 = "h2"

    /// What our listeners have a codec for, preferred ones first.
    package static let served: [ApplicationProtocol] = [.http2, .http1]

    init?(_ name: UnsafeRawBufferPointer) {
        self.init(rawValue: String(decoding: name, as: UTF8.self))
    }

    /// Length and name of each, as they stand in the handshake.
    static func wire(_ list: [ApplicationProtocol]) -> [UInt8] {
        list.flatMap { [UInt8($0.rawValue.utf8.count)] + Array($0.rawValue.utf8) }
    }
}

/// A certificate with its chain, and its key: PEM as it stands in files.
package struct TLSKeyPair: Hashable, Sendable {
    package var certificate: [UInt8]
    package var key: [UInt8]

    package init(certificate: [UInt8], key: [UInt8]) {
        self.certificate = certificate
        self.key = key
    }
}

/// What all sessions of one side share: certificate, trust, ticket keys. It never changes; what is
/// reloaded is another one, and each session keeps its own for as long as it lives.
package class TLSContext: @unchecked Sendable {
    // SAFETY: the SSL_CTX is set up in `init`; afterwards it is only read, or changed by OpenSSL
    // under its own locks.
    let raw: OpaquePointer
    /// Of our own certificate, while it is shown at all.
    let certificate: Certificate?

    /// `method`: TLS_server_method or TLS_client_method.
    init(method: OpaquePointer?, minimum: TLSVersion, pair: TLSKeyPair?) throws(TLSProblems) {
        guard let raw = SSL_CTX_new(method) else {
            preconditionFailure("no memory for a TLS context")
        }
        self.raw = raw
        var problems: [TLSProblem] = []
        certificate = pair.flatMap { Self.use($0, raw, &problems) }
        // Everything is set: `deinit` frees the context when this throws.
        guard problems.isEmpty else { throw TLSProblems(list: problems) }
        precondition(
            weir_ssl_ctx_set_min_version(raw, minimum.code) == 1, "a version that OpenSSL has not")
        // Buffers of an idle connection go back; a write that did not fit may be repeated from
        // where the bytes have been moved to, and says how much of it was taken.
        weir_ssl_ctx_set_mode(
            raw,
            Int(SSL_MODE_RELEASE_BUFFERS) | Int(SSL_MODE_ENABLE_PARTIAL_WRITE)
                | Int(SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER))
        // A record comes with one read of the socket and not with two.
        weir_ssl_ctx_set_read_ahead(raw)
        weir_ssl_ctx_refuse_extras(raw)
        SSL_CTX_set_ex_data(raw, 0, Unmanaged.passUnretained(self).toOpaque())
    }

    deinit { SSL_CTX_free(raw) }

    private static func use(
        _ pair: TLSKeyPair, _ raw: OpaquePointer, _ problems: inout [TLSProblem]
    ) -> Certificate? {
        defer { ERR_clear_error() }
        let chain = Certificate.all(pem: pair.certificate)
        let key = PrivateKey(pem: pair.key)
        if chain == nil {
            problems.append(
                TLSProblem(part: .certificate, message: "holds no certificate in PEM"))
        }
        if key == nil {
            problems.append(
                TLSProblem(
                    part: .key, message: "holds no private key in PEM without a passphrase"))
        }
        guard let chain, let own = chain.first else { return nil }
        if own.secondsLeft == 0 {
            problems.append(TLSProblem(part: .certificate, message: "has expired"))
        }
        guard let key else { return own }
        guard SSL_CTX_use_certificate(raw, own.raw) == 1 else {
            problems.append(TLSProblem(part: .certificate, message: lastReason()))
            return own
        }
        for link in chain.dropFirst() where weir_ssl_ctx_add1_chain(raw, link.raw) != 1 {
            problems.append(TLSProblem(part: .certificate, message: lastReason()))
        }
        if X509_check_private_key(own.raw, key.raw) != 1 {
            problems.append(
                TLSProblem(part: .key, message: "does not belong to the certificate"))
        } else if SSL_CTX_use_PrivateKey(raw, key.raw) != 1 {
            problems.append(TLSProblem(part: .key, message: lastReason()))
        }
        return own
    }

    private static func lastReason() -> String {
        ERR_reason_error_string(ERR_peek_last_error()).map { String(cString: $0) }
            ?? "cannot be used"
    }

    /// Takes the certificates of a PEM text as the authorities that peers' chains must end at.
    static func trust(
        _ pem: [UInt8], in raw: OpaquePointer, each: (Certificate) -> Void = { _ in }
    ) throws(TLSProblems) {
        guard let list = Certificate.all(pem: pem) else {
            throw TLSProblems(list: [
                TLSProblem(part: .authorities, message: "holds no certificate in PEM")
            ])
        }
        for authority in list {
            X509_STORE_add_cert(SSL_CTX_get_cert_store(raw), authority.raw)
            each(authority)
        }
        ERR_clear_error()
    }

    static func of(_ ssl: OpaquePointer?) -> TLSContext? {
        SSL_get_SSL_CTX(ssl).flatMap { SSL_CTX_get_ex_data($0, 0) }.map {
            Unmanaged<TLSContext>.fromOpaque($0).takeUnretainedValue()
        }
    }
}
