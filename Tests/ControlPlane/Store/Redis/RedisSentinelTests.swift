import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import ControlPlaneStore

/// A primary dies or is cut off, and Sentinels name another one.
@Suite(.timeLimit(.minutes(2)), .serialized) struct RedisSentinelTests {
    @Test func grantsGoOnAfterAKilledPrimaryAndNoneIsGivenTwice() async throws {
        let fleet = try SentinelFleet()
        let mesh = try await LedgerOn(fleet.url())
        let account = try await mesh.account("ann", limit: 3_000)
        let holders = try await mesh.holders(4)
        let storm = LeaseStorm(ledger: mesh.ledger, account: account)
        let before = try await mesh.ledger.begin(hasPast: false)
        var hints = mesh.redis.hints().makeAsyncIterator()
        #expect(await hints.next() == .anything)

        async let run: Void = storm.run(holders)
        try await patiently("money is granted") { storm.count > 20 }
        fleet.nodes[0].kill()
        let granted = storm.count
        try await patiently("money is granted by the successor") {
            // Holders are alive and say so; until they do, the new epoch grants nothing.
            try? await mesh.report(holders)
            return storm.count > granted + 20
        }
        storm.end()
        await run
        // What was told is what the new primary knows: nothing got lost, nothing came twice. The
        // last call of each holder may have been granted and its answer given up.
        let held = try #require(try await mesh.held(account))
        #expect(held >= storm.told && held <= storm.told + Int64(holders.count))
        // Another history began, and incarnations beyond all that were handed out.
        #expect(try await mesh.ledger.begin(hasPast: false) > before)
        #expect(try await mesh.join() > holders[3])
        // Hints come again, from the successor.
        var hint = await hints.next()
        while hint != .anything { hint = await hints.next() }
        try await mesh.redis.command(["PUBLISH", StoreKeys.subjectChannel, "ann"])
        while hint != .subjectChanged("ann") { hint = await hints.next() }
    }

    /// A paused primary is what a partition leaves behind: it has connections and answers nobody,
    /// and comes back believing that it is the primary still.
    @Test func aPrimaryThatWasCutOffIsLeftAndItsReturnChangesNothing() async throws {
        let fleet = try SentinelFleet()
        let mesh = try await LedgerOn(fleet.url())
        let account = try await mesh.account("bob", limit: 50)
        let holders = try await mesh.holders(2)
        let storm = LeaseStorm(ledger: mesh.ledger, account: account)
        fleet.nodes[0].pause()
        async let run: Void = storm.run(holders)
        // A replica that still followed the old primary would confirm its writes: docs/money.md.
        try await patiently("a successor is named, and the other replica follows it") {
            let others = fleet.nodes.dropFirst()
            guard let successor = others.first(where: { (try? $0.info("role")) == "master" })
            else { return false }
            return others.contains { (try? $0.info("master_port")) == "\(successor.port)" }
        }
        fleet.nodes[0].resume()
        try await patiently("both holders have heard that all is spent") {
            try? await mesh.report(holders)
            return storm.exhausted == 2
        }
        await run
        #expect(storm.told == 50)
        #expect(try await mesh.held(account) == 50)
        try await patiently("the old primary follows") {
            (try? fleet.nodes[0].info("role")) == "slave"
        }
        #expect(try await mesh.held(account) == 50)
    }

    /// Two of three data nodes must have a grant before it is told, also when the primary sees
    /// none of its replicas any more.
    @Test func aPrimaryWithoutReplicasGrantsNothing() async throws {
        let fleet = try SentinelFleet()
        let mesh = try await LedgerOn(fleet.url())
        let account = try await mesh.account("eve", limit: 10)
        let holder = try await mesh.join()
        func grant(_ number: Int64) async -> LeaseGrant.Status? {
            let request = LeaseAcquire(
                lease: LeaseID(incarnation: holder, number: number), account: account,
                need: NanoUSD(1), want: NanoUSD(1), closedBelow: 0, policyNumber: 1)
            return try? await mesh.ledger.acquire([request], by: holder, policyNumber: 1)
                .grants.first?.status
        }
        try await patiently("money is granted") { await grant(1) == .granted }
        // Without Sentinels nobody takes over.
        for sentinel in fleet.sentinels.dropFirst() { sentinel.kill() }
        for replica in fleet.nodes.dropFirst() { replica.kill() }
        try await patiently("the primary has lost them") {
            (try? fleet.nodes[0].info("connected_slaves")) == "0"
        }
        for number in Int64(2)...4 { #expect(await grant(number) != .granted) }
    }
}
