import COpenSSL
import Glibc

/// Why a TLS handshake failed, in words for operators: they never hold a key or a byte of content.
package enum TLSFailure: Error, Hashable, Sendable, CustomStringConvertible {
    /// The peer's certificate does not hold: OpenSSL's verification result (X509_V_ERR_…).
    case untrusted(Int)
    /// The client showed none, and needs one.
    case noCertificate
    /// It holds, but whom it names is not among those who may connect.
    case notAllowed(PeerIdentity)
    /// The peer sent what is no TLS, an alert, or nothing that both sides speak: OpenSSL's code.
    case negotiation(UInt)
    /// The connection ended in the middle of the handshake: an errno, or 0 for an orderly end.
    case connection(Int32)
    case noMemory

    package var description: String {
        switch self {
        case .untrusted(let code):
            "the certificate was refused: "
                + String(cString: X509_verify_cert_error_string(code))
        case .noCertificate: "the client showed no certificate"
        case .notAllowed(let identity): "\(identity) may not connect"
        case .negotiation(let code):
            "the handshake failed: "
                + (ERR_reason_error_string(code).map { String(cString: $0) } ?? "unknown reason")
        case .connection(0): "the peer closed the connection in the middle of the handshake"
        case .connection(let code):
            "the connection broke in the middle of the handshake: "
                + String(cString: strerror(code))
        case .noMemory: "no memory for a TLS session"
        }
    }
}

/// What is wrong with certificate, key or CA, and which of them it is.
package struct TLSProblem: Error, Hashable, Sendable {
    package enum Part: Hashable, Sendable { case certificate, key, authorities }
    package var part: Part
    package var message: String
}

package struct TLSProblems: Error, Hashable, Sendable {
    package var list: [TLSProblem]
}
