import Testing
import WeirCore
import WeirPolicy

@testable import SidecarGateway

@Suite struct CandidateOrderTests {
    private let tier = TierPolicy(
        name: "gold", monthlyBudget: NanoUSD(1), agents: ["dear", "cheap", "middle"])
    private let priced: [(name: String, worstCase: NanoUSD)] = [
        ("dear", NanoUSD(9)), ("cheap", NanoUSD(1)), ("middle", NanoUSD(5)),
    ]

    @Test(
        arguments: [
            (nil, ["dear", "cheap", "middle"], nil), (79, ["dear", "cheap", "middle"], nil),
            (80, ["cheap", "middle", "dear"], "budget_above_80_percent"),
            (94, ["cheap", "middle", "dear"], "budget_above_80_percent"),
            (95, ["cheap"], "budget_above_95_percent"), (100, ["cheap"], "budget_above_95_percent"),
        ] as [(Int?, [String], String?)])
    func tapers(spent: Int?, names: [String], reason: String?) {
        let order = CandidateOrder(priced, tier: tier, spentPercent: spent)
        #expect(order.names == names)
        #expect(order.downgrade?.reason == reason)
        #expect(order.downgrade?.from == (reason == nil ? nil : "dear"))
    }

    private struct WishCase: Sendable {
        var requested: String?
        var preferred: String?
        var optimize: Preferences.Goal?
        var latencies: [String: UInt64] = [:]
        var spent: Int?
        let names: [String]
        var downgrade: String?
    }

    private static let wishes: [WishCase] = [
        WishCase(
            requested: "cheap", names: ["cheap", "dear", "middle"], downgrade: "dear requested"),
        WishCase(
            preferred: "middle", names: ["middle", "dear", "cheap"], downgrade: "dear preferred"),
        WishCase(requested: "dear", preferred: "cheap", names: ["dear", "cheap", "middle"]),
        WishCase(requested: "ghost", names: ["dear", "cheap", "middle"]),
        WishCase(optimize: .quality, names: ["dear", "cheap", "middle"]),
        WishCase(
            optimize: .cost, names: ["cheap", "middle", "dear"], downgrade: "dear optimize_cost"),
        WishCase(
            requested: "middle", optimize: .cost, names: ["middle", "cheap", "dear"],
            downgrade: "dear requested"),
        WishCase(optimize: .latency, names: ["dear", "cheap", "middle"]),
        WishCase(
            optimize: .latency, latencies: ["middle": 5, "dear": 9],
            names: ["middle", "dear", "cheap"], downgrade: "dear optimize_latency"),
        WishCase(
            optimize: .latency, latencies: ["dear": 5, "cheap": 9],
            names: ["dear", "cheap", "middle"]),
        // The budget goes before wishes, and says what would have gone first.
        WishCase(
            requested: "middle", spent: 80, names: ["cheap", "middle", "dear"],
            downgrade: "middle budget_above_80_percent"),
        WishCase(
            requested: "dear", spent: 95, names: ["cheap"],
            downgrade: "dear budget_above_95_percent"),
        WishCase(
            preferred: "cheap", spent: 95, names: ["cheap"], downgrade: "dear preferred"),
    ]

    @Test(arguments: CandidateOrderTests.wishes.indices) func wishesAreMetWithinTheBudget(
        index: Int
    ) {
        let test = Self.wishes[index]
        var wish = CandidateOrder.Wish()
        wish.requested = test.requested
        wish.preferred = test.preferred
        wish.optimize = test.optimize
        wish.latencies = test.latencies
        let order = CandidateOrder(priced, tier: tier, spentPercent: test.spent, wish: wish)
        #expect(order.names == test.names)
        #expect(order.downgrade.map { "\($0.from) \($0.reason)" } == test.downgrade)
    }

    @Test func aWishForADearerAgentIsNoDowngrade() {
        var wish = CandidateOrder.Wish()
        wish.requested = "dear"
        let order = CandidateOrder(
            [("cheap", NanoUSD(1)), ("dear", NanoUSD(9))], tier: tier, spentPercent: nil,
            wish: wish)
        #expect(order.names == ["dear", "cheap"])
        #expect(order.downgrade == nil)
    }

    @Test func latenciesFollowWhatIsMeasured() throws {
        let agent = try #require(try GatewayFixture.policy().agents["mood"])
        let latencies = AgentLatencies()
        #expect(latencies.all.isEmpty)
        latencies.succeeded(agent, nanoseconds: 1_000)
        latencies.succeeded(agent, nanoseconds: 2_000)
        #expect(latencies.all == ["mood": 1_200])
    }

    @Test func theCheapestIsNoDowngradeOfItself() {
        let order = CandidateOrder([("cheap", NanoUSD(1))], tier: tier, spentPercent: 99)
        #expect(order.names == ["cheap"])
        #expect(order.downgrade == nil)
        #expect(CandidateOrder([], tier: tier, spentPercent: 99).names.isEmpty)
    }

    @Test func fallbacksComeBehindAndOnlyWhereTheTierAllows() throws {
        let policy = try GatewayFixture.policy()
        var tier = try GatewayFixture.tier()
        var step = RequestTypePolicy.Step(name: "s", agentsByTier: ["gold": ["writer", "mood"]])
        func names(_ excluded: [String] = []) -> [String] {
            CandidateOrder.names(of: step, tier: tier, policy: policy, excluded: excluded)
        }
        #expect(names() == ["writer", "mood", "scribe"])
        #expect(names(["mood", "scribe"]) == ["writer"])
        // Who is excluded is still what others fall back from.
        #expect(names(["writer"]) == ["mood", "scribe"])
        tier.agents = ["writer", "mood"]
        #expect(names() == ["writer", "mood"])
        step.agentsByTier = [:]
        #expect(names().isEmpty)
    }

    @Test func spentShares() {
        func percent(_ limit: Int64, _ remaining: Int64) -> Int {
            Balance(limit: NanoUSD(limit), remaining: NanoUSD(remaining), resetsAt: nil)
                .spentPercent
        }
        #expect(percent(100, 100) == 0)
        #expect(percent(100, 21) == 79)
        #expect(percent(100, 0) == 100)
        #expect(percent(100, -50) == 100)
        #expect(percent(0, 0) == 100)
        #expect(percent(.max, 0) == 100)
    }
}
