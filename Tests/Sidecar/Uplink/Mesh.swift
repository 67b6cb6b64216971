import SidecarCore
import Synchronization
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarUplink

/// A control plane of the test, and the uplinks that talk to it.
final class Mesh: Sendable {
    private struct State {
        var requests: [(path: String, request: HTTP2TestServer.Request)] = []
        var incarnation: Int64 = 0
        var sessionsFrom: Int64 = 1
        var failures: [String: Int] = [:]
        var contends = false
        var applied: [Int64] = []
        var lives: [Int64] = []
        var seen: [MeshState] = []
        var threads: [LoopThread] = []
    }

    private final class Shared: Sendable { let state = Mutex(State()) }

    private let shared: Shared
    private let folder: TemporaryFolder
    let server: HTTP2TestServer
    let ledger = ScriptedLedger()
    let registry = Metrics()
    private let metrics: UplinkMetrics
    private let log = Log(level: .error)

    init() throws {
        let shared = Shared()
        self.shared = shared
        folder = TemporaryFolder()
        metrics = UplinkMetrics(registry)
        server = try HTTP2TestServer { Mesh.answer($0, shared) }
    }

    func stop() {
        let threads = shared.state.withLock { $0.threads }
        for thread in threads {
            thread.loop.stop()
            thread.join()
        }
        server.stop()
        log.close()
    }

    func received(_ path: String) -> [HTTP2TestServer.Request] {
        shared.state.withLock { state in
            state.requests.filter { $0.path == path }.map(\.request)
        }
    }

    var applied: [Int64] { shared.state.withLock { $0.applied } }
    var seen: [MeshState] { shared.state.withLock { $0.seen } }
    var lives: [Int64] { shared.state.withLock { $0.lives } }

    /// As if the store had lost them.
    func forgetSessions() {
        shared.state.withLock { $0.sessionsFrom = $0.incarnation + 1 }
    }

    func failNext(_ path: String, status: Int) {
        shared.state.withLock { $0.failures[path] = status }
    }

    /// The next lease is said to be set aside by somebody.
    func contendNext() { shared.state.withLock { $0.contends = true } }

    func startUplink(
        mayResume: Bool = true, untilJoined: Bool = true, role: Role = .agent
    ) async throws -> Uplink {
        let loop = try EventLoop()
        let thread = try LoopThread(loop, name: "uplink")
        let (shared, ledger, log, metrics) = (self.shared, self.ledger, self.log, self.metrics)
        let uplink = Uplink(
            loop: loop,
            configuration: UplinkConfiguration(
                role: role, agent: role == .agent ? "finbert" : nil, endpoint: "127.0.0.1:1",
                instance: "test",
                joinToken: "token",
                replicas: [Replica(authority: "control-plane", address: server.address)],
                dataFolder: folder.path),
            hooks: UplinkHooks(
                readPolicy: MeshFixtures.readPolicy,
                policyApplied: { policy in
                    shared.state.withLock { $0.applied.append(policy.version.number) }
                },
                predecessor: {
                    shared.state.withLock { $0.lives.last }.map {
                        JoinRequest.Predecessor(incarnation: Incarnation($0), proof: "proof")
                    }
                },
                joined: { join, isResumed in
                    shared.state.withLock {
                        if !isResumed { $0.lives.append(join.incarnation.rawValue) }
                    }
                    return ledger
                },
                health: {
                    SidecarHealth(
                        state: .serving, reasons: [], requestsInFlight: 0, journalBytes: 0)
                },
                stateReceived: { state in shared.state.withLock { $0.seen.append(state) } },
                metrics: metrics, log: log))
        shared.state.withLock { $0.threads.append(thread) }
        await uplink.start { _ in mayResume }
        if untilJoined {
            // The watch is the first thing that a joined sidecar opens.
            let watches = received(MeshPath.policy).count
            guard await becomesTrue({ self.received(MeshPath.policy).count > watches }) else {
                throw MeshError.timedOut
            }
        }
        return uplink
    }

    // MARK: The control plane

    private static func answer(
        _ request: HTTP2TestServer.Request, _ shared: Shared
    ) -> HTTP2TestServer.Response? {
        let path = String(request.path.prefix { $0 != "?" })
        return shared.state.withLock { state in
            state.requests.append((path, request))
            if let status = state.failures.removeValue(forKey: path) {
                return refusal(status, "unavailable")
            }
            if path == MeshPath.join {
                state.incarnation += 1
                return json(MeshFixtures.join(state.incarnation))
            }
            let session = request.fields["authorization"]?.split(separator: "-").last
            guard let session, let number = Int64(session), number >= state.sessionsFrom else {
                return refusal(401, "unauthenticated")
            }
            defer { if path == MeshPath.leases { state.contends = false } }
            return answer(path, request.body, contends: state.contends)
        }
    }

    private static func answer(
        _ path: String, _ body: [UInt8], contends: Bool
    ) -> HTTP2TestServer.Response? {
        switch path {
        case MeshPath.policy: HTTP2TestServer.Response(isOpen: true)
        case MeshPath.ack: HTTP2TestServer.Response(status: 204)
        case MeshPath.leases: leases(body, contends ? .contended : .granted)
        case MeshPath.report:
            json(ReportResponse(finals: [], recalls: [], unknown: [], states: []))
        case MeshPath.records: records(body)
        case MeshPath.subject: subject(body)
        case MeshPath.state:
            json(MeshState(at: UnixTime(seconds: 5), members: [], omitted: 1))
        case MeshPath.user(.budget): budget(body)
        default: refusal(404, "unknown_route")
        }
    }

    private static func leases(
        _ body: [UInt8], _ status: LeaseGrant.Status
    ) -> HTTP2TestServer.Response {
        guard let request = try? JSON.decode(LeasesRequest.self, from: body) else {
            return refusal(400, "malformed")
        }
        return json(LeasesResponse(grants: request.acquire.map { grant($0, status) }))
    }

    private static func grant(_ acquire: LeaseAcquire, _ status: LeaseGrant.Status) -> LeaseGrant {
        LeaseGrant(
            lease: acquire.lease, status: status, granted: acquire.want,
            expiresInMilliseconds: 60_000, state: nil)
    }

    private static func records(_ body: [UInt8]) -> HTTP2TestServer.Response {
        guard let last = RecordBlock.readAll(body)?.last?.records.last else {
            return refusal(400, "malformed")
        }
        return json(RecordsResponse(storedThrough: last.sequence))
    }

    private static func subject(_ body: [UInt8]) -> HTTP2TestServer.Response {
        let lookup = try? JSON.decode(SubjectLookup.self, from: body)
        let name = lookup?.subject.apiKeyHash ?? ""
        if name == "nobody" { return refusal(403, "forbidden") }
        // A key that is unknown, said in a way that leaves the session alone.
        if name == "unknown" { return refusal(403, "unauthenticated") }
        let binding = SubjectBinding(
            user: name, tenant: nil, tier: "free", roles: [], accounts: [], preferences: nil,
            timeToLiveMilliseconds: name == "short" ? 0 : 60_000)
        // An older control plane knows nothing of leases here.
        let grants = lookup?.acquire.map { grant($0, .granted) } ?? []
        let leases = name == "old" ? nil : LeasesResponse(grants: grants)
        return json(SubjectAnswer(binding: binding, leases: leases))
    }

    /// Says back what it was asked; a user without a body is refused.
    private static func budget(_ body: [UInt8]) -> HTTP2TestServer.Response {
        guard let request = try? JSON.decode(UserRequest.self, from: body),
            let body = request.body
        else { return refusal(422, "invalid") }
        return json(body)
    }

    private static func json(_ value: some Encodable) -> HTTP2TestServer.Response {
        HTTP2TestServer.Response(body: (try? JSON.encode(value)) ?? [])
    }

    private static func refusal(_ status: Int, _ reason: String) -> HTTP2TestServer.Response {
        var response = json(MeshRefusal(reason: reason, detail: "not known"))
        response.status = status
        return response
    }
}

/// Says what a test wants said, so that the uplink's carrying can be seen apart from the money
/// rules.
final class ScriptedLedger: LedgerLink {
    private struct State {
        var demanded: [LeaseAcquire] = []
        var granted = 0
        var recalled: [LeaseID] = []
        var records: [AttemptRecord] = []
        var stored: UInt64 = 0
        var nextLease: Int64 = 1
    }

    private let state = Mutex(State())

    var granted: Int { state.withLock { $0.granted } }
    var stored: UInt64 { state.withLock { $0.stored } }

    func demand(_ count: Int) {
        state.withLock { state in
            for _ in 0..<count {
                let account = AccountKey(
                    unit: .usd, scope: .user, period: Period(.forever, at: UnixTime(seconds: 0)),
                    id: "alice")
                state.demanded.append(
                    LeaseAcquire(
                        lease: LeaseID(incarnation: Incarnation(1), number: state.nextLease),
                        account: account, need: NanoUSD(1), want: NanoUSD(2), closedBelow: 0,
                        policyNumber: 1))
                state.nextLease += 1
            }
        }
    }

    func takeOpening(_ accounts: [AccountTerms]) -> LedgerDemand {
        demand(accounts.count)
        return takeDemands()
    }

    func recall(_ leases: [LeaseID]) { state.withLock { $0.recalled += leases } }

    var recalled: [LeaseID] { state.withLock { $0.recalled } }

    func addRecords(_ count: Int) {
        state.withLock { state in
            for _ in 0..<count {
                var record = AttemptRecord()
                record.sequence = (state.records.last?.sequence ?? state.stored) + 1
                record.incarnation = Incarnation(1)
                state.records.append(record)
            }
        }
    }

    func takeDemands() -> LedgerDemand {
        let request = state.withLock { state in
            defer { state.demanded = [] }
            return LeasesRequest(acquire: state.demanded, release: [])
        }
        return LedgerDemand(request: request, againNanoseconds: nil) { response in
            self.state.withLock { state in
                if let response {
                    state.granted += response.grants.count
                } else {
                    state.demanded = request.acquire + state.demanded
                }
            }
        }
    }

    func makeReport(health: SidecarHealth) -> LedgerReporting? {
        let report = Report(
            highestLease: 0, leases: [], childFinals: [], acknowledgedFinals: [], health: health)
        return LedgerReporting(report: report) { _ in }
    }

    func recordsToShip() -> [RecordBlock] {
        state.withLock { state in
            guard !state.records.isEmpty else { return [] }
            return [
                RecordBlock(incarnation: Incarnation(1), names: [:], records: state.records)
            ]
        }
    }

    func recordsStored(of incarnation: Incarnation, through sequence: UInt64) {
        state.withLock { state in
            state.records.removeAll { $0.sequence <= sequence }
            state.stored = max(state.stored, sequence)
        }
    }
}
