import Glibc
import WeirCore

/// Writes a head into memory that the caller has: one pass, one copy. When the room is not enough
/// it writes nothing more and says so at the end; the caller has sized it so that this means a
/// peer's head and our additions together are over every limit.
package struct HeadWriter {
    private let base: UnsafeMutableRawPointer
    private let capacity: Int
    package private(set) var count = 0
    package private(set) var overflowed = false

    package init(_ room: UnsafeMutableRawBufferPointer) {
        guard let base = room.baseAddress else { preconditionFailure("no room to write to") }
        self.base = base
        capacity = room.count
    }

    @inline(__always)
    package mutating func write(_ bytes: UnsafeRawBufferPointer) {
        guard let source = bytes.baseAddress else { return }
        guard count + bytes.count <= capacity else {
            overflowed = true
            return
        }
        memcpy(base + count, source, bytes.count)
        count += bytes.count
    }

    @inline(__always)
    package mutating func write(_ text: StaticString) {
        write(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    package mutating func write(byte: UInt8) {
        guard count < capacity else {
            overflowed = true
            return
        }
        base.storeBytes(of: byte, toByteOffset: count, as: UInt8.self)
        count += 1
    }

    package mutating func write(decimal value: UInt64) {
        var digits = 1
        var bound: UInt64 = 10
        while digits < 20, value >= bound {
            digits += 1
            // Twenty digits are never asked whether they are enough.
            bound = bound &* 10
        }
        guard digits <= capacity - count else {
            overflowed = true
            return
        }
        var position = count + digits
        var rest = value
        repeat {
            position -= 1
            base.storeBytes(
                of: UInt8(truncatingIfNeeded: 48 + rest % 10), toByteOffset: position,
                as: UInt8.self)
            rest /= 10
        } while rest > 0
        count += digits
    }

    package mutating func write(hex value: UInt64, digits: Int? = nil) {
        let wanted = digits ?? max(1, (67 - value.leadingZeroBitCount) / 4)
        for index in stride(from: wanted - 1, through: 0, by: -1) {
            let nibble = UInt8(truncatingIfNeeded: value >> UInt64(index * 4) & 15)
            write(byte: nibble < 10 ? 48 + nibble : 87 + nibble)
        }
    }

    /// The address as text; IPv4, the usual case, without a String.
    package mutating func write(host address: SocketAddress) {
        guard case .ipv4(let bits, _) = address else {
            var text = address.host
            return text.withUTF8 { write(UnsafeRawBufferPointer($0)) }
        }
        for shift in stride(from: UInt32(24), through: 0, by: -8) {
            write(decimal: UInt64(bits >> shift & 255))
            if shift > 0 { write(byte: UInt8(ascii: ".")) }
        }
    }

    mutating func write(_ host: HostText) {
        host.withBytes { write($0) }
    }

    /// The 26 characters of an identifier, as its `description`, without a String.
    package mutating func write(identifier: Identifier) {
        guard count + 26 <= capacity else {
            overflowed = true
            return
        }
        // 128 bits are 25 digits of five bits and one of three: two digits of the highest eight
        // bits, and twelve each of the sixty below and the sixty below those.
        store(identifier.high >> 56, digits: 2, at: count)
        store(identifier.high << 4 | identifier.low >> 60, digits: 12, at: count + 2)
        store(identifier.low, digits: 12, at: count + 14)
        count += 26
    }

    /// Five bits a digit, the lowest last; there must be room.
    @inline(__always)
    private func store(_ bits: UInt64, digits: Int, at offset: Int) {
        let alphabet: StaticString = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
        var rest = bits
        var index = digits
        while index > 0 {
            index -= 1
            base.storeBytes(
                of: alphabet.utf8Start[Int(truncatingIfNeeded: rest & 31)],
                toByteOffset: offset + index, as: UInt8.self)
            rest >>= 5
        }
    }

    /// Copies the field lines that `keeps` accepts, run by run.
    @inline(__always)
    mutating func copyFields(of head: HTTPHead, keeps: (HTTPField) -> Bool) {
        var runStart = -1
        var runEnd = 0
        for index in 0..<head.fieldCount {
            let field = head.fields[index]
            if keeps(field) {
                if runStart < 0 { runStart = field.name.start }
                continue
            }
            if runStart >= 0 {
                runEnd = field.name.start
                write(UnsafeRawBufferPointer(start: head.base + runStart, count: runEnd - runStart))
                runStart = -1
            }
        }
        if runStart >= 0 {
            // The last field line ends two bytes before the end of the head.
            let end = head.byteCount - 2
            write(UnsafeRawBufferPointer(start: head.base + runStart, count: end - runStart))
        }
    }
}

/// The host of an address as heads have it, kept by whoever writes it often.
struct HostText {
    /// The longest is an IPv6 address with an IPv4 one in it.
    private let bytes: InlineArray<48, UInt8>
    private let count: Int

    init(_ address: SocketAddress) {
        var bytes = InlineArray<48, UInt8>(repeating: 0)
        count = withUnsafeMutableBytes(of: &bytes) { room in
            var writer = HeadWriter(room)
            writer.write(host: address)
            return writer.count
        }
        self.bytes = bytes
    }

    @inline(__always)
    fileprivate func withBytes(_ body: (UnsafeRawBufferPointer) -> Void) {
        withUnsafeBytes(of: bytes) { body(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
    }
}

/// RFC 9110 §15: the phrases that we write ourselves; an upstream's own are passed on.
package enum ReasonPhrase {
    package static func of(_ status: Int) -> StaticString {
        switch status {
        case 100: "Continue"
        case 103: "Early Hints"
        case 200: "OK"
        case 201: "Created"
        case 202: "Accepted"
        case 204: "No Content"
        case 206: "Partial Content"
        case 207: "Multi-Status"
        case 301: "Moved Permanently"
        case 302: "Found"
        case 303: "See Other"
        case 304: "Not Modified"
        case 307: "Temporary Redirect"
        case 308: "Permanent Redirect"
        case 400: "Bad Request"
        case 401: "Unauthorized"
        case 402: "Payment Required"
        case 403: "Forbidden"
        case 404: "Not Found"
        case 405: "Method Not Allowed"
        case 406: "Not Acceptable"
        case 408: "Request Timeout"
        case 409: "Conflict"
        case 410: "Gone"
        case 411: "Length Required"
        case 412: "Precondition Failed"
        case 413: "Content Too Large"
        case 414: "URI Too Long"
        case 415: "Unsupported Media Type"
        case 417: "Expectation Failed"
        case 422: "Unprocessable Content"
        case 425: "Too Early"
        case 429: "Too Many Requests"
        case 431: "Request Header Fields Too Large"
        case 500: "Internal Server Error"
        case 501: "Not Implemented"
        case 502: "Bad Gateway"
        case 503: "Service Unavailable"
        case 504: "Gateway Timeout"
        case 505: "HTTP Version Not Supported"
        default: "Unknown"
        }
    }
}
