import Testing
import WeirPolicy

@testable import SidecarCore

private let second: UInt64 = 1_000_000_000

/// By reference, because the test macros cannot call what changes a value.
private final class Budget {
    private var budget: RetryBudget

    init(percent: Int, perSecond: Int) {
        var settings = AgentPolicy.Retry()
        settings.budgetPercent = percent
        settings.budgetPerSecond = perSecond
        budget = RetryBudget(settings)
    }

    func requestStarted(now: UInt64) { budget.requestStarted(now: now) }
    func takeRetry(now: UInt64) -> Bool { budget.takeRetry(now: now) }
}

@Suite struct RetryBudgetTests {
    @Test func requestsPayForAShare() {
        let budget = Budget(percent: 20, perSecond: 0)
        #expect(!budget.takeRetry(now: 0))
        for _ in 0..<50 { budget.requestStarted(now: 0) }
        let granted = (0..<50).count { _ in budget.takeRetry(now: 0) }
        #expect(granted == 10)
        #expect(!budget.takeRetry(now: 60 * second), "requests of long ago pay for nothing")
    }

    @Test func aFewASecondAreFree() {
        let budget = Budget(percent: 0, perSecond: 1)
        let atOnce = (0..<50).count { _ in budget.takeRetry(now: 0) }
        #expect(atOnce == 7, "what a few seconds allow")
        #expect(!budget.takeRetry(now: second / 10))
        #expect(budget.takeRetry(now: 20 * second))
        let none = Budget(percent: 0, perSecond: 0)
        #expect(!none.takeRetry(now: 0))
    }

    /// Whatever the order, retries stay within the share and the allowance.
    @Test(arguments: 1...20 as ClosedRange<UInt64>)
    func aFailingAgentIsNotAskedMuchMore(_ seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let budget = Budget(percent: 20, perSecond: 1)
        var now: UInt64 = 0
        var (requests, retries) = (0, 0)
        for _ in 0..<20_000 {
            now += random.next() % (second / 100)
            budget.requestStarted(now: now)
            requests += 1
            // Every request fails, and wants as many retries as it can get.
            for _ in 0..<3 where budget.takeRetry(now: now) { retries += 1 }
        }
        let most = 0.2 * Double(requests) + 1.5 * Double(now) / 1e9 + 8
        #expect(Double(retries) <= most, "seed \(seed): \(retries) of \(requests)")
        #expect(Double(retries) > 0.15 * Double(requests), "seed \(seed): it is used")
    }
}
