import LedgerSimulation
import Testing

/// A few seeded histories of the ledger, in the build that all tests are in. Many more, and every
/// planted fault: `scripts/simulate`. A failure names the seed that repeats it.
@Suite struct LedgerSimulationTests {
    @Test func `money is exact in every history`() async {
        let seeds = 20
        let histories = await Histories.run(from: 1, count: seeds, threads: 2)
        if let failure = histories.failure {
            Issue.record("scripts/simulate --from \(failure.seed) --seeds 1: \(failure.violation)")
        }
        #expect(histories.count == seeds)
        #expect(histories.events >= seeds * 2_000)
        #expect(histories.served > seeds * 20, "idle histories prove nothing")
    }

    @Test func `a seed is one history`() async {
        let first = await Histories.run(from: 7, count: 1, threads: 1)
        let again = await Histories.run(from: 7, count: 1, threads: 1)
        #expect(first.served == again.served)
        #expect(FaultKind.allCases.allSatisfy { first.faults[$0] == again.faults[$0] })
    }
}
