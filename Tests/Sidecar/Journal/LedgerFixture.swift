import SidecarCore
import WeirCore
import WeirLedger
import WeirMeshProtocol

func accountTerms(_ user: String = "alice", limit: Int64 = 1_000_000) -> AccountTerms {
    AccountTerms(
        key: AccountKey(
            unit: .usd, scope: .user,
            period: Period(.month, at: UnixTime(CivilDate(year: 2026, month: 3, day: 1))), id: user),
        limit: NanoUSD(limit), maxLease: NanoUSD(limit), policyNumber: 1)
}

func child(_ number: Int64, of issuer: Int64 = 7) -> ChildKey {
    ChildKey(lease: LeaseID(incarnation: Incarnation(issuer), number: 1), child: number)
}

func record(cost: Int64, paidBy key: ChildKey, reserved: Int64) -> AttemptRecord {
    var record = AttemptRecord()
    record.paidBy = key
    record.reserved = NanoUSD(reserved)
    record.cost = NanoUSD(cost)
    record.status = 200
    record.source = .reported
    return record
}

let names = RecordNames(
    subject: "alice", tier: "premium", agent: "finbert", model: "finbert-tone",
    requestType: "news_analysis")

/// Answers every acquire in full, as a store with enough money does.
func grant(_ ledger: SidecarLedger) {
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

func open(_ folder: TemporaryFolder) throws -> SidecarLedger {
    try SidecarLedger(SidecarLedger.Configuration(directory: folder.path))
}
