import COpenSSL
import WeirCore

/// SHA-256 and HMAC-SHA256 of libcrypto, behind types without pointers.
package enum Crypto {
    package static let digestBytes = 32

    package static func sha256(_ message: [UInt8]) -> [UInt8] {
        var digest = [UInt8](repeating: 0, count: digestBytes)
        SHA256(message, message.count, &digest)
        return digest
    }

    package static func hmacSHA256(key: [UInt8], _ message: [UInt8]) -> [UInt8] {
        var code = [UInt8](repeating: 0, count: digestBytes)
        var length = UInt32(digestBytes)
        let result = HMAC(
            EVP_sha256(), key, Int32(key.count), message, message.count, &code, &length)
        precondition(result != nil && length == digestBytes, "HMAC-SHA256 cannot fail")
        return code
    }

    /// Takes the same time wherever the first difference is. Lengths are not secret.
    package static func constantTimeEquals(_ left: [UInt8], _ right: [UInt8]) -> Bool {
        left.count == right.count && CRYPTO_memcmp(left, right, left.count) == 0
    }

    /// Bytes that nobody can guess; traps when the system has none to give.
    package static func randomBytes(_ count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        precondition(RAND_bytes(&bytes, Int32(count)) == 1, "the system's randomness failed")
        return bytes
    }
}

extension Identifier {
    package static func random(at time: UnixTime) -> Identifier {
        let bytes = Crypto.randomBytes(16)
        let high = bytes[0..<8].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        let low = bytes[8..<16].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        return Identifier(time: time, random: (high, low))
    }
}
