import COpenSSL
import Glibc

/// One side of a TLS connection over a socket. It has the manners of the system calls that it
/// stands for: counts, and `errno` where there is none. On one loop.
final class TLSSession {
    enum Handshake { case done, incomplete, failed(TLSFailure) }

    let context: TLSContext
    let ticket: TLSTicket?
    // SAFETY: owned; freed in `deinit`. It refers back to this object, which outlives it, and is
    // used on one thread.
    private let raw: OpaquePointer
    /// A client whose certificate holds and who may not connect; set while it is verified.
    var refused: PeerIdentity?
    /// A read waits for the socket to take something (an answer to a key update).
    private(set) var readAwaitsWritable = false
    private var isOver = false

    // SAFETY: made once, never changed or freed.
    private nonisolated(unsafe) static let socketMethod = weir_bio_method()

    private init(_ context: TLSContext, ticket: TLSTicket?) throws(TLSFailure) {
        guard let raw = SSL_new(context.raw) else {
            ERR_clear_error()
            throw .noMemory
        }
        self.raw = raw
        self.context = context
        self.ticket = ticket
        SSL_set_ex_data(raw, 0, Unmanaged.passUnretained(self).toOpaque())
    }

    convenience init(server context: TLSServerContext) throws(TLSFailure) {
        try self.init(context, ticket: nil)
        SSL_set_accept_state(raw)
    }

    convenience init(
        client context: TLSClientContext, expects name: TLSServerName, at address: SocketAddress,
        protocols: [ApplicationProtocol], ticket: TLSTicket
    ) throws(TLSFailure) {
        try self.init(context, ticket: ticket)
        SSL_set_connect_state(raw)
        let wire = ApplicationProtocol.wire(protocols)
        var isSet = wire.isEmpty || SSL_set_alpn_protos(raw, wire, UInt32(wire.count)) == 0
        switch name {
        case .dns(let name):
            // A name in the subject is no host name (RFC 9525 §6.3), nor is a part of a label.
            SSL_set_hostflags(
                raw,
                UInt32(X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT))
            isSet = isSet && SSL_set1_host(raw, name) == 1
            isSet = isSet && weir_ssl_set_host_name(raw, name) == 1
        case .address:
            let parameters = SSL_get0_param(raw)
            isSet = isSet && X509_VERIFY_PARAM_set1_ip_asc(parameters, address.host) == 1
        }
        // Without the name set, anybody's certificate would do.
        guard isSet else {
            ERR_clear_error()
            throw .noMemory
        }
        if let session = ticket.session(for: context) { SSL_set_session(raw, session) }
    }

    deinit { SSL_free(raw) }

    static func of(_ ssl: OpaquePointer?) -> TLSSession? {
        SSL_get_ex_data(ssl, 0).map {
            Unmanaged<TLSSession>.fromOpaque($0).takeUnretainedValue()
        }
    }

    /// The descriptor stays the caller's to close.
    func attach(_ descriptor: Int32) -> Bool {
        weir_ssl_attach(raw, Self.socketMethod, descriptor) == 1
    }

    // MARK: The handshake

    func handshake() -> Handshake {
        clearErrors()
        let result = SSL_do_handshake(raw)
        if result == 1 { return .done }
        switch SSL_get_error(raw, result) {
        case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: return .incomplete
        case SSL_ERROR_SYSCALL:
            let code = errno
            isOver = true
            return .failed(.connection(code))
        case SSL_ERROR_SSL: return .failed(handshakeFailure())
        default:
            isOver = true
            return .failed(.connection(0))
        }
    }

    private func handshakeFailure() -> TLSFailure {
        isOver = true
        // The first error is the cause; what follows it in the queue is where it was noticed.
        let code = ERR_peek_error()
        ERR_clear_error()
        if let refused { return .notAllowed(refused) }
        let verdict = SSL_get_verify_result(raw)
        if verdict != Int(X509_V_OK) { return .untrusted(verdict) }
        guard ERR_GET_LIB(code) == ERR_LIB_SSL else { return .negotiation(code) }
        switch ERR_GET_REASON(code) {
        case SSL_R_UNEXPECTED_EOF_WHILE_READING: return .connection(0)
        case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: return .noCertificate
        default: return .negotiation(code)
        }
    }

    /// What both sides agreed to speak; `nil` when a side named nothing.
    var applicationProtocol: ApplicationProtocol? {
        var name: UnsafePointer<UInt8>?
        var count: UInt32 = 0
        SSL_get0_alpn_selected(raw, &name, &count)
        return ApplicationProtocol(UnsafeRawBufferPointer(start: name, count: Int(count)))
    }

    /// Whom the peer's certificate names, where it showed one: it is verified then.
    var peer: PeerIdentity? {
        SSL_get1_peer_certificate(raw).map { PeerIdentity(Certificate(owning: $0)) }
    }

    var isResumed: Bool { SSL_session_reused(raw) == 1 }
    /// "TLSv1.3"
    var version: String { String(cString: SSL_get_version(raw)) }

    // MARK: Bytes

    /// As `recv`: 0 is the peer's close_notify. An end without it is ECONNRESET: what came may be
    /// cut (RFC 8446 §6.1).
    func read(_ room: UnsafeMutableRawBufferPointer) -> Int {
        readAwaitsWritable = false
        clearErrors()
        let count = SSL_read(raw, room.baseAddress, Int32(clamping: room.count))
        if count > 0 { return Int(count) }
        let kind = SSL_get_error(raw, count)
        if kind == SSL_ERROR_ZERO_RETURN { return 0 }
        errno = failure(kind)
        if kind == SSL_ERROR_WANT_WRITE { readAwaitsWritable = true }
        return -1
    }

    /// Whether another `read` may bring something at once.
    var mayHaveMore: Bool { weir_ssl_may_have_more(raw) != 0 }

    /// As `send` for two pieces. What was not taken must be offered again, with nothing else before
    /// it.
    func write(_ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer) -> Int {
        let taken = write(first)
        guard taken == first.count, !second.isEmpty else { return taken }
        let more = write(second)
        if more >= 0 { return taken + more }
        return taken > 0 ? taken : -1
    }

    private func write(_ bytes: UnsafeRawBufferPointer) -> Int {
        var taken = 0
        while taken < bytes.count {
            clearErrors()
            let rest = UnsafeRawBufferPointer(rebasing: bytes[taken...])
            let count = SSL_write(raw, rest.baseAddress, Int32(clamping: rest.count))
            if count <= 0 {
                errno = failure(SSL_get_error(raw, count))
                return taken > 0 ? taken : -1
            }
            taken += Int(count)
        }
        return taken
    }

    /// Tells the peer that no more comes. False: the socket is full, ask again when it is not.
    func closeNotify() -> Bool {
        guard !isOver, SSL_is_init_finished(raw) == 1 else { return true }
        clearErrors()
        let result = SSL_shutdown(raw)
        guard result < 0 else { return true }
        return failure(SSL_get_error(raw, result)) != EAGAIN
    }

    /// The errno that stands for a failed call. After a fatal one nothing more may be said.
    private func failure(_ kind: Int32) -> Int32 {
        let code = errno
        switch kind {
        case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: return EAGAIN
        case SSL_ERROR_SYSCALL:
            isOver = true
            return code == 0 || code == EAGAIN ? ECONNRESET : code
        default:
            isOver = true
            let reason = ERR_GET_REASON(ERR_peek_error())
            ERR_clear_error()
            return reason == SSL_R_UNEXPECTED_EOF_WHILE_READING ? ECONNRESET : EPROTO
        }
    }

    /// What an earlier call of this thread left behind would be taken for the next one's.
    private func clearErrors() {
        if ERR_peek_error() != 0 { ERR_clear_error() }
    }
}

@available(*, unavailable)
extension TLSSession: Sendable {}
