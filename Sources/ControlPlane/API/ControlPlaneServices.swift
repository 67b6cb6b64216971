import ControlPlaneStore
import Foundation
import Logging
import Synchronization
import WeirCore
import WeirCrypto
import WeirMeshProtocol
import WeirPolicy

/// What the handlers of both listeners work with. Redis may be away when the process starts and
/// later: what needs it answers 503 then, and what does not goes on.
package final class ControlPlaneServices: Sendable {
    /// What can be used once Redis and the archive have been reached for the first time.
    struct Ledger: Sendable {
        var sessions: Sessions
        var store: LedgerStore
        var subjects: SubjectStore
    }

    let redis: Redis
    let policies: PolicyStore
    let sidecars: SidecarRegistry
    let joinTokens: JoinTokens
    let idempotency: IdempotencyStore
    let archive: Archive
    let peers: PeerTable
    let meshState: MeshStateView
    /// Mesh addresses that a sidecar may go to.
    let replicas: [String]
    let hub: PolicyHub
    let watcher: PolicyWatcher
    let metrics = ServerMetrics()
    let isTrial: Bool
    let logger: Logger
    private let opened: OpenedLedger

    init(configuration: ControlPlaneConfiguration, logger: Logger) throws {
        isTrial = configuration.isTrial
        self.logger = logger
        redis = try Redis(url: configuration.redisURL, tls: configuration.redisTLS)
        if case .sqlite(let path) = configuration.archive {
            try FileManager.default.createDirectory(
                at: URL(fileURLWithPath: path).deletingLastPathComponent(),
                withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        }
        archive = try Archive(at: configuration.archive)
        policies = PolicyStore(redis: redis)
        sidecars = SidecarRegistry(redis: redis)
        joinTokens = JoinTokens(redis: redis, meshToken: configuration.joinToken)
        idempotency = IdempotencyStore(redis: redis)
        peers = PeerTable(sidecars: sidecars)
        meshState = MeshStateView(sidecars: sidecars, redis: redis)
        opened = OpenedLedger(redis: redis, archive: archive, isTrial: configuration.isTrial)
        // Where the system chose the port, the sidecar knows a better address than this one.
        replicas = configuration.mesh.port == 0 ? [] : [configuration.mesh.description]
        hub = PolicyHub()
        watcher = PolicyWatcher(
            source: StoreSource(
                opened: opened, policies: policies, sidecars: sidecars, redis: redis),
            hub: hub, logger: logger)
    }

    /// Throws 503 until Redis and the archive have been reached once.
    func ledger() throws -> Ledger {
        guard let ledger = opened.ledger else {
            throw APIProblem.unavailable(
                "Redis and the archive have not both been reached since the start.")
        }
        return ledger
    }
}

/// Reads the mesh's secret and begins the ledger's epoch when Redis can first be reached, and the
/// archive can say whether this mesh has a past.
final class OpenedLedger: Sendable {
    private let redis: Redis
    private let archive: Archive
    private let isTrial: Bool
    private let state = Mutex<ControlPlaneServices.Ledger?>(nil)

    init(redis: Redis, archive: Archive, isTrial: Bool) {
        self.redis = redis
        self.archive = archive
        self.isTrial = isTrial
    }

    var ledger: ControlPlaneServices.Ledger? { state.withLock { $0 } }

    /// Does nothing when it has been done; may be tried again after an error.
    func open() async throws {
        guard ledger == nil else { return }
        let sessions = try await Sessions.load(from: redis)
        let store = LedgerStore(
            redis: redis, sessions: sessions, isTrial: isTrial, archive: archive)
        try await store.begin(hasPast: try await archive.hasRecords())
        let subjects = SubjectStore(redis: redis, ledger: store)
        state.withLock {
            $0 = ControlPlaneServices.Ledger(sessions: sessions, store: store, subjects: subjects)
        }
    }
}

/// The store, as the push looks at it.
struct StoreSource: PolicySource {
    let opened: OpenedLedger
    let policies: PolicyStore
    let sidecars: SidecarRegistry
    let redis: Redis

    func policy(newerThan held: ActivePolicy?) async throws -> ActivePolicy? {
        try await opened.open()
        guard let version = try await policies.currentVersion(),
            version.isNewer(than: held?.version),
            let stored = try await policies.bundle(number: version.number)
        else { return nil }
        return ActivePolicy(
            version: stored.version, documents: stored.documents,
            policy: try PolicyReader.read(stored.documents))
    }

    func endpoints() async throws -> [Projection.Endpoint] { try await sidecars.endpoints() }

    func hints() -> AsyncStream<StoreHint> { redis.hints() }
}
