import Testing
import WeirCore
import WeirPolicy

/// The policy that ships, against what the platform's service promised its users.
struct ShippedPolicyTests {
    private func policy() throws -> Policy {
        try PolicyReader.read(try SamplePolicy.documents())
    }

    @Test func tiersHaveThePlatformsLimits() throws {
        let promised: [(tier: String, dollars: Int64, daily: Int64?)] = [
            ("free", 5, 100), ("premium", 100, 1_000), ("enterprise", 1_000, nil),
        ]
        let policy = try policy()
        #expect(Set(policy.tiers.keys) == Set(promised.map(\.tier)))
        for (name, dollars, daily) in promised {
            let tier = try #require(policy.tiers[name])
            #expect(tier.monthlyBudget == NanoUSD(dollars * NanoUSD.nanoPerUSD))
            #expect(tier.dailyRequests == daily)
        }
        #expect(policy.tiers["free"]?.agents.contains("gpt4-turbo") == false)
        #expect(policy.tiers["premium"]?.agents.contains("gpt4-turbo") == true)
        #expect(Set(policy.tiers["enterprise"]?.agents ?? []) == Set(policy.agents.keys))
    }

    @Test func typesOfAnalysisHaveThePlatformsAgents() throws {
        let promised: [String: Set<String>] = [
            "news_analysis": ["finbert", "llama2-7b"],
            "options_recommendation": ["gpt4-turbo", "risk"],
            "price_prediction": ["tft", "llama2-7b"],
            "portfolio_analysis": ["risk", "finbert", "llama2-7b"],
            "comprehensive_analysis": ["finbert", "gpt4-turbo", "llama2-7b", "tft", "risk"],
        ]
        let policy = try policy()
        #expect(Set(policy.requestTypes.keys) == Set(promised.keys))
        for (name, agents) in promised {
            let type = try #require(policy.requestTypes[name])
            let used = type.steps.reduce(into: Set<String>()) {
                $0.formUnion($1.agentsByTier["premium"] ?? [])
            }
            #expect(used.isSuperset(of: agents), "\(name) uses \(used)")
        }
    }
}
