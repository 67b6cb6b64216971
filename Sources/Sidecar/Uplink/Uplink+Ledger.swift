import SidecarCore
import WeirCore
import WeirLedger
import WeirMeshProtocol

// Leases, reports and records: three tasks, each with at most one message under way.

extension Uplink {
    /// Demands that arrive together travel together: one message at a time, and a millisecond to
    /// gather what the other workers want.
    func carryLeases() async {
        var pauseNanoseconds = UplinkLimits.reportNanoseconds
        while !isStopping {
            await leaseSignal.wait(atMostNanoseconds: pauseNanoseconds)
            pauseNanoseconds = UplinkLimits.reportNanoseconds
            guard !isStopping, isReady, let ledger else { continue }
            await pause(nanoseconds: UplinkLimits.leaseBatchNanoseconds)
            let demand = ledger.takeDemands()
            if let again = demand.againNanoseconds {
                pauseNanoseconds = min(pauseNanoseconds, max(again, 1_000_000))
            }
            guard !demand.isEmpty else { continue }
            switch await acquire(demand) {
            // What came up meanwhile is asked for at once.
            case .granted: break
            // Some of what is set aside may be spent by now, here, and not said yet: the store
            // counts it as held until a report. So report, then ask again.
            case .contended: _ = await report(ledger)
            case .failed: await pause(nanoseconds: UplinkLimits.retryNanoseconds)
            }
            leaseSignal.notify()
        }
    }

    private enum Acquired { case granted, contended, failed }

    private func acquire(_ demand: LedgerDemand) async -> Acquired {
        do {
            let response = try await post(
                MeshPath.leases, demand.request, answer: LeasesResponse.self)
            guard response.grants.count == demand.request.acquire.count else {
                throw MeshError.notUnderstood("as many grants as acquires are needed")
            }
            demand.answered(response)
            accounted()
            return response.grants.contains { $0.status == .contended } ? .contended : .granted
        } catch {
            demand.answered(nil)
            hooks.log.warning("leases failed", ("error", describe(error)))
            return .failed
        }
    }

    /// Every second, and soon after a change that others wait for.
    func carryReports() async {
        while !isStopping {
            await reportSignal.wait(atMostNanoseconds: UplinkLimits.reportNanoseconds)
            guard !isStopping, isReady, let ledger else { continue }
            if await report(ledger) == false {
                await pause(nanoseconds: UplinkLimits.retryNanoseconds)
            }
            // Bounds the rate: changes in a row make one report.
            await pause(nanoseconds: UplinkLimits.reportSoonNanoseconds)
        }
    }

    func report(_ ledger: any LedgerLink) async -> Bool {
        guard let reporting = ledger.makeReport(health: hooks.health()) else { return false }
        do {
            let response = try await post(
                MeshPath.report, reporting.report, answer: ReportResponse.self)
            reporting.answered(response)
            accounted()
            // Finals that came are acknowledged by the next report, which also has the answers to
            // inquiries and says what was disowned.
            if !response.finals.isEmpty || !response.unknown.isEmpty
                || !response.inquiries.isEmpty
            {
                reportSignal.notify()
            }
            return true
        } catch {
            hooks.log.warning("report failed", ("error", describe(error)))
            return false
        }
    }

    private func accounted() {
        publish { $0.accountedNanoseconds = loop.nowNanoseconds }
    }

    func shipRecords() async {
        while !isStopping {
            await recordSignal.wait(atMostNanoseconds: UplinkLimits.recordNanoseconds)
            guard !isStopping, isReady, let ledger else { continue }
            let blocks = ledger.recordsToShip()
            guard !blocks.isEmpty else { continue }
            if await ship(blocks, ledger) {
                recordSignal.notify()
            } else {
                await pause(nanoseconds: UplinkLimits.retryNanoseconds)
            }
        }
    }

    func ship(_ blocks: [RecordBlock], _ ledger: any LedgerLink) async -> Bool {
        var writer = ByteWriter(capacity: 64 * 1024)
        for block in blocks.prefix(MeshLimits.blocksPerMessageMax) { block.append(to: &writer) }
        do {
            let body = try await send(
                "POST", MeshPath.records, writer.bytes, contentType: "application/octet-stream")
            let response = try JSON.decode(RecordsResponse.self, from: body)
            if let incarnation = blocks.first?.incarnation {
                ledger.recordsStored(of: incarnation, through: response.storedThrough)
            }
            return true
        } catch {
            hooks.log.warning("records failed", ("error", describe(error)))
            return false
        }
    }
}
