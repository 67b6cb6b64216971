import COpenSSL
import WeirCore

/// An X.509 certificate of libcrypto.
final class Certificate {
    // SAFETY: owned; freed in `deinit`.
    let raw: OpaquePointer

    init(owning raw: OpaquePointer) { self.raw = raw }
    deinit { X509_free(raw) }

    /// All certificates of a PEM text; `nil` when one of them, or anything else, cannot be read.
    static func all(pem: [UInt8]) -> [Certificate]? {
        pem.withUnsafeBytes { bytes in
            guard let bio = BIO_new_mem_buf(bytes.baseAddress, Int32(clamping: bytes.count)) else {
                return nil
            }
            defer { BIO_free(bio) }
            var list: [Certificate] = []
            while let raw = PEM_read_bio_X509(bio, nil, weir_no_passphrase, nil) {
                list.append(Certificate(owning: raw))
            }
            let code = ERR_peek_last_error()
            ERR_clear_error()
            // "No start line" is how the end of the text is said.
            let isEnd =
                ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE
            return isEnd && !list.isEmpty ? list : nil
        }
    }

    var subject: String {
        guard let bio = weir_x509_subject(raw) else { return "" }
        defer { BIO_free(bio) }
        var bytes: UnsafeMutablePointer<CChar>?
        let count = weir_bio_memory(bio, &bytes)
        guard let bytes, count > 0 else { return "" }
        let whole = UnsafeRawBufferPointer(start: bytes, count: count)
        return String(decoding: whole.prefix(TLSLimits.identityBytesMax), as: UTF8.self)
    }

    /// Until it ends; 0 when it has, or when its date cannot be read.
    var secondsLeft: Int64 { max(weir_x509_seconds_left(raw), 0) }
}

/// A private key of libcrypto.
final class PrivateKey {
    // SAFETY: owned; freed in `deinit`.
    let raw: OpaquePointer

    /// `nil` when the text is no key, or one that asks for a passphrase.
    init?(pem: [UInt8]) {
        let raw = pem.withUnsafeBytes { bytes -> OpaquePointer? in
            guard let bio = BIO_new_mem_buf(bytes.baseAddress, Int32(clamping: bytes.count)) else {
                return nil
            }
            defer { BIO_free(bio) }
            return PEM_read_bio_PrivateKey(bio, nil, weir_no_passphrase, nil)
        }
        ERR_clear_error()
        guard let raw else { return nil }
        self.raw = raw
    }

    deinit { EVP_PKEY_free(raw) }
}
