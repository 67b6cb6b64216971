import Synchronization
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import ControlPlaneStore

/// Holders that ask for money all the time, as gateways do: what got no answer, or no money for
/// now, is asked for again by the same number.
final class LeaseStorm: Sendable {
    private struct Tally {
        var granted: [LeaseID: Int64] = [:]
        var exhausted = 0
        var unanswered = 0
        var isOver = false
    }

    let ledger: LedgerStore
    let account: AccountKey
    private let tally = Mutex(Tally())

    init(ledger: LedgerStore, account: AccountKey) {
        self.ledger = ledger
        self.account = account
    }

    /// What holders were told that they may spend.
    var told: Int64 { tally.withLock { $0.granted.values.reduce(0, +) } }
    var count: Int { tally.withLock { $0.granted.count } }
    var exhausted: Int { tally.withLock { $0.exhausted } }
    var unanswered: Int { tally.withLock { $0.unanswered } }
    func end() { tally.withLock { $0.isOver = true } }

    /// Asks for leases of one each until `end`, or until the account has no more.
    func run(_ holders: [Incarnation]) async {
        await withTaskGroup(of: Void.self) { group in
            for holder in holders { group.addTask { await self.ask(for: holder) } }
        }
    }

    private func ask(for holder: Incarnation) async {
        for number in 1...Int64(StoreLimits.leasesPerHolderMax - 1) {
            var isSettled = false
            while !isSettled {
                if tally.withLock({ $0.isOver }) || Task.isCancelled { return }
                let lease = LeaseID(incarnation: holder, number: number)
                switch await grant(lease) {
                case .granted(let amount):
                    tally.withLock { $0.granted[lease] = amount }
                    isSettled = true
                case .exhausted:
                    tally.withLock { $0.exhausted += 1 }
                    return
                case .nothing: tally.withLock { $0.unanswered += 1 }
                }
            }
        }
    }

    private enum Outcome { case granted(Int64), exhausted, nothing }

    private func grant(_ lease: LeaseID) async -> Outcome {
        let request = LeaseAcquire(
            lease: lease, account: account, need: NanoUSD(1), want: NanoUSD(1), closedBelow: 0,
            policyNumber: 1)
        let grants = try? await ledger.acquire(
            [request], by: lease.incarnation, policyNumber: 1
        ).grants
        guard let grant = grants?.first else { return .nothing }
        switch grant.status {
        case .granted: return .granted(grant.granted.rawValue)
        case .exhausted: return .exhausted
        // Nothing is spent or given back here, so that what is all set aside stays so. Otherwise
        // something is withheld for a holder that will report.
        case .contended:
            return grant.state.map { $0.held >= $0.limit } ?? false ? .exhausted : .nothing
        default: return .nothing
        }
    }
}

/// A ledger on whatever Redis a URL names.
struct LedgerOn {
    let redis: Redis
    let ledger: LedgerStore

    init(_ url: String, tls: RedisTLSFiles = RedisTLSFiles()) async throws {
        let redis = try Redis(url: url, tls: tls)
        self.redis = redis
        // A cluster may still be agreeing on its slots, and Sentinels on their primary.
        try await patiently("Redis serves") { (try? await redis.read("PING")) != nil }
        let sessions = try await Sessions.load(from: redis)
        ledger = LedgerStore(redis: redis, sessions: sessions)
        try await ledger.begin(hasPast: false)
    }

    func holders(_ count: Int) async throws -> [Incarnation] {
        var holders: [Incarnation] = []
        for _ in 0..<count { holders.append(try await join()) }
        return holders
    }

    func join() async throws -> Incarnation {
        try await ledger.join(
            JoinRequest(
                credential: "", role: .gateway, agent: nil, endpoint: nil, instance: "test",
                predecessor: nil), replicas: []
        ).incarnation
    }

    func account(_ user: String, limit: Int64) async throws -> AccountKey {
        let terms = SubjectBinding.Account(
            unit: .usd, scope: .user, period: .month, id: user, limit: NanoUSD(limit))
        _ = try await ledger.setLimits([(terms, NanoUSD(limit))], policyNumber: 1)
        return AccountKey(
            unit: .usd, scope: .user, period: Period(.month, at: try await redis.time()), id: user)
    }

    /// What the store holds set aside: with all grants told and none used, the sum of what was
    /// told.
    func held(_ account: AccountKey) async throws -> Int64? {
        try await ledger.states(of: [account]).first??.held.rawValue
    }

    /// Holders are alive and say what they have, as their reports do each second.
    func report(_ holders: [Incarnation]) async throws {
        let registry = SidecarRegistry(redis: redis)
        for holder in holders {
            try await registry.heartbeat(
                SidecarHealth(state: .serving, reasons: [], requestsInFlight: 0, journalBytes: 0),
                by: holder)
            _ = try await ledger.report(LedgerMesh.report(), by: holder)
        }
    }
}
