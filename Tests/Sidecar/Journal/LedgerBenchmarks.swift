import CLinux
import Glibc
import SidecarCore
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

/// What ledger and log cost a request: reserved, opened in the log, settled by a record.
/// Only means something in a release build: `WEIR_BENCH=1 swift test -c release --filter
/// LedgerBenchmarks`.
@Suite(.enabled(if: getenv("WEIR_BENCH") != nil)) struct LedgerBenchmarks {
    @Test func reserveAndSettle() throws {
        let folder = TemporaryFolder()
        var configuration = SidecarLedger.Configuration(directory: folder.path)
        configuration.isStandalone = true
        configuration.bytesKept = 16 << 20
        let ledger = try SidecarLedger(configuration)
        try ledger.beginStandalone()
        ledger.grantLocally(ledgerTerms(), amount: NanoUSD(1 << 50))
        let payer = try #require(ledger.payer(for: [ledgerTerms()]))
        for full in [false, true] {
            var template = ledgerRecord(cost: 7, paidBy: ledgerChild(0), reserved: 10)
            if full {
                template.digests = AttemptRecord.Digests(
                    input: Digest(words: 1, 1, 1, 1), output: Digest(words: 2, 2, 2, 2))
            }
            var best = Double.infinity
            for _ in 0..<20 {
                let start = nanoseconds()
                for _ in 0..<2_000 { try one(ledger, payer, template) }
                best = min(best, Double(nanoseconds() - start) / 2_000)
                waitForSegments(ledger)
            }
            print("reserve + open + settle, \(full ? 304 : 176) byte records: \(best) ns")
        }
    }

    private func one(
        _ ledger: SidecarLedger, _ payer: Payer, _ template: AttemptRecord
    ) throws {
        guard
            case .reserved(let reservation) = ledger.reserve(
                payer, worstCase: NanoUSD(10), least: .zero),
            let key = ledger.open(reservation)
        else {
            Issue.record("not reserved: \(ledger.gauges())")
            return
        }
        var record = template
        record.paidBy = key
        ledger.settle(reservation, record: record, names: ledgerNames)
    }

    private func nanoseconds() -> UInt64 {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
    }
}
