import SidecarCore
import Synchronization
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarGateway

/// What a minute allows over the whole mesh, at one caller's accounts in a real ledger, and what
/// callers are told.
@Suite(.timeLimit(.minutes(1))) struct RateAccountsTests {
    private let folder = TemporaryFolder()

    /// Accounts of a caller with money in plenty and so many tokens in this minute, all of them in
    /// this process.
    private func accounts(tokens: Int64) throws -> (LedgerAccounts, SidecarLedger) {
        let ledger = try SidecarLedger(SidecarLedger.Configuration(directory: folder.path))
        try ledger.beginStandalone()
        let terms = [
            SubjectBinding.Account(
                unit: .usd, scope: .user, period: .month, id: "alice", limit: NanoUSD(1_000_000)),
            SubjectBinding.Account(
                unit: .tokens, scope: .user, period: .minute, id: "alice", limit: NanoUSD(tokens)),
        ]
        for account in terms {
            ledger.grantLocally(
                AccountTerms(
                    key: account.key(at: TestClock.unix), limit: account.limit,
                    maxLease: account.limit, policyNumber: 17), amount: account.limit)
        }
        let accounts = LedgerAccounts(
            ledger: ledger,
            binding: SubjectBinding(
                user: "alice", tenant: nil, tier: "gold", roles: [], accounts: terms,
                preferences: nil, timeToLiveMilliseconds: 1_000),
            snapshot: try GatewayFixture.snapshot(GatewayFixture.policy()), clock: TestClock(),
            isControlPlaneReachable: { true })
        return (accounts, ledger)
    }

    private func call(_ accounts: LedgerAccounts, tokens: Int64) async throws -> PaidCall {
        try await accounts.delegate(
            CallBound(amount: NanoUSD(10), least: .zero, tokens: tokens), to: Incarnation(7))
    }

    private func refusal(_ accounts: LedgerAccounts, tokens: Int64) async -> LedgerRefusal? {
        do throws(LedgerRefusal) {
            _ = try await accounts.delegate(
                CallBound(amount: NanoUSD(10), least: .zero, tokens: tokens), to: Incarnation(7))
            return nil
        } catch {
            return error
        }
    }

    @Test func `what a call did not use of its tokens comes back within the minute`() async throws {
        let (accounts, _) = try accounts(tokens: 100)
        let first = try await call(accounts, tokens: 60)
        accounts.callFinal(first, consumed: NanoUSD(1), tokens: 10)
        // Saying it again changes nothing.
        accounts.callFinal(first, consumed: NanoUSD(1), tokens: 60)
        let second = try await call(accounts, tokens: 90)
        accounts.callFinal(second, consumed: NanoUSD(1), tokens: 90)
        let refused = try #require(await refusal(accounts, tokens: 1))
        #expect(refused.reason == .rateLimited && refused.limit == NanoUSD(100))
        #expect(refused.account?.description == "tokens/user/2026-11-22T14:20/alice")
        #expect(refused.resetsAt == refused.account?.period.end)
        // A call whose price counts none has none to wait for.
        #expect(await refusal(accounts, tokens: 0) == nil)
    }

    @Test(arguments: [true, false])
    func `a call of which nobody knows the tokens used all that it might`(isLost: Bool)
        async throws
    {
        let (accounts, _) = try accounts(tokens: 100)
        let first = try await call(accounts, tokens: 100)
        if isLost {
            accounts.callLost(first)
        } else {
            accounts.callFinal(first, consumed: NanoUSD(1), tokens: nil)
        }
        #expect(await refusal(accounts, tokens: 1)?.reason == .rateLimited)
    }

    @Test func `a call that money refuses takes no tokens`() async throws {
        let (accounts, ledger) = try accounts(tokens: 100)
        do throws(LedgerRefusal) {
            _ = try await accounts.delegate(
                CallBound(amount: NanoUSD(2_000_000), least: .zero, tokens: 100),
                to: Incarnation(7))
            Issue.record("more money than there is")
        } catch {
            #expect(error.reason == .budgetExhausted)
        }
        #expect(ledger.gauges().openReservations == 0)
        let all = try await call(accounts, tokens: 100)
        accounts.callFinal(all, consumed: .zero, tokens: 0)
    }

    @Test func `tokens in use are used up when the process dies`() async throws {
        do {
            let (accounts, _) = try accounts(tokens: 100)
            _ = try await call(accounts, tokens: 70)
        }
        let (accounts, _) = try accounts(tokens: 100)
        #expect(await refusal(accounts, tokens: 31)?.reason == .rateLimited)
        _ = try await call(accounts, tokens: 30)
    }

    // MARK: What callers are told

    private let minute = AccountKey(
        unit: .tokens, scope: .user, period: Period(.minute, at: TestClock.unix), id: "alice")

    @Test func `the quota, and when the minute ends`() {
        var refusal = LedgerRefusal(
            reason: .rateLimited, account: minute, resetsAt: minute.period.end, limit: NanoUSD(60),
            needed: NanoUSD(60))
        let late = UnixTime(milliseconds: TestClock.unix.milliseconds + 22_900)
        var answer = GatewayRefusal(refusal, now: late)
        #expect(answer.retryAfterSeconds == 38)
        #expect(answer.members["scope"] == "mesh")
        #expect(
            answer.fields.map { "\($0.name): \($0.value)" } == [
                #"ratelimit-policy: "tokens-per-minute";q=60;w=60"#,
                #"ratelimit: "tokens-per-minute";r=0;t=38"#,
            ])
        // It would not fit into any minute.
        refusal.needed = NanoUSD(61)
        answer = GatewayRefusal(refusal, now: late)
        #expect(answer.retryAfterSeconds == nil)
        #expect(answer.detail.hasSuffix("This request may take 61."))
    }

    @Test func `a chat completion above the tokens of its minute is too many requests`()
        async throws
    {
        let gateway = try ChatGateway()
        let body = #"{"model": "writer", "messages": [{"role": "user", "content": "Up?"}]}"#
        let ledger = TestLedger(tokensMax: 50)
        let transport = TestTransport { _, _ in
            Issue.record("nobody is to be called")
            return .status(500, cost: 0)
        }
        let answer = await gateway.respond(
            to: gateway.request(
                "POST", "/v1/chat/completions", body: body, token: ChatGateway.token),
            ledger: ledger, transport: transport)
        #expect(answer.status == 429 && answer.field("weir-decision") == "rate_limited")
        #expect(answer.field("ratelimit-policy") == #""tokens-per-minute";q=50;w=60"#)
        #expect(ledger.state.withLock { $0.children } == 0)
    }
}
