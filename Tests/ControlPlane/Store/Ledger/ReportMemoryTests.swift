import Testing
import WeirCore
import WeirLedger

@testable import ControlPlaneStore

@Suite struct ReportMemoryTests {
    private static let holder = Incarnation(1)
    private static let start: UInt64 = 1_000_000_000_000

    private static func said(_ user: String, consumed: Int64) -> [LeaseGroup: [LeaseCounters]] {
        let account = AccountKey(
            unit: .usd, scope: .user, period: Period(.forever, at: UnixTime(seconds: 0)), id: user)
        let counters = LeaseCounters(
            lease: LeaseID(incarnation: holder, number: 1), account: account,
            consumed: NanoUSD(consumed), released: .zero, granted: NanoUSD(100))
        return [LeaseGroup(account: account, incarnation: holder): [counters]]
    }

    private func memory(of groups: [LeaseGroup: [LeaseCounters]]) -> ReportMemory {
        var memory = ReportMemory()
        memory.merged(groups, of: Self.holder, epoch: 7, now: Self.start)
        return memory
    }

    @Test func whatIsSaidAgainIsPassedOverForAWhile() {
        let groups = Self.said("ann", consumed: 5)
        let memory = memory(of: groups)
        let soon = Self.start + StoreLimits.unchangedNanoseconds - 1
        #expect(memory.news(in: groups, of: Self.holder, epoch: 7, now: soon).isEmpty)
        #expect(memory.news(in: groups, of: Self.holder, epoch: 7, now: soon + 1) == groups)
        #expect(memory.news(in: groups, of: Incarnation(2), epoch: 7, now: soon) == groups)
    }

    @Test func whatChangedIsNews() {
        let memory = memory(of: Self.said("ann", consumed: 5))
        let more = Self.said("ann", consumed: 6)
        let other = Self.said("bob", consumed: 5)
        #expect(memory.news(in: more, of: Self.holder, epoch: 7, now: Self.start) == more)
        #expect(memory.news(in: other, of: Self.holder, epoch: 7, now: Self.start) == other)
    }

    /// Rule 12: what was said to a store that lost it has to be said again.
    @Test func everythingIsNewsToANewEpoch() {
        let groups = Self.said("ann", consumed: 5)
        var memory = memory(of: groups)
        #expect(memory.news(in: groups, of: Self.holder, epoch: 8, now: Self.start) == groups)
        memory.merged(Self.said("bob", consumed: 1), of: Self.holder, epoch: 8, now: Self.start)
        #expect(memory.news(in: groups, of: Self.holder, epoch: 8, now: Self.start) == groups)
    }

    /// Of an account that is not listed the answer says which leases the holder does not know.
    @Test func accountsWithoutLeasesAreAlwaysNews() throws {
        let listed = Self.said("ann", consumed: 5)
        let group = try #require(listed.keys.first)
        let memory = memory(of: [group: []])
        let groups: [LeaseGroup: [LeaseCounters]] = [group: []]
        #expect(memory.news(in: groups, of: Self.holder, epoch: 7, now: Self.start) == groups)
    }

    @Test func aFullMemoryBeginsAnew() {
        var memory = ReportMemory(accountsMax: 1)
        let ann = Self.said("ann", consumed: 5)
        memory.merged(ann, of: Self.holder, epoch: 7, now: Self.start)
        memory.merged(Self.said("bob", consumed: 5), of: Self.holder, epoch: 7, now: Self.start)
        #expect(memory.news(in: ann, of: Self.holder, epoch: 7, now: Self.start) == ann)
    }
}
