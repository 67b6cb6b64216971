import Glibc
import LedgerSimulation
import WeirLedger

/// Runs histories of the ledger: `LedgerSimulator --seeds N --from S [--threads T]
/// [--plant FAULT]`; `--faults` lists the faults. Exit code 1: a history broke an invariant, and
/// its seed is printed.
@main
struct SimulatorCommand {
    var seeds = 1_000
    var first: UInt64 = 1
    var threads = 2

    static func main() async {
        if CommandLine.arguments.dropFirst() == ["--faults"] {
            return print(PlantedFault.allCases.map(\.rawValue).joined(separator: "\n"))
        }
        guard let command = SimulatorCommand(arguments: CommandLine.arguments.dropFirst()) else {
            print("usage: LedgerSimulator [--seeds N] [--from S] [--threads T] [--plant FAULT]")
            exit(64)
        }
        exit(await command.run() ? 0 : 1)
    }

    init?(arguments: ArraySlice<String>) {
        var rest = arguments
        while let name = rest.popFirst() {
            guard let value = rest.popFirst() else { return nil }
            switch name {
            case "--seeds":
                guard let number = Int(value), number > 0 else { return nil }
                seeds = number
            case "--from":
                guard let number = UInt64(value) else { return nil }
                first = number
            case "--threads":
                guard let number = Int(value), (1...256).contains(number) else { return nil }
                threads = number
            case "--plant":
                guard plant(value) else { return nil }
            default: return nil
            }
        }
    }

    private func plant(_ name: String) -> Bool {
        #if WEIR_PLANTED_FAULTS
            guard let fault = PlantedFault(rawValue: name) else { return false }
            plantedFault = fault
            return true
        #else
            return false
        #endif
    }

    /// Of enough histories, at least one saw each kind of fault: otherwise they prove less than
    /// they say.
    private func hasHitEverything(_ histories: Histories) -> Bool {
        let missing = FaultKind.allCases.filter { histories.faults[$0] == 0 }
        guard histories.count >= 1_000, !missing.isEmpty else { return true }
        print("never happened: \(missing)")
        return false
    }

    func run() async -> Bool {
        let clock = ContinuousClock()
        let began = clock.now
        let histories = await Histories.run(from: first, count: seeds, threads: threads)
        let seconds = (clock.now - began) / .seconds(1)
        let hit = FaultKind.allCases.map { "\($0) \(histories.faults[$0])" }
        print(
            "\(histories.count) histories, \(histories.events) events, "
                + "\(histories.served) requests served, "
                + "\(Int(Double(histories.count) * 60 / max(seconds, 0.001))) seeds a minute")
        print(hit.joined(separator: ", "))
        guard let failure = histories.failure else { return hasHitEverything(histories) }
        print("seed \(failure.seed): \(failure.violation)")
        return false
    }
}
