import Glibc
import LedgerSimulation
import Testing
import WeirLedger

/// Seeded histories of the ledger. A failure names the seed that repeats it:
/// `scripts/simulate --from SEED --seeds 1`.
@Suite(.serialized) struct LedgerSimulationTests {
    #if DEBUG
        private static let seedCount = 20
    #else
        private static let seedCount = 1_500
    #endif

    @Test func `money is exact in every history, and every kind of fault happens`() async {
        let histories = await Histories.run(from: 1, count: Self.seedCount, threads: 2)
        if let failure = histories.failure {
            Issue.record("scripts/simulate --from \(failure.seed) --seeds 1: \(failure.violation)")
        }
        #expect(histories.count == Self.seedCount)
        #expect(histories.events >= Self.seedCount * 2_000)
        #expect(histories.served > Self.seedCount * 50, "idle histories prove nothing")
        #if !DEBUG
            for kind in FaultKind.allCases {
                #expect(histories.faults[kind] > 0, "\(kind) never happened")
            }
        #endif
    }

    #if WEIR_PLANTED_FAULTS
        @Test(arguments: PlantedFault.allCases)
        func `a planted fault is found`(fault: PlantedFault) async {
            plantedFault = fault
            defer { plantedFault = nil }
            let histories = await Histories.run(from: 1, count: 3_000, threads: 2)
            #expect(histories.failure != nil, "\(fault) passes \(histories.count) histories")
        }
    #endif
}
