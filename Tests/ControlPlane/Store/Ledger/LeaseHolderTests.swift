import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import ControlPlaneStore

@Suite("Who holds what, and what is written off", .timeLimit(.minutes(1)))
struct LeaseHolderTests {
    private func state(
        _ mesh: LedgerMesh, _ life: Incarnation
    ) async throws -> LeaseHolder.State? { try await mesh.ledger.holder(life)?.state }

    @Test func holdersAreListedPageByPageWithWhatTheyHold() async throws {
        let mesh = try await LedgerMesh()
        let ann = try await mesh.account("ann", limit: 100, maxLease: 60)
        let bob = try await mesh.account("bob", limit: 100, maxLease: 60)
        var lives: [Incarnation] = []
        for amount: Int64 in [10, 20, 30] {
            let life = try await mesh.join().incarnation
            lives.append(life)
            #expect(try await mesh.acquire(1, of: ann, by: life, need: amount).status == .granted)
        }
        #expect(try await mesh.acquire(2, of: bob, by: lives[1], need: 50).status == .granted)
        // One that holds nothing is no holder.
        _ = try await mesh.join()

        let first = try await mesh.ledger.holders(after: nil, limit: 2)
        #expect(first.holders.map(\.incarnation) == Array(lives[..<2]))
        #expect(first.next == lives[1])
        #expect(
            first.holders[1].shares == [
                LeaseHolder.Share(account: bob, held: NanoUSD(50)),
                LeaseHolder.Share(account: ann, held: NanoUSD(20)),
            ])
        #expect(first.holders[1].held(.usd) == NanoUSD(70))
        #expect(first.holders[1].held(.requests) == .zero)
        let second = try await mesh.ledger.holders(after: first.next, limit: 2)
        #expect(second.holders.map(\.incarnation) == [lives[2]] && second.next == nil)

        // What is given back is held by nobody, also before a report clears the index.
        let back = LedgerMesh.counters(
            LeaseID(incarnation: lives[0], number: 1), ann, consumed: 4, released: 6)
        try await mesh.ledger.release([back], by: lives[0])
        let left = try await mesh.ledger.holders(after: nil, limit: 9).holders
        #expect(left.map(\.incarnation) == Array(lives[1...]))
    }

    @Test func aHoldersStateSaysWhetherItMayComeBack() async throws {
        let mesh = try await LedgerMesh()
        let first = try await mesh.join()
        let later = String(try await mesh.redis.time().milliseconds + 3_600_000)
        try await mesh.redis.command(["ZADD", StoreKeys.live, later, "\(first.incarnation)"])
        #expect(try await state(mesh, first.incarnation) == .alive)
        try await mesh.isSilent(first.incarnation)
        #expect(try await state(mesh, first.incarnation) == .silent)
        let second = try await mesh.join(after: first)
        #expect(second.adopted == first.incarnation)
        let adopted = try #require(try await mesh.ledger.holder(first.incarnation))
        #expect(adopted.state == .adopted && adopted.adoptedBy == second.incarnation)
        #expect(try await state(mesh, Incarnation(3)) == nil)
        try await mesh.isSilent(second.incarnation)
        #expect(try await mesh.writtenOff(second.incarnation) != nil)
        #expect(try await state(mesh, second.incarnation) == .writtenOff)
    }

    @Test func whomParentsWaitForIsListedThoughItHoldsNothing() async throws {
        let mesh = try await LedgerMesh()
        let gateway = try await mesh.join().incarnation
        let agent = try await mesh.join(.agent, agent: "finbert", endpoint: "127.0.0.1:1")
        let key = ChildKey(lease: LeaseID(incarnation: gateway, number: 4), child: 9)
        let question = LedgerMesh.report(
            openChildren: [OpenChild(key: key, audience: agent.incarnation)])
        _ = try await mesh.ledger.report(question, by: gateway)
        let holders = try await mesh.ledger.holders(after: nil, limit: 9).holders
        #expect(holders.map(\.incarnation) == [agent.incarnation])
        #expect(holders.first?.awaitedCalls == 1 && holders.first?.agent == "finbert")
    }

    @Test func predecessorsEndWithTheLifeThatContinuedThem() async throws {
        let mesh = try await LedgerMesh()
        let account = try await mesh.account("ann", limit: 100, maxLease: 60)
        let first = try await mesh.join()
        let lost = first.incarnation
        #expect(try await mesh.acquire(1, of: account, by: lost, need: 30).status == .granted)
        let second = try await mesh.join(after: first)
        let next = second.incarnation
        #expect(try await mesh.acquire(1, of: account, by: next, need: 20).status == .granted)
        #expect(try await mesh.ledger.livesEnding(with: next) == [next, lost])
        try await mesh.isSilent(next)
        let spent = try #require(try await mesh.writtenOff(next))
        #expect(spent == [LeaseHolder.Share(account: account, held: NanoUSD(50))])
        #expect(try await state(mesh, lost) == .writtenOff)
        let books = try #require(try await mesh.ledger.books(of: [account]).first)
        #expect(books.consumed == NanoUSD(50) && books.held == .zero)
        #expect(books.writtenOff == NanoUSD(50))
        #expect(try await mesh.ledger.holders(after: nil, limit: 9).holders.isEmpty)
    }

    @Test func oneThatLivesIsWrittenOffOnlyByForceAndCannotSpendMore() async throws {
        let mesh = try await LedgerMesh()
        let account = try await mesh.account("ann", limit: 100, maxLease: 60)
        let life = try await mesh.join().incarnation
        #expect(try await mesh.acquire(1, of: account, by: life, need: 40).status == .granted)
        let later = String(try await mesh.redis.time().milliseconds + 3_600_000)
        try await mesh.redis.command(["ZADD", StoreKeys.live, later, life.description])
        #expect(try await mesh.writtenOff(life) == nil)
        let books = try #require(try await mesh.ledger.books(of: [account]).first)
        #expect(books.consumed == .zero && books.held == NanoUSD(40))
        let spent = try await mesh.writtenOff(life, isForced: true)
        #expect(spent == [LeaseHolder.Share(account: account, held: NanoUSD(40))])
        // What it says afterwards of what it held is neither money nor an account of anybody.
        let lease = LeaseID(incarnation: life, number: 1)
        let counters = LedgerMesh.counters(lease, account, consumed: 5, released: 35)
        await #expect(throws: MeshRefusal.self) {
            try await mesh.ledger.release([counters], by: life)
        }
        let other = try await mesh.join().incarnation
        #expect(try await mesh.acquire(1, of: account, by: other, need: 61).status == .exhausted)
        #expect(try await mesh.acquire(2, of: account, by: other, need: 60).status == .granted)
    }
}
