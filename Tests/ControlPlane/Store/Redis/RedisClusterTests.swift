import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import ControlPlaneStore

/// A real cluster of three primaries, whose slots move while money is granted.
@Suite(.timeLimit(.minutes(2)), .serialized) struct RedisClusterTests {
    /// The account's keys, those of the mesh, policies and subjects lie in different slots.
    @Test func everythingOfTheStoreWorksOnACluster() async throws {
        let fleet = try ClusterFleet()
        let mesh = try await LedgerOn(fleet.url())
        #expect(try await mesh.ledger.check().isEmpty)
        let holder = try await mesh.join()
        var accounts: [AccountKey] = []
        for index in 0..<30 { accounts.append(try await mesh.account("user-\(index)", limit: 9)) }
        let requests = accounts.enumerated().map { index, account in
            LeaseAcquire(
                lease: LeaseID(incarnation: holder, number: Int64(index)), account: account,
                need: NanoUSD(2), want: NanoUSD(5), closedBelow: 0, policyNumber: 1)
        }
        let grants = try await mesh.ledger.acquire(requests, by: holder, policyNumber: 1).grants
        #expect(grants.map(\.status) == Array(repeating: .granted, count: 30))
        let counters = zip(grants, accounts).map {
            LedgerMesh.counters($0.lease, $1, consumed: 3, released: 2)
        }
        let answer = try await mesh.ledger.report(
            LedgerMesh.report(highest: 29, counters), by: holder)
        #expect(answer.states.count == 30)
        #expect(answer.states.allSatisfy { $0.consumed == NanoUSD(3) && $0.held == .zero })
        // The accounts really are on several nodes.
        let slots = accounts.map { RedisSlots.slot(of: StoreKeys.account($0)) }
        let owners = Set(try slots.compactMap { try fleet.owner(of: $0)?.port })
        #expect(owners.count == 3)

        let policies = PolicyStore(redis: mesh.redis)
        let version = try await policies.activate(
            documents: [], hash: "h", author: "test", note: "")
        #expect(try await policies.currentVersion() == version)
        var hints = mesh.redis.hints().makeAsyncIterator()
        #expect(await hints.next() == .anything)
        // Wherever it is published, nodes pass it on.
        try fleet.nodes[2].ask(["PUBLISH", StoreKeys.subjectChannel, "ann"])
        #expect(await hints.next() == .subjectChanged("ann"))
    }

    @Test func slotsMoveUnderLoadAndNothingIsLostOrGrantedTwice() async throws {
        let fleet = try ClusterFleet()
        let mesh = try await LedgerOn(fleet.url())
        // More than can be granted while the slot moves, so that it moves under load.
        let account = try await mesh.account("ann", limit: 1_500)
        let holders = try await mesh.holders(4)
        let storm = LeaseStorm(ledger: mesh.ledger, account: account)
        let slot = RedisSlots.slot(of: StoreKeys.account(account))
        async let run: Void = storm.run(holders)
        try await patiently("money is granted") { storm.count > 20 }
        for round in 0..<6 {
            let target = fleet.nodes[round % 3]
            try await fleet.move(slot, to: target) {}
            #expect(try fleet.owner(of: slot) === target)
            let granted = storm.count
            try await patiently("money is granted where the slot is now") {
                storm.count > granted + 10 || storm.exhausted > 0
            }
        }
        try await patiently("everything is granted") { storm.exhausted == holders.count }
        await run
        #expect(storm.told == 1_500)
        #expect(try await mesh.held(account) == 1_500)
    }

    /// The tool that operators use, on the slots of the account and of the mesh itself.
    @Test func redisCliReshardsUnderLoad() async throws {
        let fleet = try ClusterFleet()
        let mesh = try await LedgerOn(fleet.url())
        let name = try #require(
            (0..<20_000).map { "user-\($0)" }.first {
                RedisSlots.slot(of: "{usd/user/month/\($0)}") < 20
            })
        let account = try await mesh.account(name, limit: 1_200)
        let holders = try await mesh.holders(4)
        let storm = LeaseStorm(ledger: mesh.ledger, account: account)
        async let run: Void = storm.run(holders)
        try await patiently("money is granted") { storm.count > 20 }
        let slot = RedisSlots.slot(of: StoreKeys.account(account))
        #expect(try fleet.owner(of: slot) === fleet.nodes[0])
        try fleet.tool([
            "reshard", "127.0.0.1:\(fleet.nodes[1].port)", "--cluster-from",
            try fleet.id(fleet.nodes[0]), "--cluster-to", try fleet.id(fleet.nodes[1]),
            "--cluster-slots", "40", "--cluster-yes",
        ])
        try await patiently("the slot has moved") {
            try fleet.owner(of: slot) === fleet.nodes[1]
        }
        let meshSlot = RedisSlots.slot(of: StoreKeys.mesh)
        var joined = Set(holders)
        let target = try #require(try fleet.nodes.first { try fleet.owner(of: meshSlot) !== $0 })
        try await fleet.move(meshSlot, to: target) {
            // Half of the mesh's keys are here and half are there; who joins now may have to wait.
            if let late = try? await mesh.join() { #expect(joined.insert(late).inserted) }
        }
        #expect(joined.insert(try await mesh.join()).inserted)
        try await patiently("everything is granted") { storm.exhausted == holders.count }
        await run
        #expect(storm.told == 1_200)
        #expect(try await mesh.held(account) == 1_200)
    }

    @Test func aReplicaTakesOverForAKilledPrimary() async throws {
        let fleet = try ClusterFleet(replicas: 1)
        let mesh = try await LedgerOn(fleet.url())
        let account = try await mesh.account("ann", limit: 1_500)
        let holders = try await mesh.holders(2)
        let storm = LeaseStorm(ledger: mesh.ledger, account: account)
        let before = try await mesh.ledger.begin(hasPast: false)
        async let run: Void = storm.run(holders)
        try await patiently("money is granted") { storm.count > 20 }
        let slot = RedisSlots.slot(of: StoreKeys.account(account))
        let owner = try #require(
            try fleet.nodes.first { try fleet.owner(of: slot)?.port == $0.port })
        owner.kill()
        let granted = storm.count
        try await patiently("money is granted by the successor") {
            try? await mesh.report(holders)
            return storm.count > granted + 20
        }
        storm.end()
        await run
        let held = try #require(try await mesh.held(account))
        #expect(held >= storm.told && held <= storm.told + Int64(holders.count))
        #expect(try await mesh.ledger.begin(hasPast: false) > before)
    }
}
