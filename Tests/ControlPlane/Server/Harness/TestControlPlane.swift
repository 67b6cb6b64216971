import AsyncHTTPClient
import Foundation
import Logging
import NIOCore
import NIOHTTP1
import Testing
import WeirCore
import WeirMeshProtocol
import WeirYAML

@testable import ControlPlaneServer
@testable import ControlPlaneStore

/// A control plane in this process on ports that the system chose, with a Redis of its own.
struct TestControlPlane: Sendable {
    static let administrator = "administrator-of-the-tests"
    static let join = "join-token-of-the-tests"

    let bound: ControlPlane.Bound
    let redis: RedisServer

    /// Runs the body against a control plane that is ready, and stops everything afterwards.
    static func run(
        appendFsync: String = "always", isTrial: Bool = false,
        _ body: @Sendable (TestControlPlane) async throws -> Void
    ) async throws {
        let redis = try RedisServer(appendFsync: appendFsync)
        defer { redis.stop() }
        try await run(redis: redis, folder: "data", isTrial: isTrial) { test in
            try await eventually {
                let status = try await test.send(.GET, "/readyz").status
                return appendFsync != "always" || status == 200
            }
            try await body(test)
        }
    }

    /// A second control plane over the same Redis.
    func withReplica(_ body: @Sendable (TestControlPlane) async throws -> Void) async throws {
        try await Self.run(redis: redis, folder: "data-2", isTrial: false) { test in
            try await eventually { try await test.send(.GET, "/readyz").status == 200 }
            try await body(test)
        }
    }

    static func run(
        redis: RedisServer, folder: String = "data", isTrial: Bool = false,
        archive: ArchiveLocation? = nil,
        _ body: @Sendable (TestControlPlane) async throws -> Void
    ) async throws {
        let configuration = Self.configuration(
            redisURL: redis.url, folder: redis.folder + "/" + folder, isTrial: isTrial,
            archive: archive)
        let logger = Logger(label: "tests") { _ in SwiftLogNoOpLogHandler() }
        let controlPlane = try ControlPlane(configuration: configuration, logger: logger)
        let (listening, continuation) = AsyncStream.makeStream(of: ControlPlane.Bound.self)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                try await controlPlane.run { continuation.yield($0) }
            }
            var addresses = listening.makeAsyncIterator()
            let bound = try #require(await addresses.next())
            try await body(TestControlPlane(bound: bound, redis: redis))
            group.cancelAll()
        }
    }

    static func configuration(
        redisURL: String, folder: String, isTrial: Bool = false, archive: ArchiveLocation? = nil
    ) -> ControlPlaneConfiguration {
        ControlPlaneConfiguration(
            api: ListenAddress(host: "127.0.0.1", port: 0),
            mesh: ListenAddress(host: "127.0.0.1", port: 0), redisURL: redisURL,
            archive: archive ?? .sqlite(path: folder + "/archive.sqlite3"), isTrial: isTrial,
            administratorToken: AccessToken(administrator), joinToken: join, logLevel: .info)
    }

    // MARK: - The API

    struct Answer: Sendable {
        var status: Int
        var headers: HTTPHeaders
        var bytes: [UInt8]
        var body: JSONValue { (try? JSON.parse(bytes)) ?? .null }
        var entityTag: String { headers.first(name: "etag") ?? "" }
        var contentType: String { headers.first(name: "content-type") ?? "" }
    }

    var server: String { "http://\(bound.api)" }

    func send(
        _ method: HTTPMethod, _ path: String, _ body: [UInt8]? = nil,
        headers: [String: String] = [:], token: String? = administrator
    ) async throws -> Answer {
        var request = HTTPClientRequest(url: server + path)
        request.method = method
        if let token { request.headers.add(name: "authorization", value: "Bearer \(token)") }
        for (name, value) in headers { request.headers.add(name: name, value: value) }
        if let body { request.body = .bytes(ByteBuffer(bytes: body)) }
        let response = try await HTTPClient.shared.execute(request, timeout: .seconds(10))
        let buffer = try await response.body.collect(upTo: 8 << 20)
        return Answer(
            status: Int(response.status.code), headers: response.headers,
            bytes: Array(buffer.readableBytesView))
    }

    func put(
        _ documents: [JSONValue], query: String = "", headers: [String: String] = [:]
    ) async throws -> Answer {
        let body: JSONValue = ["documents": .array(documents)]
        return try await send(
            .PUT, "/v1/policy" + query, body.bytes,
            headers: headers.merging(["content-type": "application/json"]) { $1 })
    }

    // MARK: - The mesh

    func connect() async throws -> MeshConnection {
        try await MeshConnection.open(port: bound.mesh.port)
    }

    /// A sidecar that has joined.
    func joined(
        agent: String? = "finbert", instance: String = "test-1", endpoint: String = "127.0.0.1:9001"
    ) async throws -> JoinedSidecar {
        let connection = try await connect()
        let request = JoinRequest(
            credential: Self.join, role: agent == nil ? .gateway : .agent, agent: agent,
            endpoint: agent == nil ? nil : endpoint, instance: instance, predecessor: nil)
        let answer = try await connection.send(
            "POST", MeshPath.join, try JSON.encode(request))
        try #require(answer.status == 200, "\(String(decoding: answer.bytes, as: UTF8.self))")
        return JoinedSidecar(
            connection: connection, response: try answer.decode(JoinResponse.self))
    }
}

/// The default policy of the project.
enum SamplePolicy {
    static let folder = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().appendingPathComponent("../../../../manifests/policy")
        .standardizedFileURL.path

    static func documents() throws -> [JSONValue] {
        try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
            .filter { $0.hasSuffix(".yaml") }
            .flatMap { name in
                let data = try #require(
                    FileManager.default.contents(atPath: folder + "/" + name))
                return try PolicyText.documents(in: Array(data), format: .yaml)
            }
    }

    /// The default policy with another monthly budget for a tier.
    static func documents(budget: String, ofTier tier: String) throws -> [JSONValue] {
        try documents().map { document in
            guard document["kind"] == "Tier", document["metadata"]?["name"] == .string(tier),
                var object = document.object, var spec = document["spec"]?.object
            else { return document }
            spec["monthlyBudget"] = .string(budget)
            object["spec"] = .object(spec)
            return .object(object)
        }
    }
}

struct NeverHappened: Error {}

/// Polls until the condition holds; fails after the bound.
func eventually(
    within bound: Duration = .seconds(10), _ condition: () async throws -> Bool
) async throws {
    let deadline = ContinuousClock.now + bound
    while true {
        if try await condition() { return }
        guard ContinuousClock.now < deadline else { throw NeverHappened() }
        // tidy: the pause of the poll itself
        try await Task.sleep(for: .milliseconds(10))
    }
}
