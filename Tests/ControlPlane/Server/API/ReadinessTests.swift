import ControlPlaneStore
import Logging
import NIOHTTP1
import PrivatePostgreSQL
import Synchronization
import Testing
import WeirCore
import WeirMeshProtocol
import WeirPolicy

@testable import ControlPlaneServer

@Suite("Serving with and without Redis", .timeLimit(.minutes(1)))
struct ReadinessTests {
    private func check(_ name: String, _ answer: TestControlPlane.Answer) -> JSONValue? {
        answer.body["checks"]?.array?.first { $0["name"] == .string(name) }
    }

    @Test func waitsForARedisThatStartsLater() async throws {
        let redis = try RedisServer(starts: false)
        defer { redis.stop() }
        try await TestControlPlane.run(redis: redis) { server in
            #expect(try await server.send(.GET, "/healthz").status == 200)
            let before = try await server.send(.GET, "/readyz")
            #expect(before.status == 503)
            #expect(check("redis", before)?["state"] == "failed")
            let connection = try await server.connect()
            let early = try await connection.send("GET", MeshPath.policy, session: "any")
            #expect(early.status == 503)
            try redis.start()
            try await eventually { try await server.send(.GET, "/readyz").status == 200 }
        }
    }

    @Test func goesOnWithWhatItHasWhenRedisIsLost() async throws {
        try await TestControlPlane.run { server in
            _ = try await server.put(try SamplePolicy.documents())
            let sidecar = try await server.joined()
            server.redis.stop()
            let policy = try await server.send(.GET, "/v1/policy")
            #expect(policy.status == 503)
            #expect(policy.body["reason"] == "store_unavailable")
            #expect(policy.headers.first(name: "retry-after") != nil)
            #expect(try await sidecar.report().status == 503)
            // The push needs no store.
            try await sidecar.connection.watch(
                MeshPath.policy + "?watch", session: sidecar.response.session
            ) { lines in
                let (_, projection) = try #require(try await lines.nextProjection())
                #expect(projection.version.number == 1)
            }
        }
    }

    /// Records wait in the journals; what needs Redis alone goes on.
    @Test func goesOnWithoutPostgreSQLAndSaysSo() async throws {
        let database = try PrivatePostgreSQL()
        let settings = PostgreSQLSettings(url: database.url(of: try database.makeDatabase()))
        let location = ArchiveLocation.postgreSQL(try #require(settings))
        database.stop()
        let redis = try RedisServer()
        defer { redis.stop() }
        try await TestControlPlane.run(redis: redis, archive: location) { server in
            // Whether this mesh has a past is what the archive must say first.
            try await eventually {
                let answer = try await server.send(.GET, "/readyz")
                return answer.status == 503 && check("ledger", answer)?["state"] == "failed"
                    && check("archive", answer)?["state"] == "warning"
            }
            try database.start()
            try await eventually { try await server.send(.GET, "/readyz").status == 200 }
            _ = try await server.put(try SamplePolicy.documents())
            let sidecar = try await server.joined()
            #expect(try await sidecar.report().status == 200)

            database.stop(.crash)
            try await eventually {
                let answer = try await server.send(.GET, "/readyz")
                return answer.status == 200 && check("archive", answer)?["state"] == "warning"
            }
            #expect(try await sidecar.report().status == 200)
            for path in ["/v1/audit", "/v1/usage"] {
                let answer = try await server.send(.GET, path)
                #expect(answer.status == 503 && answer.body["reason"] == "store_unavailable")
            }
            try database.start()
            try await eventually { try await server.send(.GET, "/v1/audit").status == 200 }
        }
    }

    @Test func saysWhenRedisMayLoseWrites() async throws {
        try await TestControlPlane.run(appendFsync: "everysec") { server in
            try await eventually {
                check("persistence", try await server.send(.GET, "/readyz")) != nil
            }
            let answer = try await server.send(.GET, "/readyz")
            #expect(answer.status == 503)
            #expect(check("persistence", answer)?["state"] == "failed")
        }
        try await TestControlPlane.run(appendFsync: "everysec", isTrial: true) { server in
            try await eventually { try await server.send(.GET, "/readyz").status == 200 }
            let answer = try await server.send(.GET, "/readyz")
            #expect(check("persistence", answer)?["state"] == "warning")
        }
    }

    @Test func stopsWithAWatchOpen() async throws {
        let redis = try RedisServer()
        defer { redis.stop() }
        let stopping = Mutex(ContinuousClock.now)
        try await TestControlPlane.run(redis: redis) { server in
            try await eventually { try await server.send(.GET, "/readyz").status == 200 }
            let sidecar = try await server.joined()
            _ = try await sidecar.connection.watch(
                MeshPath.policy + "?watch", session: sidecar.response.session
            ) { lines in try await lines.next() != nil }
            stopping.withLock { $0 = ContinuousClock.now }
        }
        #expect(stopping.withLock { ContinuousClock.now - $0 } < .seconds(20))
    }

    @Test(arguments: ["0.0.0.0", "192.0.2.1", "example.com", "127.1", "::"])
    func theMeshListenerIsForLoopbackOnly(host: String) throws {
        var configuration = TestControlPlane.configuration(
            redisURL: "redis://127.0.0.1:1", folder: "/tmp/weir-server-unused")
        configuration.mesh = ListenAddress(host: host, port: 0)
        #expect(throws: Problems.self) {
            try ControlPlane(
                configuration: configuration,
                logger: Logger(label: "tests") { _ in SwiftLogNoOpLogHandler() })
        }
        configuration.meshPlaintext = .network
        #expect(throws: Never.self) {
            try ControlPlane(
                configuration: configuration,
                logger: Logger(label: "tests") { _ in SwiftLogNoOpLogHandler() })
        }
    }
}
