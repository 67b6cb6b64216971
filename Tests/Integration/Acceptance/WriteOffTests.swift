import Foundation
import Testing
import WeirCore

/// A gateway that is killed and loses its log: what it held stays set aside until an operator
/// writes it off; then the books close.
@Suite(.timeLimit(.minutes(4)), .serialized)
struct WriteOffTests {
    private func weir(
        _ mesh: Mesh, _ arguments: [String]
    ) async throws -> (status: Int32, output: String) {
        try await Tools.run(
            Products.path("weir"), ["--server", "http://127.0.0.1:\(mesh.apiPort)"] + arguments,
            environment: ["WEIR_ADMIN_TOKEN": Mesh.adminToken])
    }

    private func holders(_ mesh: Mesh, state: String) async throws -> [JSONValue] {
        let text = try await mesh.weir(["ledger", "holders", "--state", state, "-o", "json"])
        return try JSON.parse(text)["holders"]?.array ?? []
    }

    @Test func `a gateway that loses its log is written off and the books close`() async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        let limit = NanoUSD(NanoUSD.nanoPerUSD)
        try policy.addFixedPriceTier(budget: limit.usd, maxLease: "0.02")
        let options = Mesh.Options(
            agents: ["finbert", "llama2-7b"], latency: "3000", policyFolder: policy.path)
        try await Mesh.run(options) { mesh in
            let answer = try await mesh.analyze(
                AcceptancePolicy.sentimentOnly, tier: "acceptance")
            try #require(answer.status == 200)
            try await killUnderLoad(mesh)
            try FileManager.default.removeItem(atPath: mesh.data("gateway"))

            // It was heard a moment ago: refused. Once it is silent for long enough: listed.
            var lost: JSONValue?
            try await eventually("the gateway is silent", within: .seconds(40)) {
                lost = try await holders(mesh, state: "silent").first {
                    $0["role"] == "gateway"
                }
                return lost != nil
            }
            let number = try #require(lost?["incarnation"]?.int64)
            let held = try #require(lost?["held_usd"]?.string.flatMap { NanoUSD(usd: $0) })
            #expect(held > .zero)
            try await refuseWithoutYes(mesh, number, held)

            // A new life without the log adopts nothing, and frees nothing.
            try mesh.part("gateway").startAgain()
            try await mesh.part("gateway").ready()
            let still = try await holders(mesh, state: "silent")
            #expect(still.contains { $0["incarnation"]?.int64 == number })

            let done = try await weir(
                mesh,
                [
                    "ledger", "write-off", "\(number)", "--yes", "--reason", "disk lost", "-o",
                    "json",
                ])
            try #require(done.status == 0, "\(done.output)")
            try await checkBooks(mesh, held: held, limit: limit)
        }
    }

    /// What is idle comes back within seconds, so the kill has to meet calls under way: the agent
    /// takes three seconds, and four callers are never all between two calls.
    private func killUnderLoad(_ mesh: Mesh) async throws {
        let callers = (0..<4).map { _ in
            Task {
                while !Task.isCancelled {
                    let answer = try? await mesh.analyze(
                        AcceptancePolicy.sentimentOnly, tier: "acceptance")
                    if answer == nil { break }
                }
            }
        }
        do {
            try await eventually("the gateway holds money", within: .seconds(40)) {
                try await holders(mesh, state: "alive").contains {
                    $0["role"] == "gateway" && $0["held_usd"] != "0.000000"
                }
            }
        } catch {
            for caller in callers { caller.cancel() }
            throw error
        }
        try await mesh.part("gateway").process.killAtOnce()
        // Their connections broke, or were refused.
        for caller in callers { await caller.value }
    }

    private func refuseWithoutYes(_ mesh: Mesh, _ number: Int64, _ held: NanoUSD) async throws {
        let refused = try await weir(mesh, ["ledger", "write-off", "\(number)"])
        #expect(refused.status == 1)
        #expect(refused.output.contains("\(held.usd) USD"), "\(refused.output)")
        let dry = try await weir(mesh, ["ledger", "write-off", "\(number)", "--dry-run"])
        #expect(dry.status == 0, "\(dry.output)")
        #expect(try await holders(mesh, state: "silent").contains { $0["held_usd"] != "0.000000" })
    }

    private func checkBooks(_ mesh: Mesh, held: NanoUSD, limit: NanoUSD) async throws {
        let log = try await mesh.weir(["get", "admin-log", "-o", "json"])
        let actions = try JSON.parse(log)["actions"]?.array ?? []
        #expect(actions.first?["action"] == "ledger.write_off")
        #expect(actions.first?["reason"] == "disk lost")
        // Both ends agree again: what is consumed is what is recorded and what was written off.
        let words = try await mesh.weir([
            "cost", "reconcile", "--wait", "40", "--all", "-o", "json",
        ])
        let books = try #require(
            try JSON.parse(words)["accounts"]?.array?.first {
                $0["account"]?.string?.hasSuffix("/alice") ?? false
            })
        #expect(books["state"] == "agrees", "\(words)")
        func amount(_ name: String) -> NanoUSD {
            books[name]?.string.flatMap { NanoUSD(usd: $0) } ?? .zero
        }
        #expect(amount("written_off_usd") == held)
        #expect(amount("consumed_usd") >= amount("recorded_usd"))
        #expect(amount("consumed_usd") - amount("recorded_usd") <= held)
        // The new gateway serves on, out of what is left.
        try await eventually("the user is served again", within: .seconds(40)) {
            try await mesh.analyze(AcceptancePolicy.sentimentOnly, tier: "acceptance").status == 200
        }
        #expect(amount("consumed_usd") <= limit)
    }
}
