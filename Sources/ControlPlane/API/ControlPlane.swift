import ControlPlaneStore
import Hummingbird
import HummingbirdCore
import HummingbirdHTTP2
import Logging
import NIOCore
import ServiceLifecycle
import Synchronization
import UnixSignals
import WeirCore
import WeirMeshProtocol
import WeirYAML

/// The whole control plane on one page: the store, the push, and two listeners. The API is for
/// people and their tools and asks for the administrator's token; the mesh listener is for sidecars
/// and asks for a join token, then for sessions. They are apart so that one can be published and
/// the other not.
package struct ControlPlane: Sendable {
    /// Where the listeners are, which matters where the system chose the ports.
    package struct Bound: Hashable, Sendable {
        package var api: ListenAddress
        package var mesh: ListenAddress
    }

    private let configuration: ControlPlaneConfiguration
    private let services: ControlPlaneServices
    private let openAPI: JSONValue
    private let logger: Logger

    /// Opens the archive; Redis is connected to when it is first needed, and waited for.
    package init(configuration: ControlPlaneConfiguration, logger: Logger) throws {
        // Checked here too, and not only where flags are read: this is what keeps plaintext inside.
        let isLoopback = configuration.mesh.isLoopback
        guard configuration.meshPlaintext.allows(isLoopback: isLoopback) else {
            throw Problems([
                Problem(path: "--mesh", message: ControlPlaneConfiguration.plaintextProblem)
            ])
        }
        if !isLoopback {
            logger.warning("\(MeshPlaintext.warning)", metadata: ["mesh": "\(configuration.mesh)"])
        }
        self.configuration = configuration
        self.logger = logger
        services = try ControlPlaneServices(configuration: configuration, logger: logger)
        openAPI = try OpenAPIDocument.read()
    }

    /// Runs until the task is cancelled or a signal asks for a graceful end.
    package func run(
        stoppingOn signals: [UnixSignal] = [],
        whenListening: @escaping @Sendable (Bound) -> Void = { _ in }
    ) async throws {
        let ports = BoundPorts(api: configuration.api, mesh: configuration.mesh) { [logger] bound in
            logger.notice(
                "listening", metadata: ["api": "\(bound.api)", "mesh": "\(bound.mesh)"])
            whenListening(bound)
        }
        // Stopped in reverse: first the push, which ends the watches that a listener waits for.
        let group = ServiceGroup(
            configuration: ServiceGroupConfiguration(
                services: [apiListener(ports), meshListener(ports), services.watcher].map {
                    ServiceGroupConfiguration.ServiceConfiguration(
                        service: $0, failureTerminationBehavior: .gracefullyShutdownGroup)
                },
                gracefulShutdownSignals: signals, logger: logger))
        try await group.run()
    }

    private func apiListener(_ ports: BoundPorts) -> any Service {
        let router = Router(context: ServerContext.self)
        router.add(middleware: MetricsMiddleware(listener: "api", metrics: services.metrics))
        router.add(middleware: ErrorMiddleware(form: .problem))
        HealthAPI(services: services, openAPI: openAPI).addRoutes(to: RouteTable(router: router))
        // Whatever is added from here on asks for the token.
        router.add(
            middleware: AdministratorMiddleware(token: configuration.administratorToken))
        let table = RouteTable(router: router)
        PolicyAPI(services: services).addRoutes(to: table)
        SidecarsAPI(services: services).addRoutes(to: table)
        UsageAPI(services: services).addRoutes(to: table)
        ReconciliationAPI(services: services).addRoutes(to: table)
        HoldersAPI(services: services).addRoutes(to: table)
        AuditAPI(services: services).addRoutes(to: table)
        UsersAPI(services: services).addRoutes(to: table)
        KeysAPI(services: services).addRoutes(to: table)
        return Application(
            router: router, server: .http1(configuration: Self.streamConfiguration),
            configuration: Self.listen(configuration.api),
            onServerRunning: { ports.bound(api: $0.localAddress?.port) },
            logger: logger)
    }

    private func meshListener(_ ports: BoundPorts) -> any Service {
        let router = Router(context: ServerContext.self)
        router.add(middleware: MetricsMiddleware(listener: "mesh", metrics: services.metrics))
        router.add(middleware: ErrorMiddleware(form: .mesh))
        MeshAPI(services: services).addRoutes(to: router)
        return Application(
            router: router,
            server: .plaintextHTTP2(
                configuration: HTTP2Channel.Configuration(
                    gracefulCloseTimeout: .seconds(ServerLimits.shutdownSeconds))),
            configuration: Self.listen(configuration.mesh),
            onServerRunning: { ports.bound(mesh: $0.localAddress?.port) },
            logger: logger)
    }

    private static var streamConfiguration: HTTP1Channel.Configuration {
        HTTP1Channel.Configuration(
            idleTimeout: .seconds(ServerLimits.idleSeconds),
            httpDecoderConfiguration: HTTP1Channel.Configuration.DecoderConfiguration(
                maxHeaderFieldSize: ServerLimits.headerBytesMax,
                maxHeaderListSize: ServerLimits.headerBytesMax,
                maxHeaderFieldCount: ServerLimits.headerCountMax))
    }

    private static func listen(_ address: ListenAddress) -> ApplicationConfiguration {
        // A name could come to mean another machine's address.
        let host = address.host == "localhost" ? "127.0.0.1" : address.host
        return ApplicationConfiguration(
            address: .hostname(host, port: address.port), serverName: "weir-control-plane")
    }
}

/// Collects the two listeners' ports, which become known one after the other.
private final class BoundPorts: Sendable {
    private struct State {
        var api: Int?
        var mesh: Int?
    }

    private let state = Mutex(State())
    private let addresses: ControlPlane.Bound
    private let whenBoth: @Sendable (ControlPlane.Bound) -> Void

    init(
        api: ListenAddress, mesh: ListenAddress,
        whenBoth: @escaping @Sendable (ControlPlane.Bound) -> Void
    ) {
        addresses = ControlPlane.Bound(api: api, mesh: mesh)
        self.whenBoth = whenBoth
    }

    func bound(api: Int? = nil, mesh: Int? = nil) {
        let both: ControlPlane.Bound? = state.withLock { state in
            state.api = api ?? state.api
            state.mesh = mesh ?? state.mesh
            guard let api = state.api, let mesh = state.mesh else { return nil }
            return ControlPlane.Bound(
                api: ListenAddress(host: addresses.api.host, port: api),
                mesh: ListenAddress(host: addresses.mesh.host, port: mesh))
        }
        if let both { whenBoth(both) }
    }
}
