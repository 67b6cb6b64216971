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
