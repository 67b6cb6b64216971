import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import ControlPlaneStore

/// Redis is killed under load, again and again. What was acknowledged must be there afterwards, and
/// no limit may be overrun however often holders ask again.
@Suite(.timeLimit(.minutes(1))) struct CrashTests {
    private static let limit: Int64 = 100_000
    private static let kills = 4

    @Test func nothingAcknowledgedIsLostAndNothingIsGrantedTwice() async throws {
        let mesh = try await LedgerMesh()
        let account = try await mesh.account("ann", limit: Self.limit, maxLease: Self.limit)
        var books: [HolderBook] = []
        try await withThrowingTaskGroup(of: HolderBook.self) { group in
            for _ in 0..<6 {
                let holder = try await mesh.join().incarnation
                group.addTask {
                    var book = HolderBook(holder: holder, account: account)
                    while !Task.isCancelled { try await book.work(mesh) }
                    return book
                }
            }
            for _ in 0..<Self.kills {
                try await grantsGoOn(mesh, account)
                mesh.server.kill()
                try mesh.server.start()
            }
            try await grantsGoOn(mesh, account)
            group.cancelAll()
            for try await book in group { books.append(book) }
        }

        let fields = try await mesh.redis.read("HGETALL", StoreKeys.account(account)).fields
        let granted = try #require(Int64(fields["granted"] ?? ""))
        let released = Int64(fields["released"] ?? "0") ?? 0
        #expect(granted - released <= Self.limit)
        #expect(books.contains { $0.acknowledged.count > 5 }, "too little happened to tell")
        for book in books {
            let rows = try await mesh.redis.read(
                "HGETALL", StoreKeys.leases(account, book.holder)
            ).fields
            for (number, lease) in book.acknowledged {
                let row = try #require(rows[String(number)], "lease \(number) was forgotten")
                let parts = row.split(separator: " ").compactMap { Int64($0) }
                #expect(parts.count == 4 && parts[1] == lease.granted)
                #expect(parts[2] >= lease.consumed && parts[3] >= lease.released)
            }
        }
    }

    /// Until the holders have been granted something more: the load is on.
    private func grantsGoOn(_ mesh: LedgerMesh, _ account: AccountKey) async throws {
        func granted() async throws -> Int64 {
            try await mesh.redis.read("HGET", StoreKeys.account(account), "granted").integer ?? 0
        }
        let before = try await granted()
        try await eventually("holders are granted leases") { try await granted() > before + 2_000 }
    }
}

/// A holder that remembers what it was told for good.
private struct HolderBook {
    struct Lease {
        var granted: Int64
        var consumed: Int64 = 0
        var released: Int64 = 0
    }

    let holder: Incarnation
    let account: AccountKey
    var acknowledged: [Int64: Lease] = [:]
    private var next: Int64 = 1

    init(holder: Incarnation, account: AccountKey) {
        self.holder = holder
        self.account = account
    }

    /// Asks for a lease until there is an answer, then spends a part and gives back the rest.
    mutating func work(_ mesh: LedgerMesh) async throws {
        let number = next
        let lease = LeaseID(incarnation: holder, number: number)
        let request = LeaseAcquire(
            lease: lease, account: account, need: NanoUSD(10), want: NanoUSD(40), closedBelow: 0,
            policyNumber: 1)
        guard
            let grant = try? await mesh.ledger.acquire([request], by: holder, policyNumber: 1)
                .grants.first, grant.status == .granted
        else {
            // A Redis that was killed grants again once those who hold leases have spoken.
            _ = try? await SidecarRegistry(redis: mesh.redis).heartbeat(
                SidecarHealth(state: .serving, reasons: [], requestsInFlight: 0, journalBytes: 0),
                by: holder)
            _ = try? await mesh.ledger.report(LedgerMesh.report(), by: holder)
            return
        }
        if let before = acknowledged[number] { #expect(before.granted == grant.granted.rawValue) }
        acknowledged[number] = Lease(granted: grant.granted.rawValue)
        let counters = LedgerMesh.counters(
            lease, account, consumed: 3, released: grant.granted.rawValue - 4)
        if (try? await mesh.ledger.release([counters], by: holder)) != nil {
            acknowledged[number]?.consumed = 3
            acknowledged[number]?.released = grant.granted.rawValue - 4
            next += 1
        }
    }
}
