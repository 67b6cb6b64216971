import Testing
import WeirPolicy

@testable import SidecarGateway

@Suite struct VersionSplitTests {
    private static func agent(_ weights: [(String, Int)]) -> AgentPolicy {
        var agent = AgentPolicy(name: "llama", wireProtocol: .openai, path: "/", models: [])
        agent.versions = weights.map { .init(name: $0.0, weight: $0.1) }
        return agent
    }

    private static func users(of version: String, _ agent: AgentPolicy) -> Set<String> {
        Set(
            (0..<10_000).map { "user-\($0)" }.filter {
                VersionSplit.order(agent, user: $0).first == version
            })
    }

    @Test func weightsAreSharesOfUsers() {
        let agent = Self.agent([("stable", 90), ("canary", 10)])
        let canary = Self.users(of: "canary", agent)
        #expect((900...1_100).contains(canary.count), "\(canary.count)")
        #expect(canary == Self.users(of: "canary", agent), "the same every time")
    }

    @Test func whoHasTheNewVersionKeepsIt() {
        let before = Self.users(of: "canary", Self.agent([("stable", 90), ("canary", 10)]))
        let after = Self.users(of: "canary", Self.agent([("stable", 50), ("canary", 50)]))
        #expect(before.isSubset(of: after))
        #expect((4_800...5_200).contains(after.count), "\(after.count)")
    }

    @Test func theOthersFollowByWeight() {
        let agent = Self.agent([("a", 1), ("off", 0), ("b", 5), ("c", 3)])
        for user in 0..<50 {
            let order = VersionSplit.order(agent, user: "\(user)")
            #expect(Set(order) == ["a", "b", "c"])
            let rest = order.dropFirst()
            #expect(Array(rest) == ["b", "c", "a"].filter { $0 != order[0] })
        }
        #expect(VersionSplit.order(Self.agent([]), user: "alice") == [])
    }
}
