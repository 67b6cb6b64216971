import Glibc

extension FieldName {
    /// The identifier of a name, which must be a token. By length first: most names are told apart
    /// by that alone, and no name is compared with more than a few candidates.
    static func of(_ name: UnsafeRawBufferPointer) -> FieldName {
        if name.count > 5, name[4] == UInt8(ascii: "-"), name[0] | 0x20 == UInt8(ascii: "w"),
            ASCII.equalsIgnoringCase(UnsafeRawBufferPointer(rebasing: name[..<5]), "weir-")
        {
            return .weir
        }
        switch name.count {
        case 2: return match(name, "te", .te)
        case 3: return match(name, "via", .via)
        case 4: return match(name, "host", .host, "date", .date)
        case 6: return match6(name)
        case 7: return match(name, "trailer", .trailer, "upgrade", .upgrade)
        case 8: return match(name, "location", .location)
        case 9: return match(name, "forwarded", .forwarded, "x-api-key", .xAPIKey)
        case 10: return match10(name)
        case 11:
            let first = match(name, "retry-after", .retryAfter, "traceparent", .traceparent)
            return first != .other ? first : match(name, "grpc-status", .grpcStatus)
        case 12:
            let first = match(name, "content-type", .contentType, "x-request-id", .xRequestID)
            if first != .other { return first }
            return match(name, "max-forwards", .maxForwards, "grpc-timeout", .grpcTimeout)
        case 13: return match(name, "authorization", .authorization, "cache-control", .cacheControl)
        case 14:
            return match(name, "content-length", .contentLength, "http2-settings", .http2Settings)
        case 15:
            let first = match(name, "accept-encoding", .acceptEncoding)
            if first != .other { return first }
            return match(
                name, "x-forwarded-for", .xForwardedFor, "idempotency-key", .idempotencyKey)
        case 16:
            let first = match(name, "content-encoding", .contentEncoding)
            if first != .other { return first }
            return match(
                name, "x-forwarded-host", .xForwardedHost, "proxy-connection", .proxyConnection)
        case 17:
            return match(
                name, "transfer-encoding", .transferEncoding, "x-forwarded-proto", .xForwardedProto)
        case 18:
            return match(
                name, "proxy-authenticate", .proxyAuthenticate, "request-timeout-ms",
                .requestTimeout)
        case 19: return match(name, "proxy-authorization", .proxyAuthorization)
        default: return .other
        }
    }

    private static func match6(_ name: UnsafeRawBufferPointer) -> FieldName {
        switch name[0] | 0x20 {
        case UInt8(ascii: "a"): match(name, "accept", .accept)
        case UInt8(ascii: "c"): match(name, "cookie", .cookie)
        case UInt8(ascii: "e"): match(name, "expect", .expect)
        case UInt8(ascii: "o"): match(name, "origin", .origin)
        case UInt8(ascii: "s"): match(name, "server", .server)
        default: .other
        }
    }

    private static func match10(_ name: UnsafeRawBufferPointer) -> FieldName {
        switch name[0] | 0x20 {
        case UInt8(ascii: "c"): match(name, "connection", .connection)
        case UInt8(ascii: "k"): match(name, "keep-alive", .keepAlive)
        case UInt8(ascii: "s"): match(name, "set-cookie", .setCookie)
        case UInt8(ascii: "t"): match(name, "tracestate", .tracestate)
        case UInt8(ascii: "u"): match(name, "user-agent", .userAgent)
        default: .other
        }
    }

    @inline(__always)
    private static func match(
        _ name: UnsafeRawBufferPointer, _ text: StaticString, _ result: FieldName
    ) -> FieldName {
        ASCII.equalsIgnoringCase(name, text) ? result : .other
    }

    @inline(__always)
    private static func match(
        _ name: UnsafeRawBufferPointer, _ first: StaticString, _ firstResult: FieldName,
        _ second: StaticString, _ secondResult: FieldName
    ) -> FieldName {
        if ASCII.equalsIgnoringCase(name, first) { return firstResult }
        return ASCII.equalsIgnoringCase(name, second) ? secondResult : .other
    }

    /// Servers that hand fields on as CGI variables do not tell `_` from `-`, so that
    /// `Content_Length` or `weir_tier` would pass us as one thing and reach the agent as another.
    static func isDisguised(_ name: UnsafeRawBufferPointer) -> Bool {
        guard let base = name.baseAddress, memchr(base, 0x5F, name.count) != nil, name.count <= 64
        else { return false }
        return withUnsafeTemporaryAllocation(byteCount: name.count, alignment: 1) { copy in
            for index in 0..<name.count {
                copy[index] = name[index] == UInt8(ascii: "_") ? UInt8(ascii: "-") : name[index]
            }
            let id = FieldName.of(UnsafeRawBufferPointer(copy))
            return id.isProtected || id.isHopByHop
        }
    }
}

extension HTTPMethod {
    static func of(_ name: UnsafeRawBufferPointer) -> HTTPMethod {
        switch name.count {
        case 3: return equals(name, "GET") ? .get : equals(name, "PUT") ? .put : .other
        case 4: return equals(name, "POST") ? .post : equals(name, "HEAD") ? .head : .other
        case 5: return equals(name, "PATCH") ? .patch : equals(name, "TRACE") ? .trace : .other
        case 6: return equals(name, "DELETE") ? .delete : .other
        case 7:
            return equals(name, "OPTIONS") ? .options : equals(name, "CONNECT") ? .connect : .other
        default: return .other
        }
    }

    /// Methods are case-sensitive (RFC 9110 §9.1).
    @inline(__always)
    private static func equals(_ name: UnsafeRawBufferPointer, _ text: StaticString) -> Bool {
        guard name.count == text.utf8CodeUnitCount else { return false }
        let expected = text.utf8Start
        for index in 0..<name.count where name[index] != expected[index] { return false }
        return true
    }
}
