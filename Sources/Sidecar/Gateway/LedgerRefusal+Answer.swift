import SidecarCore
import WeirCore
import WeirLedger

extension GatewayRefusal {
    /// A refusal of the ledger as the caller sees it: which account, and when there is more.
    init(_ refusal: LedgerRefusal, now: UnixTime) {
        self.init(refusal.reason, refusal.reason.title + ".")
        members["account"] = refusal.account.map { .string($0.description) }
        members["resets_at"] = refusal.resetsAt.map { .string($0.rfc3339) }
        switch refusal.reason.status {
        case 429: retryAfterSeconds = refusal.resetsAt.map { max(1, $0.seconds - now.seconds) }
        case 503: retryAfterSeconds = 1
        default: retryAfterSeconds = nil
        }
        if refusal.reason == .rateLimited { say(refusal, now) }
    }

    /// Of a rate over the whole mesh: the quota of a minute, and when the next one begins.
    private mutating func say(_ refusal: LedgerRefusal, _ now: UnixTime) {
        guard let account = refusal.account, let end = account.period.end else { return }
        members["scope"] = "mesh"
        // Without a time when there is more, all of it is set aside elsewhere and may come back.
        retryAfterSeconds = retryAfterSeconds ?? 1
        guard let limit = refusal.limit?.rawValue else { return }
        let unit = account.unit.rawValue
        detail = "Your tier allows \(limit) \(unit) per minute at all gateways together."
        if let needed = refusal.needed?.rawValue, needed > limit {
            detail += " This request may take \(needed)."
            // However long the caller waits.
            retryAfterSeconds = nil
        }
        let seconds = max(1, end.seconds - now.seconds)
        fields = [
            GatewayField("ratelimit-policy", "\"\(unit)-per-minute\";q=\(limit);w=60"),
            GatewayField("ratelimit", "\"\(unit)-per-minute\";r=0;t=\(seconds)"),
        ]
    }
}
