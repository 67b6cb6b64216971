import Testing
import WeirCore

@testable import WeirPolicy

@Suite struct PreferencesTests {
    private let policy: Policy

    init() throws { policy = try PolicyReader.read(try PolicyFixture.documents()) }

    private func read(_ text: String, tier: String = "gold") throws -> Preferences {
        try Preferences(
            reading: try JSON.parse(text), tier: try #require(policy.tiers[tier]), policy: policy)
    }

    private func problems(_ text: String, tier: String = "gold") throws -> [Problem] {
        let value = try JSON.parse(text)
        let tier = try #require(policy.tiers[tier])
        do throws(Problems) {
            _ = try Preferences(reading: value, tier: tier, policy: policy)
            return []
        } catch {
            return error.list
        }
    }

    @Test func readsWhatTheContractSays() throws {
        let text = #"""
            {"prefer": {"prose": "scribe"}, "exclude": ["writer"],
             "max_cost_usd_per_request": "0.25", "optimize": "latency"}
            """#
        let preferences = try read(text)
        #expect(preferences.agentsByStep == ["prose": "scribe"])
        #expect(preferences.excludedAgents == ["writer"])
        #expect(preferences.maxCostPerRequest == NanoUSD(250_000_000))
        #expect(preferences.optimize == .latency)
        #expect(try JSON.decode(Preferences.self, from: preferences.json) == preferences)
        #expect(try read("{}").isEmpty)
    }

    @Test func namesEveryProblemWithItsPlace() throws {
        let found = try problems(
            #"""
            {"prefer": {"prose": "mood", "dance": "mood", "mood": 3}, "exclude": ["mood", "nobody"],
             "max_cost_usd_per_request": 1, "optimize": "fame", "colour": "red"}
            """#)
        #expect(
            found.map(\.path) == [
                "/prefer/mood", "/max_cost_usd_per_request", "/optimize", "/colour", "/exclude/0",
                "/exclude/1", "/prefer/dance", "/prefer/prose",
            ])
        #expect(
            found.first { $0.path == "/exclude/0" }?.message
                == "news could not do its step \"mood\" any more")
        #expect(
            found.first { $0.path == "/prefer/prose" }?.message == "must be one of scribe, writer")
    }

    @Test func theTierDecidesWhatCanBePreferred() throws {
        #expect(try problems(#"{"prefer": {"prose": "writer"}}"#).isEmpty)
        #expect(
            try problems(#"{"prefer": {"prose": "writer"}}"#, tier: "free")
                == [Problem(path: "/prefer/prose", message: "must be one of scribe")])
        #expect(
            try problems(#"{"prefer": {"prose": "writer"}, "exclude": ["writer"]}"#)
                == [Problem(path: "/prefer/prose", message: "\"writer\" is excluded")])
    }

    /// The planned agent may go where its fallback remains, and both together may not.
    @Test func aRequiredStepKeepsAnAgent() throws {
        #expect(try problems(#"{"exclude": ["writer"]}"#).isEmpty)
        #expect(
            try problems(#"{"exclude": ["writer", "scribe"]}"#).map(\.path) == ["/exclude/1"])
    }

    @Test func whatThePolicyNoLongerAllowsIsLeftOut() throws {
        let text = #"""
            {"prefer": {"prose": "writer", "mood": "mood"}, "exclude": ["scribe"],
             "optimize": "cost"}
            """#
        let stored = try read(text)
        let free = try #require(policy.tiers["free"])
        let effective = stored.effective(tier: free, policy: policy)
        // Free has scribe alone for prose, so it can be neither excluded nor replaced.
        #expect(effective.agentsByStep == ["mood": "mood"])
        #expect(effective.excludedAgents.isEmpty)
        #expect(effective.optimize == .cost)
    }
}
