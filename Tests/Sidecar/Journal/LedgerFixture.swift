import Glibc
import SidecarCore
import WeirCore
import WeirLedger
import WeirMeshProtocol

func ledgerTerms(_ user: String = "alice", limit: Int64 = 1_000_000) -> AccountTerms {
    AccountTerms(
        key: AccountKey(
            unit: .usd, scope: .user,
            period: Period(.month, at: UnixTime(seconds: 1_772_323_200)), id: user),
        limit: NanoUSD(limit), maxLease: NanoUSD(limit), policyNumber: 1)
}

func ledgerChild(_ number: Int64, of issuer: Int64 = 7) -> ChildKey {
    ChildKey(lease: LeaseID(incarnation: Incarnation(issuer), number: 1), child: number)
}

func ledgerRecord(cost: Int64, paidBy key: ChildKey, reserved: Int64) -> AttemptRecord {
    var record = AttemptRecord()
    record.paidBy = key
    record.reserved = NanoUSD(reserved)
    record.cost = NanoUSD(cost)
    record.status = 200
    record.source = .reported
    return record
}

let ledgerNames = RecordNames(
    subject: "alice", tier: "premium", agent: "finbert", model: "finbert-tone",
    requestType: "news_analysis")

/// Answers every acquire in full, as a store with enough money does.
func grantAll(_ ledger: SidecarLedger) {
    let demands = ledger.takeDemands()
    let grants = demands.request.acquire.map { acquire in
        LeaseGrant(
            lease: acquire.lease, status: .granted, granted: acquire.want,
            expiresInMilliseconds: 60_000,
            state: AccountState(
                account: acquire.account, limit: NanoUSD(1_000_000), consumed: .zero,
                consumedByOthers: .zero, held: acquire.want, resetsAtMilliseconds: nil))
    }
    ledger.apply(LeasesResponse(grants: grants), to: demands)
}

func openLedger(_ folder: TemporaryFolder) throws -> SidecarLedger {
    try SidecarLedger(SidecarLedger.Configuration(directory: folder.path))
}

/// Until the helper thread has prepared segments ahead, for at most 20 ms: on a full disk it never
/// will.
func waitForSegments(_ ledger: SidecarLedger) {
    let deadline = SidecarLedger.bootTime() + 20_000_000
    while ledger.gauges().bytesReady < 1 << 20, SidecarLedger.bootTime() < deadline {
        sched_yield()
    }
}
