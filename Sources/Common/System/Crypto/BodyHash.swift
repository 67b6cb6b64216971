import COpenSSL
import WeirCore

/// SHA-256 of bytes as they come. The context of libcrypto is used again for the next body, so in
/// the steady state a body costs no allocation; one without bytes costs nothing at all.
package struct BodyHash: ~Copyable {
    // SAFETY: made at the first byte, freed in `deinit`, never handed out.
    private var context: OpaquePointer?
    private var isEmpty = true

    package init() {}

    deinit { EVP_MD_CTX_free(context) }

    package mutating func update(_ bytes: UnsafeRawBufferPointer) {
        guard !bytes.isEmpty else { return }
        if isEmpty { begin() }
        let result = EVP_DigestUpdate(context, bytes.baseAddress, bytes.count)
        precondition(result == 1, "SHA-256 cannot fail")
    }

    /// The digest of what came since the last one; the next byte begins another body.
    package mutating func finish() -> Digest {
        guard !isEmpty else { return .ofNothing }
        isEmpty = true
        var words: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        let result = withUnsafeMutableBytes(of: &words) { raw in
            EVP_DigestFinal_ex(
                context, raw.baseAddress?.assumingMemoryBound(to: UInt8.self), nil)
        }
        precondition(result == 1, "SHA-256 cannot fail")
        return Digest(
            words: UInt64(littleEndian: words.0), UInt64(littleEndian: words.1),
            UInt64(littleEndian: words.2), UInt64(littleEndian: words.3))
    }

    /// Forgets what came.
    package mutating func reset() { isEmpty = true }

    private mutating func begin() {
        isEmpty = false
        // A context that has an algorithm keeps it, and its memory.
        let isNew = context == nil
        if isNew { context = EVP_MD_CTX_new() }
        let result = EVP_DigestInit_ex(context, isNew ? EVP_sha256() : nil, nil)
        precondition(context != nil && result == 1, "no memory for SHA-256")
    }
}
