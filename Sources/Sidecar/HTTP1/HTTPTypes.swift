/// A range of bytes inside a head. Heads are shorter than 64 KB (`Limits.headBytesMax`).
package struct ByteRange: Equatable, Sendable {
    package var offset: UInt16 = 0
    package var count: UInt16 = 0

    package init() {}

    init(_ start: Int, _ end: Int) {
        offset = UInt16(truncatingIfNeeded: start)
        count = UInt16(truncatingIfNeeded: end - start)
    }

    package var start: Int { Int(offset) }
    package var end: Int { Int(offset) + Int(count) }
    package var isEmpty: Bool { count == 0 }
}

package enum HTTPMethod: UInt8, Sendable {
    case get, head, post, put, delete, options, patch, trace, connect, other

    /// RFC 9110 §9.2.2: doing it twice has the effect of doing it once.
    package var isIdempotent: Bool {
        switch self {
        case .get, .head, .put, .delete, .options, .trace: true
        case .post, .patch, .connect, .other: false
        }
    }
}

/// The fields that some part of the sidecar looks for; everything else is `other`, and `weir` is
/// every name that begins with `weir-`. Raw values index a 64-bit set.
package enum FieldName: UInt8, Sendable {
    case other = 0
    case weir, host, contentLength, transferEncoding, connection, keepAlive, proxyConnection, te
    case trailer, upgrade, expect, via, xForwardedFor, xForwardedProto, xForwardedHost, forwarded
    case traceparent, tracestate, authorization, proxyAuthorization, proxyAuthenticate,
        http2Settings
    case contentType, contentEncoding, accept, acceptEncoding, date, server, retryAfter, cookie
    case setCookie, xAPIKey, idempotencyKey, cacheControl, origin, userAgent, location, xRequestID
    case requestTimeout, maxForwards, grpcTimeout, grpcStatus

    /// In a set of names.
    @inline(__always)
    var bit: UInt64 { 1 &<< UInt64(rawValue) }

    /// Never forwarded: they speak about one hop (RFC 9110 §7.6.1, RFC 9113 §3.2.1 for the last).
    package var isHopByHop: Bool {
        switch self {
        case .connection, .keepAlive, .proxyConnection, .te, .upgrade, .transferEncoding,
            .proxyAuthorization, .proxyAuthenticate, .http2Settings:
            true
        case .other, .weir, .host, .contentLength, .trailer, .expect, .via, .xForwardedFor,
            .xForwardedProto, .xForwardedHost, .forwarded, .traceparent, .tracestate,
            .authorization, .contentType, .contentEncoding, .accept, .acceptEncoding, .date,
            .server, .retryAfter, .cookie, .setCookie, .xAPIKey, .idempotencyKey, .cacheControl,
            .origin, .userAgent, .location, .xRequestID, .requestTimeout, .maxForwards,
            .grpcTimeout, .grpcStatus:
            false
        }
    }

    /// Fields that `Connection` may not name: taking them away would change who asks for what. A
    /// request that tries is refused, and they are not allowed in trailers either (RFC 9110
    /// §6.5.1).
    package var isProtected: Bool {
        switch self {
        case .weir, .host, .contentLength, .transferEncoding, .authorization, .xForwardedFor,
            .xForwardedProto, .xForwardedHost, .forwarded, .via, .traceparent, .cookie, .setCookie,
            .xAPIKey, .idempotencyKey, .contentType, .contentEncoding, .cacheControl, .expect,
            .connection, .trailer:
            true
        case .other, .keepAlive, .proxyConnection, .te, .upgrade, .tracestate,
            .proxyAuthorization, .proxyAuthenticate, .http2Settings, .accept, .acceptEncoding,
            .date, .server, .retryAfter, .origin, .userAgent, .location, .xRequestID,
            .requestTimeout, .maxForwards, .grpcTimeout, .grpcStatus:
            false
        }
    }
}

package struct HTTPField {
    package var name = ByteRange()
    package var value = ByteRange()
    package var id = FieldName.other
}

/// Why a head cannot be taken.
package enum HeadError: Error, Equatable, Sendable {
    case malformed, tooLarge, targetTooLong, version, notImplemented, expectation
}

package enum HeadResult: Equatable, Sendable {
    /// The head ends after this many bytes.
    case complete(Int)
    case needsMore
    case failed(HeadError)
}

/// The head of a message: the bytes as they came and a table of where its fields are. It owns
/// nothing; it is valid as long as the memory that it points into. Field lines lie one behind the
/// other (`name: value\r\n`), so that runs of them can be copied at once.
package struct HTTPHead {
    package struct Flags: OptionSet, Sendable {
        package let rawValue: UInt16
        package init(rawValue: UInt16) { self.rawValue = rawValue }
        package static let chunked = Flags(rawValue: 1)
        package static let close = Flags(rawValue: 2)
        package static let keepAlive = Flags(rawValue: 4)
        package static let expectsContinue = Flags(rawValue: 8)
        package static let acceptsTrailers = Flags(rawValue: 32)
        /// `Connection` names fields beyond the usual ones.
        package static let namesFields = Flags(rawValue: 64)
        /// The message came by HTTP/2.
        package static let http2 = Flags(rawValue: 128)
        /// `Connection` names `Upgrade`.
        package static let namesUpgrade = Flags(rawValue: 256)
    }

    package var base: UnsafeRawPointer
    package var byteCount = 0
    package var fields: UnsafeMutablePointer<HTTPField>
    package var fieldCount = 0
    package var present: UInt64 = 0
    package var contentLength: Int64 = -1
    package var flags: Flags = []
    package var method = HTTPMethod.other
    package var minorVersion: UInt8 = 1
    package var status = 0
    package var methodRange = ByteRange()
    /// The request target in origin form (an absolute form's authority is in `host`).
    package var target = ByteRange()
    package var reason = ByteRange()
    package var host = ByteRange()

    package init(base: UnsafeRawPointer, fields: UnsafeMutablePointer<HTTPField>) {
        self.base = base
        self.fields = fields
    }

    package func bytes(_ range: ByteRange) -> UnsafeRawBufferPointer {
        precondition(range.end <= byteCount, "a range outside of the head")
        return UnsafeRawBufferPointer(start: base + range.start, count: Int(range.count))
    }

    package func text(_ range: ByteRange) -> String {
        String(decoding: bytes(range), as: UTF8.self)
    }

    package func has(_ name: FieldName) -> Bool { present & (1 << UInt64(name.rawValue)) != 0 }

    package func field(_ index: Int) -> HTTPField {
        precondition(index >= 0 && index < fieldCount, "a field outside of the table")
        return fields[index]
    }

    /// The value of the first field of that name.
    package func value(of name: FieldName) -> UnsafeRawBufferPointer? {
        guard has(name) else { return nil }
        for index in 0..<fieldCount where fields[index].id == name {
            return bytes(fields[index].value)
        }
        return nil
    }

    /// The value of the first field of a name in lower case; for names without an identifier.
    package func value(named name: StaticString) -> UnsafeRawBufferPointer? {
        for index in 0..<fieldCount
        where ASCII.equalsIgnoringCase(bytes(fields[index].name), name) {
            return bytes(fields[index].value)
        }
        return nil
    }

    package func string(of name: FieldName) -> String? {
        value(of: name).map { String(decoding: $0, as: UTF8.self) }
    }

    /// Of a name that is known at run time only, in lower case.
    @_disfavoredOverload
    package func string(named name: String) -> String? {
        for index in 0..<fieldCount {
            let found = bytes(fields[index].name)
            if found.count == name.utf8.count,
                zip(found, name.utf8).allSatisfy({ ASCII.lowered($0) == $1 })
            {
                return String(decoding: bytes(fields[index].value), as: UTF8.self)
            }
        }
        return nil
    }

    package func string(named name: StaticString) -> String? {
        value(named: name).map { String(decoding: $0, as: UTF8.self) }
    }

    package func count(of name: FieldName) -> Int {
        guard has(name) else { return 0 }
        var count = 0
        for index in 0..<fieldCount where fields[index].id == name { count += 1 }
        return count
    }

    /// The path of the target, without the query.
    package var path: UnsafeRawBufferPointer {
        let target = bytes(self.target)
        guard let mark = target.firstIndex(of: UInt8(ascii: "?")) else { return target }
        return UnsafeRawBufferPointer(rebasing: target[..<mark])
    }

    /// The client keeps the connection unless it says otherwise (RFC 9112 §9.3).
    package var keepsAlive: Bool {
        if flags.contains(.close) { return false }
        return minorVersion >= 1 || flags.contains(.keepAlive)
    }

    /// The same head in other memory, which holds a copy of the bytes and of the table.
    package func moved(
        to base: UnsafeRawPointer, fields: UnsafeMutablePointer<HTTPField>
    ) -> HTTPHead {
        var head = self
        head.base = base
        head.fields = fields
        return head
    }
}
