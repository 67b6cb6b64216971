import SidecarCore
import WeirCore
import WeirLedger
import WeirMeshProtocol

// Leases, reports and records: three tasks, each with at most one message under way.

extension Uplink {
    /// Demands that arrive together travel together: one message at a time, and a millisecond to
    /// gather what the other workers want.
    func carryLeases() async {
        while !isStopping {
            await leaseSignal.wait(atMostNanoseconds: UplinkLimits.reportNanoseconds)
            guard isReady, let ledger else { continue }
            await pause(nanoseconds: UplinkLimits.leaseBatchNanoseconds)
            var request = ledger.takeDemands()
            while !request.acquire.isEmpty || !request.release.isEmpty {
                guard await acquire(request, ledger) else {
                    await pause(nanoseconds: UplinkLimits.retryNanoseconds)
                    leaseSignal.notify()
                    break
                }
                request = ledger.takeDemands()
            }
        }
    }

    private func acquire(_ request: LeasesRequest, _ ledger: any LedgerLink) async -> Bool {
        do {
            let response = try await post(
                MeshPath.leases, request, answer: LeasesResponse.self)
            guard response.grants.count == request.acquire.count else {
                throw MeshError.notUnderstood("as many grants as acquires are needed")
            }
            ledger.leasesAnswered(request, response)
            return true
        } catch {
            ledger.leasesLost(request)
            hooks.log.warning("leases failed", ("error", describe(error)))
            return false
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
        let report = ledger.makeReport(health: hooks.health())
        do {
            let response = try await post(MeshPath.report, report, answer: ReportResponse.self)
            ledger.reportAnswered(report, response)
            // Finals that came are acknowledged by the next report; releases travel with leases.
            if !response.finals.isEmpty || !response.unknown.isEmpty { reportSignal.notify() }
            if !response.recalls.isEmpty { leaseSignal.notify() }
            return true
        } catch {
            hooks.log.warning("report failed", ("error", describe(error)))
            return false
        }
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
            ledger.recordsStored(through: response.storedThrough)
            return true
        } catch {
            hooks.log.warning("records failed", ("error", describe(error)))
            return false
        }
    }
}
