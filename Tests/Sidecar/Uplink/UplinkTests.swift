import SidecarCore
import Synchronization
import Testing
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarUplink

/// The uplink against a control plane of the test that speaks the mesh protocol over real HTTP/2.
@Suite(.serialized) struct UplinkTests {
    @Test func joinsAppliesAndAcknowledges() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        let uplink = try await mesh.startUplink()
        mesh.server.push(line: MeshFixtures.line(MeshFixtures.projection(1)))
        #expect(await becomesTrue { uplink.status.policyVersion?.number == 1 })
        #expect(await becomesTrue { mesh.received(MeshPath.ack).count == 1 })
        let ack = try JSON.decode(PolicyAck.self, from: mesh.received(MeshPath.ack)[0].body)
        #expect(ack.applied && ack.version.number == 1)
        let join = mesh.received(MeshPath.join)[0]
        #expect(join.fields["authorization"] == nil)
        let watch = try #require(mesh.received(MeshPath.policy).first)
        #expect(watch.path == "/mesh/v1/policy?watch")
        #expect(watch.fields["authorization"] == "Bearer session-1")
        #expect(uplink.status.incarnation == Incarnation(1))
        await uplink.drain(atMostNanoseconds: 1_000_000_000)
        #expect(await becomesTrue { !uplink.status.isConnected })
    }

    @Test func gatewaysFollowTheStateOfTheMesh() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        mesh.failNext(MeshPath.state, status: 503)
        _ = try await mesh.startUplink(role: .gateway)
        #expect(await becomesTrue { mesh.seen.first?.omitted == 1 })
        func lines() -> String { String(decoding: mesh.registry.exposition(), as: UTF8.self) }
        for line in [
            #"weir_uplink_messages_total{message="state",outcome="refused"} 1"#,
            #"weir_uplink_messages_total{message="join",outcome="answered"} 1"#,
            #"weir_uplink_round_trip_seconds_count{message="join"} 1"#,
        ] {
            #expect(lines().contains(line + "\n"), "\(lines())")
        }
    }

    @Test func aBadPolicyIsRefusedAndTheLastGoodOneStays() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        let uplink = try await mesh.startUplink()
        mesh.server.push(line: MeshFixtures.line(MeshFixtures.projection(1)))
        mesh.server.push(line: MeshFixtures.line(MeshFixtures.projection(2, kind: "Bad")))
        #expect(await becomesTrue { mesh.received(MeshPath.ack).count == 2 })
        let acks = try mesh.received(MeshPath.ack).map {
            try JSON.decode(PolicyAck.self, from: $0.body)
        }
        let refusal = try #require(acks.first { $0.version.number == 2 })
        #expect(!refusal.applied)
        #expect(refusal.problems == [Problem(path: "/documents/0", message: "is bad")])
        #expect(uplink.status.policyVersion?.number == 1)
        #expect(uplink.status.policyProblems == refusal.problems)
        #expect(mesh.applied == [1])
    }

    @Test func comesBackByItselfAndSaysWhatItHolds() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        let uplink = try await mesh.startUplink()
        mesh.server.push(line: MeshFixtures.line(MeshFixtures.projection(1)))
        #expect(await becomesTrue { uplink.status.policyVersion?.number == 1 })
        mesh.server.breakConnections()
        let hash = MeshFixtures.hash(MeshFixtures.projection(1))
        let again = "/mesh/v1/policy?watch&version=1.1&hash=\(hash)"
        // On a machine that stands still, the first watch may have broken once before.
        #expect(await becomesTrue { mesh.received(MeshPath.policy).last?.path == again })
        #expect(mesh.received(MeshPath.join).count == 1, "the session goes on")
    }

    @Test func aRefusedSessionJoinsAnewAndNamesItsPredecessor() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        let uplink = try await mesh.startUplink()
        mesh.forgetSessions()
        #expect(await becomesTrue { uplink.status.incarnation == Incarnation(2) })
        let join = try JSON.decode(
            JoinRequest.self, from: try #require(mesh.received(MeshPath.join).last).body)
        #expect(join.predecessor?.incarnation == Incarnation(1))
        #expect(mesh.lives == [1, 2])
    }

    @Test func startsFromDiskWhileTheControlPlaneIsAway() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        let first = try await mesh.startUplink()
        mesh.server.push(line: MeshFixtures.line(MeshFixtures.projection(4)))
        #expect(await becomesTrue { first.status.policyVersion?.number == 4 })
        await first.drain(atMostNanoseconds: 1_000_000_000)
        mesh.server.refuseConnections(true)
        let second = try await mesh.startUplink(untilJoined: false)
        #expect(await becomesTrue { second.status.policyVersion?.number == 4 })
        #expect(second.status.incarnation == Incarnation(1), "the life goes on")
        #expect(!second.status.isConnected)
        mesh.server.refuseConnections(false)
        #expect(await becomesTrue { second.status.isConnected })
        #expect(await becomesTrue { mesh.received(MeshPath.policy).count == 2 })
        #expect(mesh.received(MeshPath.join).count == 1)
        await second.drain(atMostNanoseconds: 1_000_000_000)
    }

    @Test func aJournalThatMayNotGoOnBeginsANewLife() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        let first = try await mesh.startUplink()
        mesh.server.push(line: MeshFixtures.line(MeshFixtures.projection(4)))
        #expect(await becomesTrue { first.status.policyVersion?.number == 4 })
        await first.drain(atMostNanoseconds: 1_000_000_000)
        let second = try await mesh.startUplink(mayResume: false)
        #expect(second.status.incarnation == Incarnation(2))
        #expect(second.status.policyVersion?.number == 4, "the policy is good all the same")
    }

    @Test func demandsTravelTogetherAndAnswersComeBack() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        let uplink = try await mesh.startUplink()
        mesh.ledger.demand(50)
        for _ in 0..<50 { uplink.demandsArrived() }
        #expect(await becomesTrue { mesh.ledger.granted == 50 })
        #expect(mesh.received(MeshPath.leases).count == 1)
    }

    @Test func demandsThatAreLostAreAskedAgain() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        let uplink = try await mesh.startUplink()
        mesh.failNext(MeshPath.leases, status: 503)
        mesh.ledger.demand(2)
        uplink.demandsArrived()
        #expect(await becomesTrue { mesh.ledger.granted == 2 })
        #expect(mesh.received(MeshPath.leases).count == 2)
    }

    /// What was spent here and not said yet looks set aside to the store.
    @Test func aContendedAnswerMakesAReportAtOnce() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        let uplink = try await mesh.startUplink()
        #expect(await becomesTrue { mesh.received(MeshPath.report).count == 1 })
        mesh.contendNext()
        mesh.ledger.demand(1)
        uplink.demandsArrived()
        #expect(await becomesTrue(within: 0.5) { mesh.received(MeshPath.report).count == 2 })
    }

    @Test func recordsShipUntilTheyAreStored() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        let uplink = try await mesh.startUplink()
        mesh.failNext(MeshPath.records, status: 500)
        mesh.ledger.addRecords(5)
        #expect(await becomesTrue { mesh.ledger.stored == 5 })
        #expect(mesh.received(MeshPath.records).count == 2, "once refused, once stored")
        #expect(await becomesTrue { mesh.received(MeshPath.report).count > 0 })
        mesh.ledger.addRecords(3)
        await uplink.drain(atMostNanoseconds: 2_000_000_000)
        #expect(mesh.ledger.stored == 8, "a drain says everything")
    }

    /// What comes free says the ledger, by its demands.
    @Test func aRecallReachesTheLedger() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        _ = try await mesh.startUplink()
        #expect(await becomesTrue { mesh.received(MeshPath.report).count == 1 })
        let lease = LeaseID(incarnation: Incarnation(1), number: 9)
        mesh.server.push(line: MeshFixtures.line(PolicyEvent.recall([lease])))
        #expect(await becomesTrue { mesh.ledger.recalled == [lease] })
    }

    @Test func aLineThatIsNotUnderstoodBeginsTheWatchAnew() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        _ = try await mesh.startUplink()
        mesh.server.push(line: "{\"type\":\"delta\"}")
        #expect(await becomesTrue { mesh.received(MeshPath.policy).count == 2 })
    }

    @Test func oneLookupForAllWhoAskAndThenTheCache() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        let uplink = try await mesh.startUplink()
        let request = SubjectRequest(claims: nil, apiKeyHash: "alice")
        await withTaskGroup(of: SubjectOutcome.self) { group in
            for _ in 0..<20 { group.addTask { await uplink.subject(request) } }
            for await outcome in group {
                guard case .bound(let binding) = outcome else {
                    Issue.record("not bound: \(outcome)")
                    return
                }
                #expect(binding.user == "alice")
            }
        }
        #expect(mesh.received(MeshPath.subject).count == 1)
        _ = await uplink.subject(request)
        #expect(mesh.received(MeshPath.subject).count == 1)
    }

    @Test func aLookupBringsLeasesWithIt() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        let uplink = try await mesh.startUplink()
        let account = AccountTerms(
            key: AccountKey(
                unit: .usd, scope: .user, period: Period(.forever, at: UnixTime(seconds: 0)),
                id: "alice"),
            limit: NanoUSD(9), maxLease: NanoUSD(3), policyNumber: 1)
        let request = SubjectRequest(claims: nil, apiKeyHash: "alice")
        guard case .bound = await uplink.subject(request, opening: [account]) else {
            Issue.record("not bound")
            return
        }
        #expect(mesh.ledger.granted == 1)
        // Known now: nothing is asked for.
        _ = await uplink.subject(request, opening: [account])
        #expect(mesh.received(MeshPath.subject).count == 1)
        // Who knows nothing of leases here is asked for them by the message for that.
        let old = SubjectRequest(claims: nil, apiKeyHash: "old")
        guard case .bound = await uplink.subject(old, opening: [account]) else {
            Issue.record("not bound")
            return
        }
        uplink.demandsArrived()
        #expect(await becomesTrue { mesh.ledger.granted == 2 })
    }

    /// A line without names says that anybody may have changed.
    @Test func everybodyIsAskedAboutAgainWhenWordsWereLost() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        let uplink = try await mesh.startUplink()
        let request = SubjectRequest(claims: nil, apiKeyHash: "alice")
        _ = await uplink.subject(request)
        let before = mesh.received(MeshPath.subject).count
        mesh.server.push(line: MeshFixtures.line(PolicyEvent.subjects([])))
        #expect(
            await becomesTrue {
                _ = await uplink.subject(request)
                return mesh.received(MeshPath.subject).count > before
            })
    }

    @Test func aSubjectIsRememberedWhileTheControlPlaneIsAway() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        let uplink = try await mesh.startUplink()
        // Its time to live is none, so only the stale binding can serve.
        let request = SubjectRequest(claims: nil, apiKeyHash: "short")
        guard case .bound = await uplink.subject(request) else {
            Issue.record("not bound")
            return
        }
        mesh.server.refuseConnections(true)
        mesh.server.breakConnections()
        #expect(await becomesTrue { !uplink.status.isConnected })
        guard case .bound = await uplink.subject(request) else {
            Issue.record("not remembered")
            return
        }
        let other = SubjectRequest(claims: nil, apiKeyHash: "bob")
        #expect(await uplink.subject(other) == .unavailable)
    }

    @Test func aSubjectThatIsRefusedIsNotRemembered() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        let uplink = try await mesh.startUplink()
        let request = SubjectRequest(claims: nil, apiKeyHash: "nobody")
        #expect(
            await uplink.subject(request)
                == .refused(MeshRefusal(reason: "forbidden", detail: "not known")))
        #expect(uplink.status.incarnation == Incarnation(1), "the session is not to blame")
    }

    @Test func usersRequestsPassThrough() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        let uplink = try await mesh.startUplink()
        var request = UserRequest(
            subject: .init(user: "ann", tenant: nil, tier: "free", roles: []), body: ["a": 1])
        guard case .answered(let body) = await uplink.ask(.budget, request) else {
            Issue.record("no answer")
            return
        }
        #expect(body == ["a": 1])
        request.body = nil
        guard case .refused(let refusal) = await uplink.ask(.budget, request) else {
            Issue.record("not refused")
            return
        }
        #expect(refusal.reason == "invalid")
        mesh.failNext(MeshPath.user(.budget), status: 503)
        guard case .unavailable = await uplink.ask(.budget, request) else {
            Issue.record("a control plane that fails is no answer")
            return
        }
        mesh.server.breakConnections()
        #expect(await becomesTrue { !uplink.status.isConnected })
        guard case .unavailable = await uplink.ask(.budget, request) else {
            Issue.record("nobody is there to answer")
            return
        }
    }

    /// An unknown API key is the caller's affair: the session goes on.
    @Test func aRefusedKeyDoesNotEndTheSession() async throws {
        let mesh = try Mesh()
        defer { mesh.stop() }
        let uplink = try await mesh.startUplink()
        let outcome = await uplink.subject(SubjectRequest(claims: nil, apiKeyHash: "unknown"))
        guard case .refused(let refusal) = outcome else {
            Issue.record("\(outcome)")
            return
        }
        #expect(refusal.reason == "unauthenticated")
        guard case .bound = await uplink.subject(SubjectRequest(claims: nil, apiKeyHash: "ann"))
        else {
            Issue.record("the session is gone")
            return
        }
        #expect(mesh.received(MeshPath.join).count == 1)
    }
}
