import Foundation
import Synchronization
import Testing
import WeirCore

/// What the callers of one load share.
private final class Load: Sendable {
    private let state = Mutex((served: 0, failed: 0, isOver: false))

    var isOver: Bool { state.withLock { $0.isOver } }
    var counts: (served: Int, failed: Int) { state.withLock { ($0.served, $0.failed) } }

    func count(_ isServed: Bool) {
        state.withLock { if isServed { $0.served += 1 } else { $0.failed += 1 } }
    }

    func end() { state.withLock { $0.isOver = true } }
}

/// kill -9 of each part under load: service returns by itself, nothing is under-counted, nothing is
/// granted twice.
@Suite(.timeLimit(.minutes(4)), .serialized)
struct CrashTests {
    private static let budget = NanoUSD(NanoUSD.nanoPerUSD)

    private func withMesh(_ test: (Mesh) async throws -> Void) async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(budget: Self.budget.usd, maxLease: "0.02")
        let options = Mesh.Options(
            agents: ["finbert", "llama2-7b"], latency: "20", policyFolder: policy.path)
        try await Mesh.run(options, test)
    }

    /// Keeps eight callers busy while `disturb` runs and until `served` more answers came after it.
    private func underLoad(
        _ mesh: Mesh, servedAfter: Int, disturb: () async throws -> Void
    ) async throws -> (served: Int, failed: Int) {
        let load = Load()
        let callers = Task {
            await withTaskGroup(of: Void.self) { group in
                for _ in 0..<8 {
                    group.addTask { @Sendable in
                        while !load.isOver {
                            let answer = try? await mesh.analyze(
                                AcceptancePolicy.sentimentOnly, tier: "acceptance")
                            load.count(answer?.status == 200)
                        }
                    }
                }
            }
        }
        defer { callers.cancel() }
        func finish() async {
            load.end()
            await callers.value
        }
        do {
            try await eventually("the load is served") { load.counts.served >= 20 }
            try await disturb()
            let before = load.counts.served
            try await eventually("service returns by itself", within: .seconds(45)) {
                load.counts.served >= before + servedAfter
            }
        } catch {
            await finish()
            throw error
        }
        await finish()
        return load.counts
    }

    /// Everything that the agent did is paid for, and not more than what it was asked to do.
    private func checkBooks(_ mesh: Mesh, served: Int) async throws {
        let books = try await mesh.settledBooks(of: "alice", within: .seconds(40))
        let price = AcceptancePolicy.fixedPrice.rawValue
        #expect(books.consumed.rawValue >= Int64(served) * price)
        #expect(books.consumed <= Self.budget)
        #expect(books.consumed.rawValue.isMultiple(of: price))
        let attempts = try await mesh.agentAttempts("finbert")
        #expect(
            books.consumed.rawValue >= Int64(attempts) * price,
            "the agent answered \(attempts) times: \(books)")
    }

    @Test func `a sidecar`() async throws {
        try await withMesh { mesh in
            let finbert = try mesh.part("finbert")
            let (served, _) = try await underLoad(mesh, servedAfter: 20) {
                try await finbert.process.killAtOnce()
                try finbert.startAgain()
                try await finbert.ready()
            }
            try await checkBooks(mesh, served: served)
        }
    }

    @Test func `the gateway`() async throws {
        try await withMesh { mesh in
            let gateway = try mesh.part("gateway")
            let (served, _) = try await underLoad(mesh, servedAfter: 20) {
                try await gateway.process.killAtOnce()
                try gateway.startAgain()
                try await gateway.ready()
            }
            try await checkBooks(mesh, served: served)
        }
    }

    @Test func `the control plane`() async throws {
        try await withMesh { mesh in
            let (served, _) = try await underLoad(mesh, servedAfter: 40) {
                try await mesh.controlPlane.process.killAtOnce()
                try mesh.controlPlane.startAgain()
                try await mesh.controlPlane.ready()
            }
            try await checkBooks(mesh, served: served)
        }
    }

    @Test func `Redis`() async throws {
        try await withMesh { mesh in
            let (served, _) = try await underLoad(mesh, servedAfter: 40) {
                try await mesh.restartRedis()
            }
            try await checkBooks(mesh, served: served)
        }
    }
}
