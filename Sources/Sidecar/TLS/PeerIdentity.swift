import COpenSSL

/// Whom a verified certificate names: the SPIFFE id, where it has one, and its subject otherwise.
package enum PeerIdentity: Hashable, Sendable, CustomStringConvertible {
    case spiffe(String)
    /// As one line of RFC 2253: "CN=ci,O=Example".
    case subject(String)

    package var description: String {
        switch self {
        case .spiffe(let id): id
        case .subject(let line): line
        }
    }

    /// A certificate with several URI names is no SPIFFE certificate (X.509-SVID §2): to pick one
    /// of them would let its issuer's other customers pick another.
    init(_ certificate: Certificate) {
        var text = [CChar](repeating: 0, count: TLSLimits.identityBytesMax)
        let count = weir_x509_uri(certificate.raw, &text, Int32(text.count))
        let uri = String(
            decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
        if count == 1, uri.hasPrefix("spiffe://") {
            self = .spiffe(uri)
        } else {
            self = .subject(certificate.subject)
        }
    }
}

/// Which identities may connect: one as it is, or all that begin with what stands before `*`.
package struct IdentityPattern: Hashable, Sendable {
    package let text: String
    private let prefix: Bool

    /// `nil` for what could never match, or would match by accident: an empty text, a `*` that is
    /// not the end, and a prefix that stops within a trust domain's name.
    package init?(_ text: String) {
        prefix = text.hasSuffix("*")
        let body = prefix ? String(text.dropLast()) : text
        guard !body.isEmpty, !body.contains("*") else { return nil }
        if prefix, body.hasPrefix("spiffe://") {
            guard body.dropFirst("spiffe://".count).contains("/") else { return nil }
        } else if prefix {
            return nil
        }
        self.text = body
    }

    package func matches(_ identity: PeerIdentity) -> Bool {
        prefix ? identity.description.hasPrefix(text) : identity.description == text
    }
}
