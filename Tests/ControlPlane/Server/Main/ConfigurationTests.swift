import ControlPlaneStore
import Logging
import Testing
import WeirCore

@testable import ControlPlaneServer

@Suite("Configuration out of flags, environment and files")
struct ConfigurationTests {
    private let good = [
        "WEIR_ADMIN_TOKEN": "administrator-0123", "WEIR_JOIN_TOKEN": "join-token-0123456",
        "WEIR_DATA": "/tmp/data",
    ]

    private func problems(
        _ flags: ControlPlaneConfiguration.Flags, _ environment: [String: String]
    ) -> [String] {
        do {
            _ = try ControlPlaneConfiguration(
                flags: flags, environment: environment, readFile: { _ in nil })
            return []
        } catch {
            return error.list.map(\.path)
        }
    }

    @Test func defaultsAreLoopback() throws {
        let configuration = try ControlPlaneConfiguration(
            flags: .init(), environment: good, readFile: { _ in nil })
        #expect(configuration.api == ListenAddress("127.0.0.1:8400"))
        #expect(configuration.mesh == ListenAddress("127.0.0.1:8401"))
        #expect(configuration.logLevel == .info)
        #expect(configuration.administratorToken.matches("administrator-0123"))
        #expect(!configuration.administratorToken.matches("administrator-012"))
    }

    @Test func flagsGoBeforeTheEnvironmentAndFilesBeforeValues() throws {
        var flags = ControlPlaneConfiguration.Flags()
        flags.redis = "redis://127.0.0.1:1234"
        var environment = good
        environment["REDIS_URL"] = "redis://127.0.0.1:1"
        environment["WEIR_JOIN_TOKEN_FILE"] = "/secret"
        environment["DEBUG"] = "true"
        let configuration = try ControlPlaneConfiguration(
            flags: flags, environment: environment,
            readFile: { $0 == "/secret" ? "token-out-of-the-file\n" : nil })
        #expect(configuration.redisURL == "redis://127.0.0.1:1234")
        #expect(configuration.joinToken == "token-out-of-the-file")
        #expect(configuration.logLevel == .debug)
    }

    /// Flag, environment, file, default, of each setting.
    @Test func theFileStandsBehindTheEnvironment() throws {
        let file = """
            {"api": "127.0.0.1:1", "mesh": "127.0.0.1:2", "redis": "redis://127.0.0.1:3",
             "data": "/file", "trial": true, "log-level": "error"}
            """
        func configuration(
            _ change: (inout ControlPlaneConfiguration.Flags) -> Void = { _ in },
            _ environment: [String: String] = [:]
        ) throws -> ControlPlaneConfiguration {
            var flags = ControlPlaneConfiguration.Flags()
            flags.config = "/c.json"
            change(&flags)
            var all = good
            all["WEIR_DATA"] = nil
            return try ControlPlaneConfiguration(
                flags: flags, environment: all.merging(environment) { $1 },
                readFile: { $0 == "/c.json" ? file : nil })
        }
        let fromFile = try configuration()
        #expect(fromFile.api == ListenAddress("127.0.0.1:1"))
        #expect(fromFile.mesh == ListenAddress("127.0.0.1:2"))
        #expect(fromFile.redisURL == "redis://127.0.0.1:3")
        #expect(fromFile.isTrial && fromFile.logLevel == .error)
        let environment = [
            "WEIR_API": "127.0.0.1:11", "WEIR_MESH": "127.0.0.1:12",
            "REDIS_URL": "redis://127.0.0.1:13", "WEIR_TRIAL": "false", "LOG_LEVEL": "debug",
        ]
        let fromEnvironment = try configuration({ _ in }, environment)
        #expect(fromEnvironment.api == ListenAddress("127.0.0.1:11"))
        #expect(fromEnvironment.mesh == ListenAddress("127.0.0.1:12"))
        #expect(fromEnvironment.redisURL == "redis://127.0.0.1:13")
        #expect(!fromEnvironment.isTrial && fromEnvironment.logLevel == .debug)
        let fromFlags = try configuration(
            {
                $0.api = "127.0.0.1:21"
                $0.mesh = "127.0.0.1:22"
                $0.redis = "redis://127.0.0.1:23"
                $0.isTrial = true
            }, environment)
        #expect(fromFlags.api == ListenAddress("127.0.0.1:21"))
        #expect(fromFlags.mesh == ListenAddress("127.0.0.1:22"))
        #expect(fromFlags.redisURL == "redis://127.0.0.1:23" && fromFlags.isTrial)
    }

    @Test func aFileIsReadWholeOrItsProblemsAreSaid() {
        func problems(_ text: String?) -> [String] {
            var flags = ControlPlaneConfiguration.Flags()
            flags.config = "/c.json"
            do {
                _ = try ControlPlaneConfiguration(
                    flags: flags, environment: good, readFile: { _ in text })
                return []
            } catch {
                return error.list.map(\.path)
            }
        }
        #expect(problems(nil) == ["/c.json"])
        #expect(problems("[]") == ["/c.json"])
        #expect(problems("{") == ["/c.json"])
        #expect(
            problems(#"{"WEIR_ADMIN_TOKEN": "x", "other": 1, "api": "here"}"#)
                == ["/c.json: WEIR_ADMIN_TOKEN", "/c.json: other", "--api"])
    }

    @Test func aWrongRedisIsRefusedWithAllThatIsWrong() throws {
        var environment = good
        environment["REDIS_URL"] = "redis+cluster://:secret@a:0,b/7"
        #expect(problems(.init(), environment) == ["REDIS_URL", "REDIS_URL"])
        environment["REDIS_URL"] = "rediss+sentinel://a,b/weir"
        #expect(problems(.init(), environment) == [])
        environment["REDIS_CA_FILE"] = "/nowhere"
        environment["REDIS_KEY_FILE"] = "/nowhere"
        #expect(problems(.init(), environment) == ["REDIS_CA_FILE", "REDIS_CERT_FILE"])
        environment["REDIS_URL"] = "redis://a"
        #expect(problems(.init(), environment) == ["REDIS_URL"])
        var fromFile = good
        fromFile["REDIS_URL_FILE"] = "/secret"
        let configuration = try ControlPlaneConfiguration(
            flags: .init(), environment: fromFile,
            readFile: { $0 == "/secret" ? "redis://:pw@a\n" : nil })
        #expect(configuration.redisURL == "redis://:pw@a")
    }

    @Test func theMeshLeavesTheLoopbackOnlyWhenTold() throws {
        var flags = ControlPlaneConfiguration.Flags()
        flags.mesh = "0.0.0.0:8401"
        #expect(problems(flags, good) == ["--mesh"])
        var environment = good
        environment["WEIR_MESH_PLAINTEXT"] = "yes"
        #expect(problems(flags, environment) == ["--mesh-plaintext", "--mesh"])
        environment["WEIR_MESH_PLAINTEXT"] = "network"
        #expect(problems(flags, environment).isEmpty)
        // The flag goes before the environment.
        flags.meshPlaintext = "loopback"
        #expect(problems(flags, environment) == ["--mesh"])
    }

    @Test func allProblemsAreReportedAtOnce() {
        var flags = ControlPlaneConfiguration.Flags()
        flags.api = "here"
        flags.mesh = "0.0.0.0:1"
        flags.redis = "http://elsewhere"
        let paths = problems(
            flags,
            [
                "WEIR_ADMIN_TOKEN": "short", "WEIR_JOIN_TOKEN_FILE": "/missing",
                "LOG_LEVEL": "loud",
            ])
        #expect(
            Set(paths) == [
                "--api", "--mesh", "REDIS_URL", "--data", "WEIR_ADMIN_TOKEN", "WEIR_JOIN_TOKEN",
                "LOG_LEVEL",
            ])
    }

    @Test func theArchiveIsAFileOrPostgreSQL() throws {
        func archive(_ more: [String: String]) throws -> ArchiveLocation {
            try ControlPlaneConfiguration(
                flags: .init(), environment: good.merging(more) { $1 },
                readFile: { $0 == "/url" ? "postgresql://h/out-of-a-file\n" : nil }
            ).archive
        }
        #expect(try archive([:]) == .sqlite(path: "/tmp/data/archive.sqlite3"))
        func postgreSQL(_ url: String, _ connections: Int = 20) throws -> ArchiveLocation {
            .postgreSQL(try #require(PostgreSQLSettings(url: url, connections: connections)))
        }
        #expect(
            try archive(["DATABASE_URL": "postgres://u:p@h/db"])
                == postgreSQL("postgres://u:p@h/db"))
        #expect(
            try archive(["DATABASE_URL_FILE": "/url", "DATABASE_POOL_SIZE": "7"])
                == postgreSQL("postgresql://h/out-of-a-file", 7))
        var environment = good
        environment["WEIR_DATA"] = nil
        #expect(problems(.init(), environment) == ["--data"])
        environment["DATABASE_URL"] = "postgres://h/db"
        #expect(problems(.init(), environment) == [])
        environment["DATABASE_POOL_SIZE"] = "1"
        #expect(problems(.init(), environment) == ["DATABASE_POOL_SIZE"])
        environment = good
        environment["DATABASE_URL"] = "mysql://h/db?password=secret"
        do {
            _ = try ControlPlaneConfiguration(flags: .init(), environment: environment)
            Issue.record("another database was taken")
        } catch {
            #expect(error.list.map(\.path) == ["DATABASE_URL"])
            #expect(!"\(error)".contains("secret"))
        }
    }

    @Test(arguments: [
        ("127.0.0.1:8400", true), ("127.9.9.9:1", true), ("[::1]:80", true), ("localhost:0", true),
        ("0.0.0.0:1", false), ("127.0.0.1.example.com:1", false), ("[::]:1", false),
        ("127.0.0.300:1", false),
    ])
    func loopbackIsTold(text: String, isLoopback: Bool) throws {
        #expect(try #require(ListenAddress(text)).isLoopback == isLoopback)
    }

    @Test(arguments: ["", ":1", "host", "host:", "host:65536", "host:-1", "::1:80", "host:1x"])
    func otherTextsAreNoAddresses(text: String) { #expect(ListenAddress(text) == nil) }

    @Test(
        arguments: [
            ("Bearer abc", "abc"), ("bearer  abc", "abc"), ("Basic abc", nil), ("Bearer", nil),
            ("Bearer ", nil), (nil, nil),
        ] as [(String?, String?)])
    func bearerTokensAreFound(field: String?, token: String?) {
        #expect(AccessToken.bearer(in: field).map { String($0) } == token)
    }
}
