import Glibc
import Testing
import WeirCore
import WeirLedger

/// Thousands of seeded histories of the ledger. `WEIR_SIM_SEED` and `WEIR_SIM_RUNS` choose which; a
/// failure names the seed that repeats it.
@Suite struct LedgerSimulationTests {
    private static func number(_ name: String) -> UInt64? {
        getenv(name).flatMap { UInt64(String(cString: $0)) }
    }

    @Test func moneyIsExactInEveryHistory() {
        let seed = Self.number("WEIR_SIM_SEED") ?? 1
        let runs = Self.number("WEIR_SIM_RUNS") ?? 50
        var served = 0
        for run in 0..<runs {
            var world = World(seed: seed &+ run)
            do {
                for _ in 0..<150 { try world.step() }
                try world.settleDown()
                served += world.served
            } catch {
                Issue.record("WEIR_SIM_SEED=\(seed &+ run) WEIR_SIM_RUNS=1: \(error)")
                return
            }
        }
        #expect(served > Int(runs), "histories in which nothing happens prove nothing")
    }
}
