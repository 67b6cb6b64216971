import AsyncHTTPClient
import Foundation
import NIOCore
import NIOHTTP1
import WeirCore

/// An HTTP server under test.
struct Endpoint: Sendable {
    /// What came back, whole. Trailers are not in it: `RawConnection` shows them.
    struct Answer: Sendable {
        let status: Int
        let headers: HTTPHeaders
        let body: [UInt8]

        var text: String { String(decoding: body, as: UTF8.self) }

        func json() throws -> JSONValue { try JSON.parse(text) }

        func header(_ name: String) -> String? { headers.first(name: name) }
    }

    /// Many connections to one host, and no second tries: a test must see each failure.
    private static let client: HTTPClient = {
        var configuration = HTTPClient.Configuration(
            redirectConfiguration: .disallow,
            timeout: .init(connect: .seconds(5)),
            connectionPool: .init(
                idleTimeout: .seconds(2), concurrentHTTP1ConnectionsPerHostSoftLimit: 2_000))
        configuration.connectionPool.retryConnectionEstablishment = false
        configuration.httpVersion = .http1Only
        return HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }()

    static let bodyBytesMax = 64 << 20

    let base: String

    init(port: UInt16) { base = "http://127.0.0.1:\(port)" }

    func get(_ path: String, headers: [String: String] = [:], within bound: Duration = .seconds(30))
        async throws -> Answer
    {
        try await send("GET", path, headers: headers, body: nil, within: bound)
    }

    func post(
        _ path: String, _ body: String, headers: [String: String] = [:],
        within bound: Duration = .seconds(30)
    ) async throws -> Answer {
        try await send("POST", path, headers: headers, body: body, within: bound)
    }

    func put(
        _ path: String, _ body: String = "", headers: [String: String] = [:],
        within bound: Duration = .seconds(30)
    ) async throws -> Answer {
        try await send("PUT", path, headers: headers, body: body, within: bound)
    }

    func send(
        _ method: String, _ path: String, headers: [String: String], body: String?,
        within bound: Duration
    ) async throws -> Answer {
        var request = HTTPClientRequest(url: base + path)
        request.method = HTTPMethod(rawValue: method)
        for (name, value) in headers { request.headers.replaceOrAdd(name: name, value: value) }
        if let body {
            if headers["content-type"] == nil {
                request.headers.add(name: "content-type", value: "application/json")
            }
            request.body = .bytes(ByteBuffer(string: body))
        }
        let nanoseconds = bound.components.seconds * 1_000_000_000
        let response = try await Self.client.execute(
            request,
            timeout: .nanoseconds(nanoseconds + bound.components.attoseconds / 1_000_000_000))
        let collected = try await response.body.collect(upTo: Self.bodyBytesMax)
        return Answer(
            status: Int(response.status.code), headers: response.headers,
            body: Array(collected.readableBytesView))
    }
}
