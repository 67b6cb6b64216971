import SidecarCore
import Synchronization
import WeirCore
import WeirLedger
import WeirMeshProtocol

/// The process's ledger as the uplink sees it.
package final class SidecarLedgerLink: LedgerLink {
    private let ledger: SidecarLedger
    /// What the control plane has stored of each life. Not kept on disk: what is shipped twice is
    /// stored once.
    private let stored = Mutex<[Incarnation: UInt64]>([:])

    package init(_ ledger: SidecarLedger) { self.ledger = ledger }

    package func takeDemands() -> LedgerDemand { carried(ledger.takeDemands()) }

    package func takeOpening(_ accounts: [AccountTerms]) -> LedgerDemand {
        carried(ledger.takeOpening(accounts))
    }

    private func carried(_ demands: SidecarLedger.Demands) -> LedgerDemand {
        let ledger = self.ledger
        let now = SidecarLedger.bootTime()
        let again = demands.nextAt.map { $0 > now ? $0 - now : 0 }
        return LedgerDemand(request: demands.request, againNanoseconds: again) { response in
            if let response {
                ledger.apply(response, to: demands)
            } else {
                ledger.requestFailed(demands)
            }
        }
    }

    package func recall(_ leases: [LeaseID]) { ledger.recall(leases) }

    package func makeReport(health: SidecarHealth) -> LedgerReporting? {
        let ledger = self.ledger
        guard let reports = ledger.makeReport() else { return nil }
        return LedgerReporting(report: reports.report(health: health)) { response in
            ledger.apply(response, to: reports)
        }
    }

    /// Earlier lives first: their records are older.
    package func recordsToShip() -> [RecordBlock] {
        for incarnation in ledger.recordIncarnations() {
            let after = stored.withLock { $0[incarnation] ?? 0 }
            let blocks = ledger.recordBlocks(of: incarnation, after: after)
            if !blocks.isEmpty { return blocks }
        }
        return []
    }

    package func recordsStored(of incarnation: Incarnation, through sequence: UInt64) {
        stored.withLock { $0[incarnation] = max($0[incarnation] ?? 0, sequence) }
        ledger.recordsStored(of: incarnation, through: sequence)
    }
}
