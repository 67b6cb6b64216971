import ArgumentParser
import ControlPlaneServer
import ControlPlaneStore
import Foundation
import Logging
import UnixSignals
import WeirCore
import WeirMeshProtocol

/// Arguments, logging and exit codes; everything else is `ControlPlane`.
@main
struct ControlPlaneCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "weir-control-plane",
        abstract: "Holds the mesh's policy and ledger, and pushes to its sidecars.",
        discussion: """
            Environment: WEIR_CONFIG; WEIR_API; WEIR_MESH; WEIR_MESH_PLAINTEXT; WEIR_TRIAL; \
            REDIS_URL, REDIS_CA_FILE, REDIS_CERT_FILE and REDIS_KEY_FILE; DATABASE_URL (PostgreSQL \
            for the archive, in place of a file in the data folder) and DATABASE_POOL_SIZE; \
            WEIR_ADMIN_TOKEN and WEIR_JOIN_TOKEN; files named by REDIS_URL_FILE, \
            DATABASE_URL_FILE, WEIR_ADMIN_TOKEN_FILE and WEIR_JOIN_TOKEN_FILE; WEIR_DATA; \
            LOG_LEVEL; DEBUG. Flags go before the environment, that before the file that \
            --config names.
            """)

    @Option(help: "A JSON object with these settings, by the names of their flags.")
    var config: String?

    @Option(help: "Where the API listens (default: \(ControlPlaneConfiguration.defaultAPI)).")
    var api: String?

    @Option(
        help:
            "Where sidecars connect (default: \(ControlPlaneConfiguration.defaultMesh))."
    )
    var mesh: String?

    @Option(
        help:
            "How far the mesh may go without TLS: \(MeshPlaintext.choices) (default: loopback)."
    )
    var meshPlaintext: String?

    @Option(
        help:
            "redis://, rediss://, redis+sentinel://, redis+cluster:// or unix:// (docs/redis.md).")
    var redis: String?

    @Option(help: "PEM: whose certificates hold for rediss:// (default: the system's).")
    var redisCa: String?

    @Option(help: "PEM: the certificate shown to Redis.")
    var redisCert: String?

    @Option(help: "PEM: its key.")
    var redisKey: String?

    @Option(help: "The folder of the archive, where DATABASE_URL names no database.")
    var data: String?

    @Flag(help: "Grant money even where Redis is set up so that it may lose writes.")
    var trial = false

    func run() async throws {
        let configuration = try configuration()
        LoggingSystem.bootstrap { label in
            var handler = StreamLogHandler.standardError(label: label)
            handler.logLevel = configuration.logLevel
            return handler
        }
        let logger = Logger(label: "weir-control-plane")
        do {
            try await ControlPlane(configuration: configuration, logger: logger)
                .run(stoppingOn: [.sigterm, .sigint])
        } catch {
            logger.critical("stopped", metadata: ["reason": "\(error)"])
            throw ExitCode.failure
        }
    }

    /// All that is wrong at once, and the status of a wrong configuration (sysexits.h, EX_CONFIG).
    private func configuration() throws -> ControlPlaneConfiguration {
        var flags = ControlPlaneConfiguration.Flags()
        flags.config = config
        flags.api = api
        flags.mesh = mesh
        flags.meshPlaintext = meshPlaintext
        flags.redis = redis
        flags.redisTLS = RedisTLSFiles(
            authorities: redisCa, certificate: redisCert, key: redisKey)
        flags.data = data
        flags.isTrial = trial
        do {
            return try ControlPlaneConfiguration(
                flags: flags, environment: ProcessInfo.processInfo.environment)
        } catch {
            for problem in error.list {
                FileHandle.standardError.write(
                    Data("weir-control-plane: \(problem.path): \(problem.message)\n".utf8))
            }
            throw ExitCode(78)
        }
    }
}
