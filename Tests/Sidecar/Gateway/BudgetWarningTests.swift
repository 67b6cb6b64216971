import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarCore
@testable import SidecarGateway

@Suite struct BudgetWarningTests {
    private static func account(_ id: String, month: String = "2026-11") throws -> AccountKey {
        AccountKey(
            unit: .usd, scope: .user, period: try #require(Period(month)), id: id)
    }

    @Test func eachShareIsReachedOnceAndAgainAfterARaise() throws {
        var crossings = BudgetCrossings(accountsMax: 10)
        let ann = try Self.account("ann")
        func look(_ percent: Int) -> Int? {
            crossings.look(at: ann, spentPercent: percent, shares: [80, 95])
        }
        #expect([10, 79, 80, 81, 94].map(look) == [nil, nil, 80, nil, nil])
        #expect([95, 99, 120].map(look) == [95, nil, nil])
        // The limit was raised, and the user goes on.
        #expect([85, 96].map(look) == [nil, 95])
        #expect([20, 97].map(look) == [nil, 95])
        #expect(crossings.look(at: ann, spentPercent: 100, shares: []) == nil)
    }

    @Test func whatIsRememberedIsBounded() throws {
        var crossings = BudgetCrossings(accountsMax: 2)
        func look(_ id: String, _ month: String) throws -> Int? {
            crossings.look(
                at: try Self.account(id, month: month), spentPercent: 90, shares: [80])
        }
        #expect(try look("ann", "2026-10") == 80)
        #expect(try look("bob", "2026-11") == 80)
        // October is over: it goes first, and bob's is kept.
        #expect(try look("eve", "2026-11") == 80)
        #expect(try look("bob", "2026-11") == nil)
        #expect(try look("joe", "2026-11") == 80)
    }

    @Test(
        arguments: [
            (100, 0, 0, 0), (100, 30, 53, 83), (0, 0, 0, 100), (3, 1, 1, 66), (100, 100, 30, 130),
        ] as [(Int64, Int64, Int64, Int)])
    func theShareIsThatOfSpentMoney(_ limit: Int64, _ others: Int64, _ own: Int64, _ share: Int) {
        let position = BudgetPosition(
            limit: NanoUSD(limit), consumedByOthers: NanoUSD(others), ownConsumed: NanoUSD(own),
            leastOutstanding: NanoUSD(50))
        #expect(position.spentPercent == share)
    }

    @Test func aTagIsNamedBecauseARequestMayHaveSeveral() {
        let month = Period(.month, at: UnixTime(seconds: 1_772_323_200))
        func text(_ scope: AccountKey.Scope) -> String {
            let account = AccountKey(unit: .usd, scope: scope, period: month, id: "launch")
            return BudgetWarning(account: account, spentPercent: 91).text
        }
        #expect(text(.tag) == "tag:launch/month 91%" && text(.tenant) == "tenant/month 91%")
    }

    @Test func aSettlementMovesTheRealLedgerOverAShare() async throws {
        let folder = TemporaryFolder()
        let ledger = try SidecarLedger(SidecarLedger.Configuration(directory: folder.path))
        try ledger.beginStandalone()
        let limit = NanoUSD(1_000)
        let account = SubjectBinding.Account(
            unit: .usd, scope: .user, period: .forever, id: "alice", limit: limit)
        let key = account.key(at: SidecarLedger.wallTime())
        ledger.grantLocally(
            AccountTerms(key: key, limit: limit, maxLease: limit, policyNumber: 17), amount: limit)
        let registry = Metrics()
        let accounts = LedgerAccounts(
            ledger: ledger,
            binding: SubjectBinding(
                user: "alice", tenant: nil, tier: "gold", roles: [], accounts: [account],
                preferences: nil, timeToLiveMilliseconds: 1_000),
            snapshot: try GatewayFixture.snapshot(GatewayFixture.policy()), clock: TestClock(),
            watch: BudgetWatch(registry, Log(level: .error)),
            isControlPlaneReachable: { true })
        func spend(_ amount: Int64) async throws -> [String]? {
            let call = try await accounts.delegate(
                CallBound(amount: NanoUSD(100), least: .zero), to: Incarnation(7))
            // What is set aside is not spent.
            let before = accounts.balance?.warnings.map(\.spentPercent)
            accounts.callFinal(call, consumed: NanoUSD(amount), tokens: nil)
            #expect(before == [] || amount < 100)
            return accounts.balance?.warnings.map(\.text)
        }
        for _ in 0..<7 { #expect(try await spend(100) == []) }
        #expect(try await spend(100) == ["user/forever 80%"])
        #expect(try await spend(50) == ["user/forever 85%"])
        let text = String(decoding: registry.exposition(), as: UTF8.self)
        let line = #"weir_budget_warnings_total{scope="user",tier="gold",percent="80"} 1"#
        #expect(text.contains(line + "\n"), "\(text)")
    }
}
