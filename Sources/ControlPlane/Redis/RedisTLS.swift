import COpenSSL
import Glibc
import WeirCore

/// The files that TLS to Redis is set up from; PEM, all optional.
package struct RedisTLSFiles: Hashable, Sendable {
    /// Whose certificates hold; without it the system's authorities.
    package var authorities: String?
    /// What is shown to servers that ask for a certificate (Redis does by default).
    package var certificate: String?
    package var key: String?

    package init(authorities: String? = nil, certificate: String? = nil, key: String? = nil) {
        self.authorities = authorities
        self.certificate = certificate
        self.key = key
    }
}

/// How connections to Redis speak TLS: verified always, at least TLS 1.2.
package final class RedisTLS: @unchecked Sendable {
    // SAFETY: OpenSSL counts references to a context atomically; nothing changes it after `init`.
    // Freed in `deinit`.
    fileprivate let raw: OpaquePointer

    /// Problems carry the name of the setting that they are about.
    package init(_ files: RedisTLSFiles) throws(Problems) {
        guard let raw = SSL_CTX_new(TLS_client_method()) else {
            throw Problems([Problem(path: "REDIS_URL", message: "OpenSSL has no memory")])
        }
        self.raw = raw
        weir_ssl_ctx_set_min_version(raw, TLS1_2_VERSION)
        weir_ssl_ctx_refuse_extras(raw)
        weir_ssl_ctx_set_mode(
            raw, Int(SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER))
        SSL_CTX_set_default_passwd_cb(raw, weir_no_passphrase)
        SSL_CTX_set_verify(raw, SSL_VERIFY_PEER, nil)
        let problems = Self.load(files, into: raw)
        ERR_clear_error()
        if !problems.isEmpty { throw Problems(problems) }
    }

    deinit { SSL_CTX_free(raw) }

    private static func load(_ files: RedisTLSFiles, into raw: OpaquePointer) -> [Problem] {
        var problems: [Problem] = []
        if let path = files.authorities {
            if SSL_CTX_load_verify_locations(raw, path, nil) != 1 {
                problems.append(
                    Problem(path: "REDIS_CA_FILE", message: "no certificates can be read there"))
            }
        } else {
            SSL_CTX_set_default_verify_paths(raw)
        }
        guard let certificate = files.certificate, let key = files.key else {
            if (files.certificate == nil) != (files.key == nil) {
                problems.append(
                    Problem(
                        path: files.key == nil ? "REDIS_KEY_FILE" : "REDIS_CERT_FILE",
                        message: "is missing: a certificate and its key come together"))
            }
            return problems
        }
        if SSL_CTX_use_certificate_chain_file(raw, certificate) != 1 {
            problems.append(
                Problem(path: "REDIS_CERT_FILE", message: "no certificate can be read there"))
        } else if SSL_CTX_use_PrivateKey_file(raw, key, SSL_FILETYPE_PEM) != 1 {
            problems.append(
                Problem(
                    path: "REDIS_KEY_FILE",
                    message: "no key without a passphrase that fits the certificate is there"))
        }
        return problems
    }
}

/// TLS over one non-blocking socket, which stays its owner's. On one thread.
final class RedisTLSStream {
    enum Handshake { case done, needs(Int32), failed(String) }

    // SAFETY: made in `init`, freed in `deinit`, used on the thread that owns the stream.
    private let raw: OpaquePointer
    // SAFETY: made once, never changed or freed.
    private nonisolated(unsafe) static let socketMethod = weir_bio_method()

    /// `host`: a name or an address that the server's certificate has to hold.
    init?(_ context: RedisTLS, host: String, descriptor: Int32) {
        guard let raw = SSL_new(context.raw) else { return nil }
        self.raw = raw
        SSL_set_connect_state(raw)
        guard weir_ssl_attach(raw, Self.socketMethod, descriptor) == 1, expect(host) else {
            ERR_clear_error()
            return nil
        }
    }

    deinit { SSL_free(raw) }

    private func expect(_ host: String) -> Bool {
        // An address is compared with the certificate's addresses, and is no server name.
        if X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(raw), host) == 1 { return true }
        ERR_clear_error()
        // A name in the subject is no host name (RFC 9525 §6.3), nor is a part of a label.
        SSL_set_hostflags(
            raw, UInt32(X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT))
        return SSL_set1_host(raw, host) == 1 && weir_ssl_set_host_name(raw, host) == 1
    }

    func handshake() -> Handshake {
        ERR_clear_error()
        let result = SSL_do_handshake(raw)
        if result == 1 { return .done }
        switch SSL_get_error(raw, result) {
        case SSL_ERROR_WANT_READ: return .needs(POLLIN)
        case SSL_ERROR_WANT_WRITE: return .needs(POLLOUT)
        default:
            defer { ERR_clear_error() }
            let verdict = SSL_get_verify_result(raw)
            if verdict != Int(X509_V_OK) {
                let words = String(cString: X509_verify_cert_error_string(verdict))
                return .failed("the certificate was refused: \(words)")
            }
            let words = ERR_reason_error_string(ERR_peek_error()).map { String(cString: $0) }
            return .failed("the TLS handshake failed: \(words ?? "the connection ended")")
        }
    }

    func read(into buffer: UnsafeMutableRawBufferPointer) -> RedisSocket.ReadResult {
        ERR_clear_error()
        let count = SSL_read(raw, buffer.baseAddress, Int32(clamping: buffer.count))
        if count > 0 { return .bytes(Int(count)) }
        switch SSL_get_error(raw, count) {
        case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: return .wouldBlock
        default: return .closed
        }
    }

    /// How many bytes were taken; `nil` when the connection is gone.
    func write(_ bytes: ArraySlice<UInt8>) -> Int? {
        ERR_clear_error()
        let count = bytes.withUnsafeBytes {
            SSL_write(raw, $0.baseAddress, Int32(clamping: $0.count))
        }
        if count > 0 { return Int(count) }
        switch SSL_get_error(raw, count) {
        case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: return 0
        default: return nil
        }
    }
}
