import WeirCore
import WeirLedger
import WeirPolicy

/// The answer of `POST /analyze` to a request whose plan ran. Pure.
struct AnalysisAnswer {
    let request: AnalyzeRequest
    let requestID: String
    let report: AnalysisReport
    let balance: Balance?
    let policyNumber: Int64
    let now: UnixTime
    /// What would have refused the request, where the caller's tier only observes.
    var observed: [Reason] = []

    func answer() -> GatewayAnswer {
        let fields = self.fields
        switch report.status {
        case .complete: return .json(200, body(status: "complete"), decided(fields))
        case .partial: return .json(200, body(status: "partial"), decided(fields))
        case .failed(let step, let reason):
            return .problem(refusal(step, reason), requestID: requestID, fields)
        }
    }

    // MARK: Success

    private func body(status: String) -> JSONValue {
        [
            "id": .string(requestID), "analysis_type": .string(request.type.name),
            "status": .string(status), "steps": .array(report.steps.map(\.json)), "cost": cost,
            "latency_ms": .number(JSONNumber(report.latencyMilliseconds)),
            "policy_version": .number(JSONNumber(policyNumber)),
        ]
    }

    private var cost: JSONValue {
        var cost: JSONObject = ["total_usd": .string(report.totalCost.usd)]
        if let balance {
            cost["budget_remaining_usd"] = .string(balance.remaining.usd)
            if balance.beyond > .zero { cost["budget_beyond_usd"] = .string(balance.beyond.usd) }
            if let resetsAt = balance.resetsAt { cost["resets_at"] = .string(resetsAt.rfc3339) }
        }
        return .object(cost)
    }

    private func decided(_ fields: [GatewayField]) -> [GatewayField] {
        let decision =
            report.steps.contains { $0.fallback != nil }
            ? "fallback"
            : report.steps.contains { $0.downgrade != nil } ? "downgraded" : "admitted"
        let watched = reasonsObserved.map(\.observedDecision)
        let all = decision == "admitted" && !watched.isEmpty ? watched : [decision] + watched
        return [GatewayField("weir-decision", all.joined(separator: ", "))] + fields
    }

    /// The gateway's own, then those of the agents' sidecars.
    private var reasonsObserved: [Reason] {
        var reasons = observed
        for reason in report.steps.flatMap(\.attempts).compactMap(\.observed)
        where !reasons.contains(reason) {
            reasons.append(reason)
        }
        return reasons
    }

    private var fields: [GatewayField] {
        var fields = [
            GatewayField("weir-cost-usd", report.totalCost.usd),
            GatewayField("cache-control", "no-store"),
        ]
        let served = report.steps.compactMap { step -> AttemptReport? in
            if case .ok = step.end { return step.attempts.last }
            return nil
        }
        if !served.isEmpty {
            fields.append(
                GatewayField("weir-agent", served.map(\.agent).joined(separator: ", ")))
            fields.append(
                GatewayField("weir-model", served.map(\.model).joined(separator: ", ")))
            if served.allSatisfy(\.isCached) { fields.append(GatewayField("weir-cache", "hit")) }
        }
        return fields + (balance?.fields(now: now) ?? [])
    }

    // MARK: Failure

    /// The problem carries what was done and what it cost: it is charged all the same.
    private func refusal(_ name: String?, _ cause: Reason) -> GatewayRefusal {
        let step = report.steps.first { $0.name == name }
        let rate = step?.rateRefusal.map { GatewayRefusal($0, now: now) }
        let reason = rate?.reason ?? cause.ofFailedStep
        var members: JSONObject = [:]
        if let name { members["step"] = .string(name) }
        if cause != reason { members["cause"] = .string(cause.name) }
        var retryAfter: Int64?
        if let refused = step?.ledgerRefusal, reason.isAboutMoney {
            members["account"] = refused.account.map { .string($0.description) }
            members["resets_at"] = refused.resetsAt.map { .string($0.rfc3339) }
        }
        if let rate {
            retryAfter = rate.retryAfterSeconds
            for (name, value) in rate.members.members { members[name] = value }
        }
        if reason.status == 503 { retryAfter = 1 }
        members["steps"] = .array(report.steps.map(\.json))
        members["cost"] = cost
        members["latency_ms"] = .number(JSONNumber(report.latencyMilliseconds))
        members["policy_version"] = .number(JSONNumber(policyNumber))
        let detail = rate?.detail ?? step?.problemDetail ?? reason.title + "."
        var refusal = GatewayRefusal(
            reason, name.map { "Step \($0): \(detail)" } ?? detail, retryAfterSeconds: retryAfter,
            members: members)
        refusal.fields = rate?.fields ?? []
        return refusal
    }
}

extension AnalysisReport {
    /// What the metrics count it as: `complete`, `partial`, or the refusal's reason.
    var outcome: String {
        switch status {
        case .complete: "complete"
        case .partial: "partial"
        case .failed(let name, let reason):
            (steps.first { $0.name == name }?.rateRefusal?.reason ?? reason.ofFailedStep).name
        }
    }
}

extension StepReport {
    /// The caller's own rate, over the whole mesh. That of the agent's sidecar is another matter.
    fileprivate var rateRefusal: LedgerRefusal? {
        ledgerRefusal.flatMap { $0.reason == .rateLimited ? $0 : nil }
    }
}

extension Balance {
    /// What is left, as headers: money, and the daily requests as
    /// draft-ietf-httpapi-ratelimit-headers has it.
    func fields(now: UnixTime) -> [GatewayField] {
        [remainingField] + warningFields + requestFields(now: now)
    }

    /// `weir-budget-warning: user/month 83%, tier/month 91%`.
    var warningFields: [GatewayField] {
        guard !warnings.isEmpty else { return [] }
        let all = warnings.map(\.text).joined(separator: ", ")
        return [GatewayField("weir-budget-warning", all)]
    }

    var remainingField: GatewayField { GatewayField("weir-budget-remaining-usd", remaining.usd) }

    func requestFields(now: UnixTime) -> [GatewayField] {
        guard let requestsLimit, let requestsRemaining else { return [] }
        let seconds = requestsResetAt.map { max(0, $0.seconds - now.seconds) } ?? 86_400
        return [
            GatewayField("ratelimit-policy", "\"daily\";q=\(requestsLimit);w=86400"),
            GatewayField("ratelimit", "\"daily\";r=\(max(0, requestsRemaining));t=\(seconds)"),
        ]
    }
}

extension Reason {
    var isAboutMoney: Bool { self == .budgetExhausted || self == .budgetContended }

    /// How a request ends whose required step failed: 402, 502, 503 or 504 (API.md). What the
    /// agent's own sidecar refuses for is not the caller's doing, so none of it becomes a 4xx.
    var ofFailedStep: Reason {
        switch self {
        case .budgetExhausted, .budgetContended, .circuitOpen, .overloaded, .noEndpoint,
            .controlPlaneLost, .deadline, .upstreamError, .upstreamProtocol:
            self
        case .rateLimited, .concurrency, .quotaExhausted: .overloaded
        case .requestTimeout: .deadline
        case .admitted, .malformed, .duplicateKey, .lengthRequired, .tooLarge, .mediaType,
            .expectation, .invalid, .headersTooLarge, .uriTooLong, .notImplemented, .version,
            .unauthenticated, .tokenExpired, .agentNotAllowed, .unmeteredPath, .forbidden,
            .unknownAgent, .unknownRoute, .method, .idempotencyInFlight, .cancelled, .crashed:
            .upstreamError
        }
    }
}
