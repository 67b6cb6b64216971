import HTTPTypes
import Hummingbird
import NIOCore
import WeirCore

/// A refusal of the API as a problem document (RFC 9457). `problems` is the extension member that
/// lists everything that is wrong, each with its JSON Pointer.
struct APIProblem: Error, Sendable {
    var status: HTTPResponse.Status
    var reason: String
    var title: String
    var detail: String
    var problems: [Problem] = []
    var headers: HTTPFields = [:]
    /// Further extension members.
    var members: JSONObject = [:]

    var document: JSONValue {
        var object: JSONObject = [
            "type": .string("urn:weir:problem:" + reason), "title": .string(title),
            "status": .number(JSONNumber(status.code)), "detail": .string(detail),
            "reason": .string(reason),
        ]
        if !problems.isEmpty { object["problems"] = .array(problems.map(\.json)) }
        for (key, value) in members.members { object[key] = value }
        return .object(object)
    }

    var response: Response {
        var response = Response.json(document, status: status)
        response.headers[.contentType] = "application/problem+json"
        for field in headers { response.headers[field.name] = field.value }
        return response
    }
}

extension APIProblem {
    static func invalid(_ problems: Problems, _ detail: String) -> APIProblem {
        APIProblem(
            status: .unprocessableContent, reason: Reason.invalid.name,
            title: "The policy is not valid", detail: detail, problems: problems.list)
    }

    static func badRequest(_ detail: String) -> APIProblem {
        APIProblem(
            status: .badRequest, reason: Reason.malformed.name, title: Reason.malformed.title,
            detail: detail)
    }

    static func parameter(_ name: String, _ message: String) -> APIProblem {
        APIProblem(
            status: .unprocessableContent, reason: Reason.invalid.name,
            title: Reason.invalid.title, detail: "The parameter \(name) cannot be used: \(message)",
            problems: [Problem(path: "/query/" + name, message: message)])
    }

    static func notFound(_ detail: String) -> APIProblem {
        APIProblem(
            status: .notFound, reason: "not_found", title: "There is no such thing", detail: detail)
    }

    static func unauthenticated(_ detail: String) -> APIProblem {
        APIProblem(
            status: .unauthorized, reason: Reason.unauthenticated.name,
            title: Reason.unauthenticated.title, detail: detail,
            headers: [.wwwAuthenticate: "Bearer realm=\"weir\""])
    }

    static func conflict(_ detail: String) -> APIProblem {
        APIProblem(
            status: .preconditionFailed, reason: "conflict",
            title: "The policy has changed in the meantime", detail: detail)
    }

    /// The store is away: the caller may come back.
    static func unavailable(_ detail: String) -> APIProblem {
        APIProblem(
            status: .serviceUnavailable, reason: "store_unavailable",
            title: "The store cannot be reached", detail: detail, headers: [.retryAfter: "1"])
    }

    static func method(allowed: [HTTPRequest.Method]) -> APIProblem {
        let names = allowed.map(\.rawValue).sorted().joined(separator: ", ")
        return APIProblem(
            status: .methodNotAllowed, reason: Reason.method.name, title: Reason.method.title,
            detail: "Allowed here: \(names).", headers: [.allow: names])
    }

    static func mediaType(_ allowed: String) -> APIProblem {
        APIProblem(
            status: .unsupportedMediaType, reason: Reason.mediaType.name,
            title: Reason.mediaType.title, detail: "Taken here: \(allowed).")
    }

    static func tooLarge(_ bytesMax: Int) -> APIProblem {
        APIProblem(
            status: .contentTooLarge, reason: Reason.tooLarge.name, title: Reason.tooLarge.title,
            detail: "At most \(bytesMax) bytes are taken here.")
    }

    /// What an unforeseen error says to the outside: nothing of its own text, which may hold what
    /// the log may see and a caller may not.
    static let internalError = APIProblem(
        status: .internalServerError, reason: "internal", title: "The control plane failed",
        detail: "The log of the control plane has the reason.")
}

extension Problem {
    var json: JSONValue { ["path": .string(path), "message": .string(message)] }
}

extension Response {
    static func json(_ value: JSONValue, status: HTTPResponse.Status = .ok) -> Response {
        Response(
            status: status,
            headers: [.contentType: "application/json", .cacheControl: "no-store"],
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: value.bytes)))
    }

    static func text(_ text: String, contentType: String) -> Response {
        Response(
            status: .ok, headers: [.contentType: contentType],
            body: ResponseBody(byteBuffer: ByteBuffer(string: text)))
    }
}

extension Request {
    /// The whole body, or a refusal when it is larger than `bytesMax`.
    func bytes(max bytesMax: Int) async throws -> [UInt8] {
        // Refused before the first byte where the length is stated.
        if let length = headers[.contentLength].flatMap(Int.init), length > bytesMax {
            throw APIProblem.tooLarge(bytesMax)
        }
        do {
            return Array(try await body.collect(upTo: bytesMax).readableBytesView)
        } catch is NIOTooManyBytesError {
            throw APIProblem.tooLarge(bytesMax)
        }
    }

    /// The media type without its parameters, in lower case.
    var mediaType: String? {
        headers[.contentType].map {
            $0.prefix { $0 != ";" }.lowercased().filter { !$0.isWhitespace }
        }
    }

    /// A query parameter as text; `nil` when it is absent, empty when it has no value.
    func query(_ name: Substring) -> String? {
        uri.queryParameters[name].map { String($0) }
    }
}
