import Foundation
import Synchronization
import Testing
import WeirCore

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

    private final class Load: Sendable {
        private let counts = Mutex((served: 0, failed: 0, stopped: false))
        var served: Int { counts.withLock { $0.served } }
        var failed: Int { counts.withLock { $0.failed } }
        func stop() { counts.withLock { $0.stopped = true } }

        func call(_ mesh: Mesh) async {
            while !counts.withLock({ $0.stopped }) {
                let answer = try? await mesh.analyze(
                    AcceptancePolicy.sentimentOnly, tier: "acceptance")
                counts.withLock {
                    if answer?.status == 200 { $0.served += 1 } else { $0.failed += 1 }
                }
            }
        }
    }

    /// Keeps eight callers busy while `disturb` runs and until `servedAfter` more answers came.
    /// Returns how many were served in all.
    private func underLoad(
        _ mesh: Mesh, servedAfter: Int, disturb: () async throws -> Void
    ) async throws -> Int {
        let load = Load()
        let callers = (0..<8).map { _ in Task { await load.call(mesh) } }
        func finish() async {
            load.stop()
            for caller in callers { await caller.value }
        }
        do {
            try await eventually("the load is served") { load.served >= 20 }
            try await disturb()
            let before = load.served
            try await eventually("service returns by itself", within: .seconds(45)) {
                load.served >= before + servedAfter
            }
        } catch {
            await finish()
            throw TestProcess.Failed(
                description: "\(error); served \(load.served), failed \(load.failed)")
        }
        await finish()
        return load.served
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
        // Everything else agrees, too, or this throws.
        let words = try await mesh.weir(["cost", "reconcile", "--wait", "40"])
        #expect(words.contains("1 account agrees (users' \(books.consumed.usd) USD)"), "\(words)")
    }

    @Test func `a sidecar`() async throws {
        try await withMesh { mesh in
            let finbert = try mesh.part("finbert")
            let served = try await underLoad(mesh, servedAfter: 20) {
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
            let served = try await underLoad(mesh, servedAfter: 20) {
                try await gateway.process.killAtOnce()
                try gateway.startAgain()
                try await gateway.ready()
            }
            try await checkBooks(mesh, served: served)
        }
    }

    @Test func `the control plane`() async throws {
        try await withMesh { mesh in
            let served = try await underLoad(mesh, servedAfter: 40) {
                try await mesh.controlPlane.process.killAtOnce()
                try mesh.controlPlane.startAgain()
                try await mesh.controlPlane.ready()
            }
            try await checkBooks(mesh, served: served)
        }
    }

    @Test func `Redis`() async throws {
        try await withMesh { mesh in
            let served = try await underLoad(mesh, servedAfter: 40) {
                try await mesh.restartRedis()
            }
            try await checkBooks(mesh, served: served)
        }
    }
}
