import CLinux
import Testing

@testable import SidecarCore

/// The vectors against the words of the RFCs: every byte, at every place of a run.
struct ByteScanTests {
    private typealias Scan = (UnsafePointer<UInt8>, Int) -> Int

    private func check(_ good: UInt8, _ allowed: (UInt8) -> Bool, _ scan: Scan) {
        for length in [0, 1, 15, 16, 17, 31, 32, 33, 48] {
            var bytes = [UInt8](repeating: good, count: length)
            #expect(scan(&bytes, length) == length)
            for position in 0..<length {
                for byte in UInt8.min...UInt8.max {
                    bytes[position] = byte
                    let expected = allowed(byte) ? length : position
                    if scan(&bytes, length) != expected {
                        Issue.record("\(byte) at \(position) of \(length)")
                    }
                }
                bytes[position] = good
            }
        }
    }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
    }

    private static func isOneOf(_ byte: UInt8, _ others: String) -> Bool {
        isAlphanumeric(byte) || others.utf8.contains(byte)
    }

    /// RFC 9110 §5.6.2.
    @Test func tokens() {
        check(UInt8(ascii: "a"), { Self.isOneOf($0, "!#$%&'*+-.^_`|~") }) {
            weir_token_count($0, $1)
        }
        for byte in UInt8.min...UInt8.max {
            #expect(ASCII.isToken(byte) == Self.isOneOf(byte, "!#$%&'*+-.^_`|~"))
        }
    }

    /// RFC 9110 §5.5, with the tab of white space between.
    @Test func fieldValues() {
        check(UInt8(ascii: "v"), { $0 == 9 || $0 >= 0x20 && $0 != 0x7F }) {
            weir_field_value_count($0, $1)
        }
    }

    /// RFC 3986 §2, and the braces and the bar.
    @Test func targets() {
        check(UInt8(ascii: "/"), { Self.isOneOf($0, "-._~:/?[]@!$&'()*+,;=%{|}") }) {
            weir_target_count($0, $1)
        }
    }

    /// RFC 3986 §3.2.2 without sub-delims, which no host name has.
    @Test func hosts() {
        check(UInt8(ascii: "h"), { Self.isOneOf($0, "-._~%") }) { weir_host_count($0, $1) }
    }
}

struct FieldNameTests {
    private func id(_ name: String) -> FieldName {
        Array(name.utf8).withUnsafeBytes { FieldName.of($0) }
    }

    private static let names: [(String, FieldName)] = [
        ("te", .te), ("via", .via), ("host", .host), ("date", .date), ("accept", .accept),
        ("cookie", .cookie), ("expect", .expect), ("origin", .origin), ("server", .server),
        ("trailer", .trailer), ("upgrade", .upgrade), ("location", .location),
        ("forwarded", .forwarded), ("x-api-key", .xAPIKey), ("connection", .connection),
        ("keep-alive", .keepAlive), ("set-cookie", .setCookie), ("tracestate", .tracestate),
        ("user-agent", .userAgent), ("retry-after", .retryAfter), ("traceparent", .traceparent),
        ("content-type", .contentType), ("x-request-id", .xRequestID),
        ("max-forwards", .maxForwards),
        ("authorization", .authorization), ("cache-control", .cacheControl),
        ("content-length", .contentLength), ("http2-settings", .http2Settings),
        ("accept-encoding", .acceptEncoding), ("x-forwarded-for", .xForwardedFor),
        ("idempotency-key", .idempotencyKey), ("content-encoding", .contentEncoding),
        ("x-forwarded-host", .xForwardedHost), ("proxy-connection", .proxyConnection),
        ("transfer-encoding", .transferEncoding), ("x-forwarded-proto", .xForwardedProto),
        ("proxy-authenticate", .proxyAuthenticate), ("request-timeout-ms", .requestTimeout),
        ("proxy-authorization", .proxyAuthorization), ("weir-tier", .weir),
    ]

    @Test(arguments: names)
    func isKnownInAnyCase(_ name: String, _ expected: FieldName) {
        #expect(id(name) == expected)
        #expect(id(name.uppercased()) == expected)
    }

    /// Each letter counts, wherever it stands.
    @Test(arguments: names.dropLast())
    func isNoOtherName(_ name: String, _ expected: FieldName) {
        var bytes = Array(name.utf8)
        for index in bytes.indices {
            let right = bytes[index]
            bytes[index] = UInt8(ascii: "0")
            #expect(bytes.withUnsafeBytes { FieldName.of($0) } == .other, "\(index) of \(name)")
            bytes[index] = right
        }
    }
}
