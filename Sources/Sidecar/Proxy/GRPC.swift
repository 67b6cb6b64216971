import WeirCore

/// The status codes of gRPC, and what ours mean in them
/// (https://github.com/grpc/grpc/blob/master/doc/statuscodes.md).
package enum GRPCStatus: UInt8, CaseIterable, Sendable {
    case ok = 0
    case cancelled, unknown, invalidArgument, deadlineExceeded, notFound, alreadyExists
    case permissionDenied, resourceExhausted, failedPrecondition, aborted, outOfRange
    case unimplemented, internalError, unavailable, dataLoss, unauthenticated

    package var name: String {
        switch self {
        case .ok: "OK"
        case .cancelled: "CANCELLED"
        case .unknown: "UNKNOWN"
        case .invalidArgument: "INVALID_ARGUMENT"
        case .deadlineExceeded: "DEADLINE_EXCEEDED"
        case .notFound: "NOT_FOUND"
        case .alreadyExists: "ALREADY_EXISTS"
        case .permissionDenied: "PERMISSION_DENIED"
        case .resourceExhausted: "RESOURCE_EXHAUSTED"
        case .failedPrecondition: "FAILED_PRECONDITION"
        case .aborted: "ABORTED"
        case .outOfRange: "OUT_OF_RANGE"
        case .unimplemented: "UNIMPLEMENTED"
        case .internalError: "INTERNAL"
        case .unavailable: "UNAVAILABLE"
        case .dataLoss: "DATA_LOSS"
        case .unauthenticated: "UNAUTHENTICATED"
        }
    }

    /// What a caller makes of it decides: UNAVAILABLE is tried again, RESOURCE_EXHAUSTED later,
    /// everything else not.
    package init(_ reason: Reason) {
        switch reason {
        case .admitted: self = .ok
        case .malformed, .duplicateKey, .invalid, .lengthRequired, .mediaType, .expectation,
            .headersTooLarge, .uriTooLong, .version:
            self = .invalidArgument
        case .unauthenticated, .tokenExpired: self = .unauthenticated
        case .budgetExhausted, .rateLimited, .quotaExhausted, .concurrency, .tooLarge:
            self = .resourceExhausted
        case .agentNotAllowed, .unmeteredPath, .forbidden: self = .permissionDenied
        case .unknownAgent, .unknownRoute, .method, .notImplemented: self = .unimplemented
        case .idempotencyInFlight: self = .aborted
        case .cancelled: self = .cancelled
        case .crashed, .upstreamProtocol: self = .internalError
        case .upstreamError, .circuitOpen, .overloaded, .budgetContended, .noEndpoint,
            .controlPlaneLost:
            self = .unavailable
        case .deadline, .requestTimeout: self = .deadlineExceeded
        }
    }

    /// Of an answer without one, by its HTTP status
    /// (https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md).
    init(httpStatus: Int) {
        switch httpStatus {
        case 400: self = .internalError
        case 401: self = .unauthenticated
        case 403: self = .permissionDenied
        case 404: self = .unimplemented
        case 429, 502, 503, 504: self = .unavailable
        default: self = .unknown
        }
    }

    init?(_ value: UnsafeRawBufferPointer) {
        guard (1...2).contains(value.count), value.allSatisfy({ (48...57).contains($0) }) else {
            return nil
        }
        self.init(rawValue: value.reduce(0) { $0 * 10 + $1 - 48 })
    }

    /// The agent has failed, as a 5xx says it of HTTP.
    var isFailure: Bool {
        switch self {
        case .unknown, .internalError, .unavailable, .dataLoss: true
        case .ok, .cancelled, .invalidArgument, .deadlineExceeded, .notFound, .alreadyExists,
            .permissionDenied, .resourceExhausted, .failedPrecondition, .aborted, .outOfRange,
            .unimplemented, .unauthenticated:
            false
        }
    }

    /// Comes before any work, as `AgentPolicy.isRefusal` says it of HTTP's. `DEADLINE_EXCEEDED`,
    /// `ABORTED` and the failures may come behind it; `ALREADY_EXISTS` is an answer.
    package var isRefusal: Bool {
        switch self {
        case .invalidArgument, .notFound, .permissionDenied, .resourceExhausted,
            .failedPrecondition, .unimplemented, .unavailable, .unauthenticated:
            true
        case .ok, .cancelled, .unknown, .deadlineExceeded, .alreadyExists, .aborted, .outOfRange,
            .internalError, .dataLoss:
            false
        }
    }
}

/// gRPC over HTTP/2 (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md), as far as a
/// proxy has to know it: messages pass through as they are.
enum GRPC {
    /// `application/grpc`, also with a subtype (`+proto`) or parameters. `application/grpc-web` is
    /// another protocol, whose trailers are in the body.
    static func isContentType(_ value: UnsafeRawBufferPointer) -> Bool {
        let name: StaticString = "application/grpc"
        let count = name.utf8CodeUnitCount
        guard value.count >= count,
            ASCII.equalsIgnoringCase(UnsafeRawBufferPointer(rebasing: value[..<count]), name)
        else { return false }
        return value.count == count || [0x2B, 0x3B, 0x20].contains(value[count])
    }

    /// `grpc-timeout`: at most eight digits and a unit. `nil` when there is none, or none that can
    /// be read.
    static func timeoutNanoseconds(_ head: HTTPHead) -> UInt64? {
        guard let value = head.value(of: .grpcTimeout), (2...9).contains(value.count) else {
            return nil
        }
        var number: UInt64 = 0
        for byte in value.dropLast() {
            guard (48...57).contains(byte) else { return nil }
            number = number * 10 + UInt64(byte - 48)
        }
        let unit: UInt64
        switch value[value.count - 1] {
        case UInt8(ascii: "H"): unit = 3_600_000_000_000
        case UInt8(ascii: "M"): unit = 60_000_000_000
        case UInt8(ascii: "S"): unit = 1_000_000_000
        case UInt8(ascii: "m"): unit = 1_000_000
        case UInt8(ascii: "u"): unit = 1_000
        case UInt8(ascii: "n"): unit = 1
        default: return nil
        }
        let (nanoseconds, overflow) = number.multipliedReportingOverflow(by: unit)
        return overflow ? .max : nanoseconds
    }

    /// The fields that end a call.
    static func addStatus(_ status: GRPCStatus, message: String, to fields: inout FieldBuffer) {
        fields.add("grpc-status", decimal: UInt64(status.rawValue))
        if !message.isEmpty { fields.add("grpc-message", encoded(message)) }
    }

    /// Percent-encoding of everything but printable ASCII, in UTF-8.
    static func encoded(_ message: String) -> String {
        let digits = Array("0123456789ABCDEF".utf8)
        var bytes: [UInt8] = []
        for byte in message.utf8 {
            if byte >= 0x20, byte <= 0x7E, byte != 0x25 {
                bytes.append(byte)
            } else {
                bytes += [0x25, digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

extension HTTPHead {
    /// Of a head without a body, or of trailers.
    var grpcStatus: GRPCStatus? { value(of: .grpcStatus).flatMap(GRPCStatus.init) }
}
