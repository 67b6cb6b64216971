import ArgumentParser
import AsyncHTTPClient
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import WeirCore

/// Where the control plane is and who asks: options that every command takes which talks to it.
struct ConnectionOptions: ParsableArguments {
    static let defaultServer = "http://127.0.0.1:8400"

    @Option(help: "The control plane's API (default: WEIR_SERVER or \(defaultServer)).")
    var server: String?

    @Option(help: "A file with the administrator's token.")
    var tokenFile: String?

    @Option(help: "Seconds to wait for one answer.")
    var timeout: Int64 = 10

    func connect() throws -> Connection {
        let environment = ProcessInfo.processInfo.environment
        let address = server ?? environment["WEIR_SERVER"] ?? Self.defaultServer
        guard address.hasPrefix("http://") || address.hasPrefix("https://"), timeout > 0 else {
            throw Failure("the server must be an http:// or https:// URL, not \(address)")
        }
        return Connection(
            server: address.hasSuffix("/") ? String(address.dropLast()) : address,
            token: try Secret.read(
                file: tokenFile ?? environment["WEIR_ADMIN_TOKEN_FILE"],
                value: environment["WEIR_ADMIN_TOKEN"]),
            timeout: .seconds(timeout))
    }
}

enum Secret {
    /// A secret out of a file, else the value; `nil` when neither is given.
    static func read(file: String?, value: String?) throws -> String? {
        guard let file else { return value }
        guard let text = try? String(contentsOfFile: file, encoding: .utf8) else {
            throw Failure("the token file \(file) cannot be read")
        }
        return text.trimmingCharacters(in: .whitespacesAndNewlines)
    }
}

/// The API of the control plane, as the commands use it.
struct Connection: Sendable {
    static let answerBytesMax = 32 << 20

    struct Answer: Sendable {
        var status: Int
        var body: JSONValue

        var isSuccess: Bool { (200..<300).contains(status) }
        /// What a problem document lists.
        var problems: [Problem] {
            (body["problems"]?.array ?? []).map {
                Problem(
                    path: $0["path"]?.string ?? "", message: $0["message"]?.string ?? $0.text)
            }
        }
        var detail: String {
            body["detail"]?.string ?? body["title"]?.string ?? "the answer was \(status)"
        }
    }

    let server: String
    let token: String?
    let timeout: TimeAmount

    func get(_ path: String) async throws -> Answer { try await send(.GET, path) }

    /// The answer's body; a refusal is a failure.
    func resource(_ path: String) async throws -> JSONValue {
        try await succeeded(try await get(path))
    }

    func succeeded(_ answer: Answer) async throws -> JSONValue {
        if answer.status == 401 || answer.status == 403 {
            throw Failure(
                "\(answer.detail) (set WEIR_ADMIN_TOKEN or --token-file)",
                code: Failure.unreachable)
        }
        guard answer.isSuccess else {
            let problems = answer.problems.map { "\n  " + $0.description }.joined()
            throw Failure("\(answer.detail)\(problems)")
        }
        return answer.body
    }

    func send(
        _ method: HTTPMethod, _ path: String, body: JSONValue? = nil,
        headers: [(String, String)] = []
    ) async throws -> Answer {
        var request = HTTPClientRequest(url: server + path)
        request.method = method
        if let token { request.headers.add(name: "authorization", value: "Bearer " + token) }
        for (name, value) in headers { request.headers.add(name: name, value: value) }
        if let body {
            request.headers.add(name: "content-type", value: "application/json")
            request.body = .bytes(ByteBuffer(bytes: body.bytes))
        }
        let response: HTTPClientResponse
        let bytes: [UInt8]
        do {
            response = try await HTTPClient.shared.execute(request, timeout: timeout)
            bytes = Array(
                try await response.body.collect(upTo: Self.answerBytesMax).readableBytesView)
        } catch {
            throw Failure(
                "the control plane at \(server) cannot be reached: \(Self.words(for: error))",
                code: Failure.unreachable)
        }
        let value = bytes.isEmpty ? .null : (try? JSON.parse(bytes)) ?? .null
        return Answer(status: Int(response.status.code), body: value)
    }

    private static func words(for error: any Error) -> String {
        switch error {
        case let error as HTTPClientError:
            return error == .connectTimeout || error == .deadlineExceeded
                ? "no answer in time" : error.shortDescription
        case let error as NIOConnectionError:
            return error.connectionErrors.isEmpty ? "no such host" : "connection refused"
        case let error as IOError where error.errnoCode == ECONNREFUSED: return "connection refused"
        default: return "\(error)"
        }
    }
}
