import Testing
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol

@testable import ControlPlaneStore

/// A mesh's ledger on a private Redis.
struct LedgerMesh {
    let server: PrivateRedis
    let redis: Redis
    let sessions: Sessions
    let ledger: LedgerStore

    init(port: UInt16 = 0) async throws {
        server = try PrivateRedis(port: port, arguments: ["--repl-diskless-sync-delay", "0"])
        redis = try Redis(url: server.url)
        sessions = try await Sessions.load(from: redis)
        ledger = LedgerStore(redis: redis, sessions: sessions)
        try await ledger.begin(hasPast: false)
    }

    func join(
        _ role: Role = .gateway, agent: String? = nil, endpoint: String? = nil,
        after: JoinResponse? = nil
    ) async throws -> JoinResponse {
        try await ledger.join(
            JoinRequest(
                credential: "", role: role, agent: agent, endpoint: endpoint, instance: "test",
                predecessor: try after.map(Self.proof)), replicas: ["127.0.0.1:9100"])
    }

    static func proof(of earlier: JoinResponse) throws -> JoinRequest.Predecessor {
        let key = try #require(Base64URL.decode(earlier.journalSecret))
        let code = Crypto.hmacSHA256(key: key, LedgerStore.proofText(earlier.incarnation))
        return JoinRequest.Predecessor(
            incarnation: earlier.incarnation, proof: Base64URL.encode(code))
    }

    /// An account of a user's present month with a limit.
    func account(_ user: String, limit: Int64, maxLease: Int64) async throws -> AccountKey {
        let terms = SubjectBinding.Account(
            unit: .usd, scope: .user, period: .month, id: user, limit: NanoUSD(limit))
        let limits = try await ledger.setLimits(
            [(terms, NanoUSD(maxLease))], policyNumber: 1)
        #expect(limits == [NanoUSD(limit)])
        return AccountKey(
            unit: .usd, scope: .user, period: Period(.month, at: try await redis.time()), id: user)
    }

    func acquire(
        _ number: Int64, of account: AccountKey, by holder: Incarnation, need: Int64,
        want: Int64? = nil, closedBelow: Int64 = 0, observes: Bool = false,
        mayObserve: Bool = false
    ) async throws -> LeaseGrant {
        let request = LeaseAcquire(
            lease: LeaseID(incarnation: holder, number: number), account: account,
            need: NanoUSD(need), want: NanoUSD(want ?? need), closedBelow: closedBelow,
            policyNumber: 1, observes: observes)
        return try #require(
            try await ledger.acquire(
                [request], by: holder, policyNumber: 1, mayObserve: mayObserve
            ).grants.first)
    }

    /// It was last heard long ago.
    func isSilent(_ incarnation: Incarnation) async throws {
        try await redis.command(["ZADD", StoreKeys.live, "1", incarnation.description])
    }

    /// `nil`: it was not to be written off.
    func writtenOff(
        _ incarnation: Incarnation, isForced: Bool = false
    ) async throws -> [LeaseHolder.Share]? {
        let outcome = try await ledger.writeOff(incarnation, isForced: isForced)
        guard case .done(let amounts) = outcome else { return nil }
        return amounts
    }

    static func report(
        highest: Int64 = 0, _ leases: [LeaseCounters] = [], finals: [ChildFinal] = [],
        acknowledged: [ChildKey] = [], openChildren: [OpenChild] = [], epoch: Int64? = nil
    ) -> Report {
        Report(
            highestLease: highest, leases: leases, childFinals: finals,
            acknowledgedFinals: acknowledged, openChildren: openChildren,
            health: SidecarHealth(
                state: .serving, reasons: [], requestsInFlight: 0, journalBytes: 0),
            epoch: epoch)
    }

    static func counters(
        _ lease: LeaseID, _ account: AccountKey, consumed: Int64, released: Int64
    ) -> LeaseCounters {
        LeaseCounters(
            lease: lease, account: account, consumed: NanoUSD(consumed),
            released: NanoUSD(released))
    }
}

@Suite(.timeLimit(.minutes(1))) struct LedgerStoreTests {
    @Test func aLeaseIsGrantedOnceAndReleasedMoneyComesBack() async throws {
        let mesh = try await LedgerMesh()
        let holder = try await mesh.join().incarnation
        let account = try await mesh.account("ann", limit: 100, maxLease: 60)
        let first = try await mesh.acquire(1, of: account, by: holder, need: 10, want: 50)
        #expect(first.status == .granted && first.granted == NanoUSD(50))
        #expect(first.expiresInMilliseconds > 0)
        let again = try await mesh.acquire(1, of: account, by: holder, need: 10, want: 50)
        #expect(again.granted == NanoUSD(50) && again.state?.held == NanoUSD(50))
        // 60 is the most that one holder may have.
        #expect(try await mesh.acquire(2, of: account, by: holder, need: 20).status == .contended)

        let lease = LeaseID(incarnation: holder, number: 1)
        try await mesh.ledger.release(
            [LedgerMesh.counters(lease, account, consumed: 30, released: 20)], by: holder)
        let states = try await mesh.ledger.states(of: [account])
        #expect(states.first??.consumed == NanoUSD(30) && states.first??.held == .zero)
        #expect(try await mesh.acquire(1, of: account, by: holder, need: 10).status == .gone)
        #expect(try await mesh.acquire(3, of: account, by: holder, need: 71).status == .exhausted)
        #expect(try await mesh.acquire(4, of: account, by: holder, need: 60).status == .granted)
    }

    @Test func anAccountGoesBeyondItsLimitOnlyWhereThePolicyObserves() async throws {
        let mesh = try await LedgerMesh()
        let holder = try await mesh.join().incarnation
        let account = try await mesh.account("ann", limit: 100, maxLease: 60)
        let first = try await mesh.acquire(
            1, of: account, by: holder, need: 150, observes: true, mayObserve: true)
        #expect(first.status == .granted && first.granted == NanoUSD(150))
        // The account keeps its limit, and shows it.
        #expect(first.state?.limit == NanoUSD(100) && first.state?.held == NanoUSD(150))
        // One holder's share is no bound either, while nobody is kept from anything.
        let second = try await mesh.acquire(
            2, of: account, by: holder, need: 70, observes: true, mayObserve: true)
        #expect(second.status == .granted)
        // A gateway with an older policy asks, and the one in force observes nobody.
        let late = try await mesh.acquire(3, of: account, by: holder, need: 1, observes: true)
        #expect(late.status == .contended)
        let lease = LeaseID(incarnation: holder, number: 1)
        try await mesh.ledger.release(
            [LedgerMesh.counters(lease, account, consumed: 150, released: 0)], by: holder)
        #expect(try await mesh.acquire(4, of: account, by: holder, need: 1).status == .exhausted)
    }

    @Test func otherPeriodsAndUnknownAccountsAreRefused() async throws {
        let mesh = try await LedgerMesh()
        let holder = try await mesh.join().incarnation
        var account = try await mesh.account("ann", limit: 100, maxLease: 60)
        account.period = try #require(Period("2020-01"))
        #expect(try await mesh.acquire(1, of: account, by: holder, need: 1).status == .wrongPeriod)
        account.period = try #require(Period("2999-01"))
        #expect(try await mesh.acquire(1, of: account, by: holder, need: 1).status == .wrongPeriod)
        account.id = "nobody"
        let grant = try await mesh.acquire(1, of: account, by: holder, need: 1)
        #expect(grant.status == .unknownAccount)
    }

    @Test func aMinuteIsKeptForAMinuteMoreAndNobodyListsIt() async throws {
        let mesh = try await LedgerMesh()
        let holder = try await mesh.join().incarnation
        _ = try await mesh.ledger.setLimits(
            [
                (
                    SubjectBinding.Account(
                        unit: .requests, scope: .user, period: .minute, id: "ann",
                        limit: NanoUSD(60)), NanoUSD(6)
                )
            ], policyNumber: 1)
        // It has half a minute or more to go, or begins within that.
        let time = UnixTime(seconds: try await mesh.redis.time().seconds + 30)
        let account = AccountKey(
            unit: .requests, scope: .user, period: Period(.minute, at: time), id: "ann")
        let grant = try await mesh.acquire(1, of: account, by: holder, need: 1)
        #expect(grant.status == .granted && grant.granted == NanoUSD(6))
        #expect((1...90_000).contains(grant.expiresInMilliseconds))
        #expect(grant.state?.resetsAtMilliseconds == account.period.end?.milliseconds)
        // A lease that a failover lost comes back, and goes as soon.
        let lost = LeaseID(incarnation: holder, number: 2)
        try await mesh.ledger.release(
            [
                LeaseCounters(
                    lease: lost, account: account, consumed: NanoUSD(1), released: .zero,
                    granted: NanoUSD(3))
            ], by: holder)
        #expect(try await mesh.ledger.states(of: [account]).first??.held == NanoUSD(8))
        for key in StoreKeys.ledger(account, holder).dropLast() {
            let left = try await mesh.redis.read("PTTL", key).integer
            #expect((1...150_000).contains(try #require(left)), "\(key)")
        }
        let listed = try await mesh.redis.read("EXISTS", StoreKeys.accounts(holder)).integer
        #expect(listed == 0)
        let answer = try await mesh.ledger.report(LedgerMesh.report(highest: 2, []), by: holder)
        #expect(answer.unknown.isEmpty && answer.states.isEmpty)
    }

    @Test func leasesOfOthersAreNotTouched() async throws {
        let mesh = try await LedgerMesh()
        let (ann, eve) = (try await mesh.join().incarnation, try await mesh.join().incarnation)
        let account = try await mesh.account("ann", limit: 100, maxLease: 60)
        #expect(try await mesh.acquire(1, of: account, by: ann, need: 10).status == .granted)
        let lease = LeaseID(incarnation: ann, number: 1)
        let theft = LedgerMesh.counters(lease, account, consumed: 0, released: 10)
        try await mesh.ledger.release([theft], by: eve)
        #expect(try await mesh.ledger.states(of: [account]).first??.held == NanoUSD(10))
        // Nor may anybody ask in another's name.
        let request = LeaseAcquire(
            lease: LeaseID(incarnation: ann, number: 2), account: account, need: NanoUSD(1),
            want: NanoUSD(1), closedBelow: 0, policyNumber: 1)
        let grants = try await mesh.ledger.acquire([request], by: eve, policyNumber: 1).grants
        #expect(grants.map(\.status) == [.unavailable])
        await #expect(throws: MeshRefusal.self) {
            try await mesh.ledger.acquire([request], by: Incarnation(1), policyNumber: 1)
        }
    }

    @Test func reportsTellStatesAndDisownedLeases() async throws {
        let mesh = try await LedgerMesh()
        let (ann, bob) = (try await mesh.join().incarnation, try await mesh.join().incarnation)
        let account = try await mesh.account("ann", limit: 100, maxLease: 60)
        for (number, holder) in [(1, ann), (2, ann), (3, ann), (1, bob)] {
            let grant = try await mesh.acquire(Int64(number), of: account, by: holder, need: 10)
            #expect(grant.status == .granted)
        }
        let mine = LedgerMesh.counters(
            LeaseID(incarnation: ann, number: 1), account, consumed: 4, released: 6)
        let theirs = LedgerMesh.counters(
            LeaseID(incarnation: bob, number: 1), account, consumed: 5, released: 0)
        _ = try await mesh.ledger.report(LedgerMesh.report(highest: 1, [theirs]), by: bob)
        let answer = try await mesh.ledger.report(
            LedgerMesh.report(highest: 2, [mine]), by: ann)
        // Lease 3 was asked for after the report was written.
        #expect(answer.unknown.map(\.lease.number) == [2])
        let state = try #require(answer.states.first)
        #expect(state.consumed == NanoUSD(9) && state.consumedByOthers == NanoUSD(5))
        #expect(state.held == NanoUSD(25))
    }

    @Test func theIndexForgetsAccountsWithoutOpenLeases() async throws {
        let mesh = try await LedgerMesh()
        let holder = try await mesh.join().incarnation
        let account = try await mesh.account("ann", limit: 100, maxLease: 60)
        #expect(try await mesh.acquire(1, of: account, by: holder, need: 10).status == .granted)
        let key = StoreKeys.accounts(holder)
        _ = try await mesh.ledger.report(LedgerMesh.report(highest: 0), by: holder)
        #expect(try await mesh.redis.read("HLEN", key).integer == 1)
        let lease = LeaseID(incarnation: holder, number: 1)
        let closed = LedgerMesh.counters(lease, account, consumed: 10, released: 0)
        _ = try await mesh.ledger.report(LedgerMesh.report(highest: 1, [closed]), by: holder)
        #expect(try await mesh.redis.read("HLEN", key).integer == 0)
    }

    @Test func finalsWaitForTheirParent() async throws {
        let mesh = try await LedgerMesh()
        let gateway = try await mesh.join()
        let child = try await mesh.join(.agent, agent: "finbert", endpoint: "127.0.0.1:1")
        let key = ChildKey(
            lease: LeaseID(incarnation: gateway.incarnation, number: 4), child: 9)
        let final = ChildFinal(key: key, consumed: NanoUSD(77))
        for _ in 0..<2 {
            _ = try await mesh.ledger.report(
                LedgerMesh.report(finals: [final]), by: child.incarnation)
        }
        for _ in 0..<2 {
            let answer = try await mesh.ledger.report(
                LedgerMesh.report(), by: gateway.incarnation)
            #expect(answer.finals == [final])
        }
        // Only the parent acknowledges.
        _ = try await mesh.ledger.report(
            LedgerMesh.report(acknowledged: [key]), by: child.incarnation)
        let successor = try await mesh.join(after: gateway)
        #expect(successor.adopted == gateway.incarnation)
        let inherited = try await mesh.ledger.report(
            LedgerMesh.report(), by: successor.incarnation)
        #expect(inherited.finals == [final])
        let answer = try await mesh.ledger.report(
            LedgerMesh.report(acknowledged: [key]), by: successor.incarnation)
        #expect(answer.finals.isEmpty)
    }

    @Test func aParentsQuestionReachesWhoeverContinuesItsAudience() async throws {
        let mesh = try await LedgerMesh()
        let gateway = try await mesh.join()
        let first = try await mesh.join(.agent, agent: "finbert", endpoint: "127.0.0.1:1")
        let second = try await mesh.join(
            .agent, agent: "finbert", endpoint: "127.0.0.1:1", after: first)
        _ = try await mesh.ledger.report(LedgerMesh.report(), by: second.incarnation)
        let third = try await mesh.join(
            .agent, agent: "finbert", endpoint: "127.0.0.1:1", after: second)
        let open = OpenChild(
            key: ChildKey(lease: LeaseID(incarnation: gateway.incarnation, number: 4), child: 9),
            audience: first.incarnation)
        // Only the parent asks.
        _ = try await mesh.ledger.report(
            LedgerMesh.report(openChildren: [open]), by: second.incarnation)
        var asked = try await mesh.ledger.report(LedgerMesh.report(), by: third.incarnation)
        #expect(asked.inquiries.isEmpty)

        let question = LedgerMesh.report(openChildren: [open])
        for _ in 0..<2 {
            _ = try await mesh.ledger.report(question, by: gateway.incarnation)
        }
        asked = try await mesh.ledger.report(LedgerMesh.report(), by: second.incarnation)
        #expect(asked.inquiries.isEmpty)
        asked = try await mesh.ledger.report(LedgerMesh.report(), by: third.incarnation)
        #expect(asked.inquiries == [open])
        let final = ChildFinal(key: open.key, consumed: .zero)
        asked = try await mesh.ledger.report(
            LedgerMesh.report(finals: [final]), by: third.incarnation)
        #expect(asked.inquiries.isEmpty)
        // The final is there: nobody is asked any more.
        let answer = try await mesh.ledger.report(question, by: gateway.incarnation)
        #expect(answer.finals == [final])
        asked = try await mesh.ledger.report(LedgerMesh.report(), by: third.incarnation)
        #expect(asked.inquiries.isEmpty)
    }

    @Test func contentionRecallsWhatOthersHold() async throws {
        let mesh = try await LedgerMesh()
        let (ann, bob) = (try await mesh.join().incarnation, try await mesh.join().incarnation)
        var hints = mesh.redis.hints().makeAsyncIterator()
        #expect(await hints.next() == .anything)
        let account = try await mesh.account("ann", limit: 100, maxLease: 100)
        #expect(try await mesh.acquire(1, of: account, by: ann, need: 90).status == .granted)
        #expect(try await mesh.acquire(1, of: account, by: bob, need: 20).status == .contended)
        let lease = LeaseID(incarnation: ann, number: 1)
        #expect(await hints.next() == .recall(LeaseRecall(holder: ann, leases: [lease])))
        let counters = LedgerMesh.counters(lease, account, consumed: 0, released: 0)
        let answer = try await mesh.ledger.report(
            LedgerMesh.report(highest: 1, [counters]), by: ann)
        #expect(answer.recalls == [lease])
        let back = LedgerMesh.counters(lease, account, consumed: 0, released: 50)
        try await mesh.ledger.release([back], by: ann)
        #expect(try await mesh.acquire(2, of: account, by: bob, need: 20).status == .granted)
        // Bob has what he waited for, and Ann may use the rest.
        let later = try await mesh.ledger.report(LedgerMesh.report(highest: 1, [back]), by: ann)
        #expect(later.recalls.isEmpty)
    }

    @Test func aWriteOffSpendsWhatALostHolderHas() async throws {
        let mesh = try await LedgerMesh()
        let holder = try await mesh.join().incarnation
        let account = try await mesh.account("ann", limit: 100, maxLease: 60)
        #expect(try await mesh.acquire(1, of: account, by: holder, need: 40).status == .granted)
        // It was heard a moment ago, so it may be spending; on a slow machine, too.
        let later = String(try await mesh.redis.time().milliseconds + 3_600_000)
        try await mesh.redis.command(["ZADD", StoreKeys.live, later, holder.description])
        guard case .alive = try await mesh.ledger.writeOff(holder) else {
            Issue.record("a living holder was written off")
            return
        }
        try await mesh.isSilent(holder)
        let amounts = try #require(try await mesh.writtenOff(holder))
        #expect(amounts == [LeaseHolder.Share(account: account, held: NanoUSD(40))])
        let state = try #require(try await mesh.ledger.states(of: [account]).first ?? nil)
        #expect(state.consumed == NanoUSD(40) && state.held == .zero)
        #expect(try await mesh.writtenOff(holder)?.isEmpty == true)
        #expect(try await mesh.writtenOff(Incarnation(3)) == nil)
        // It lives all the same: it has to join anew.
        await #expect(throws: MeshRefusal.self) {
            try await mesh.acquire(2, of: account, by: holder, need: 1)
        }
    }

    @Test func nobodyAdoptsWhatIsWrittenOff() async throws {
        let mesh = try await LedgerMesh()
        let lost = try await mesh.join()
        try await mesh.isSilent(lost.incarnation)
        #expect(try await mesh.writtenOff(lost.incarnation) != nil)
        #expect(try await mesh.join(after: lost).adopted == nil)
    }

    @Test func childrenOfAnAudienceThatIsWrittenOffCostTheirWholeAmount() async throws {
        let mesh = try await LedgerMesh()
        let gateway = try await mesh.join().incarnation
        let agent = try await mesh.join(.agent, agent: "finbert", endpoint: "127.0.0.1:1")
        let key = ChildKey(lease: LeaseID(incarnation: gateway, number: 4), child: 9)
        let question = LedgerMesh.report(
            openChildren: [OpenChild(key: key, audience: agent.incarnation)])
        #expect(try await mesh.ledger.report(question, by: gateway).writtenOff == nil)
        // Its successor has another log, so it never answers.
        let successor = try await mesh.join(
            .agent, agent: "finbert", endpoint: "127.0.0.1:1", after: agent)
        #expect(try await mesh.ledger.report(question, by: gateway).writtenOff == nil)
        #expect(try await mesh.writtenOff(agent.incarnation) != nil)
        #expect(try await mesh.ledger.report(question, by: gateway).writtenOff == [key])
        #expect(
            try await mesh.ledger.report(LedgerMesh.report(), by: successor.incarnation)
                .writtenOff == nil)
    }

    @Test func aGrantThatAFailoverLostComesBackWithTheNextReport() async throws {
        let mesh = try await LedgerMesh()
        let holder = try await mesh.join().incarnation
        let account = try await mesh.account("ann", limit: 100, maxLease: 60)
        #expect(try await mesh.acquire(1, of: account, by: holder, need: 40).status == .granted)
        for key in StoreKeys.ledger(account, holder).prefix(3) + [StoreKeys.accounts(holder)] {
            try await mesh.redis.command(["DEL", key])
        }
        let lease = LeaseID(incarnation: holder, number: 1)
        var counters = LedgerMesh.counters(lease, account, consumed: 30, released: 0)
        counters.granted = NanoUSD(40)
        for _ in 0..<2 {
            _ = try await mesh.ledger.report(LedgerMesh.report(highest: 1, [counters]), by: holder)
        }
        let state = try #require(try await mesh.ledger.states(of: [account]).first ?? nil)
        #expect(state.consumed == NanoUSD(30) && state.held == NanoUSD(10))
        #expect(try await mesh.redis.read("PTTL", StoreKeys.account(account)).integer ?? 0 > 0)
        #expect(try await mesh.redis.read("HLEN", StoreKeys.accounts(holder)).integer == 1)
        // One that was closed and forgotten does not.
        counters.released = NanoUSD(10)
        _ = try await mesh.ledger.report(LedgerMesh.report(highest: 1, [counters]), by: holder)
        let next = try await mesh.acquire(2, of: account, by: holder, need: 5, closedBelow: 2)
        #expect(next.status == .granted)
        _ = try await mesh.ledger.report(LedgerMesh.report(highest: 2, [counters]), by: holder)
        let after = try #require(try await mesh.ledger.states(of: [account]).first ?? nil)
        #expect(after.consumed == NanoUSD(30) && after.held == NanoUSD(5))
    }

    @Test func nothingIsGrantedWhereWritesMayGetLost() async throws {
        let mesh = try await LedgerMesh()
        try await mesh.redis.command(["CONFIG", "SET", "appendfsync", "everysec"])
        let holder = try await mesh.join().incarnation
        let account = try await mesh.account("ann", limit: 100, maxLease: 60)
        #expect(try await mesh.acquire(1, of: account, by: holder, need: 1).status == .unavailable)
        let trial = LedgerStore(redis: mesh.redis, sessions: mesh.sessions, isTrial: true)
        let request = LeaseAcquire(
            lease: LeaseID(incarnation: holder, number: 1), account: account, need: NanoUSD(1),
            want: NanoUSD(1), closedBelow: 0, policyNumber: 1)
        let grants = try await trial.acquire([request], by: holder, policyNumber: 1).grants
        #expect(grants.map(\.status) == [.granted])
    }

    @Test func aGrantIsToldOnceMostNodesHaveIt() async throws {
        let port = try PrivateRedis.freePort()
        let mesh = try await LedgerMesh(port: port)
        let account = try await mesh.account("ann", limit: 100, maxLease: 60)
        let replica = try PrivateRedis(arguments: ["--replicaof", "127.0.0.1", String(port)])
        try await eventually("the replica has caught up") {
            try await RedisPersistence.status(of: mesh.redis).replicas.values.first == 1
        }
        #expect(try await mesh.ledger.check().isEmpty)
        let holder = try await joinedAtLast(mesh)
        #expect(try await grantedAtLast(mesh, 1, account, holder).status == .granted)
        replica.pause()
        let unkept = try await mesh.acquire(2, of: account, by: holder, need: 10)
        #expect(unkept.status == .unavailable && unkept.granted == .zero)
        replica.resume()
        let kept = try await grantedAtLast(mesh, 2, account, holder)
        #expect(kept.status == .granted && kept.state?.held == NanoUSD(20))
    }

    /// A join that the replica has not confirmed in time is refused, and tried again.
    private func joinedAtLast(_ mesh: LedgerMesh) async throws -> Incarnation {
        for _ in 0..<40 {
            do {
                return try await mesh.join().incarnation
            } catch RedisError.connectionLost {}
        }
        return try await mesh.join().incarnation
    }

    /// Asks again as a holder does: a busy machine's replica may need longer than one wait, and
    /// after one that was in vain the connection is a new one.
    private func grantedAtLast(
        _ mesh: LedgerMesh, _ number: Int64, _ account: AccountKey, _ holder: Incarnation
    ) async throws -> LeaseGrant {
        for _ in 0..<40 {
            do {
                let grant = try await mesh.acquire(number, of: account, by: holder, need: 10)
                if grant.status != .unavailable { return grant }
            } catch RedisError.connectionLost {}
        }
        return try await mesh.acquire(number, of: account, by: holder, need: 10)
    }
}
