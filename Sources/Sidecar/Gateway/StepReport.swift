import WeirCore
import WeirLedger

/// One call that a step made, or was not allowed to make.
package struct AttemptReport: Hashable, Sendable {
    package var agent: String
    package var model: String
    /// Of the agent, where its sidecar says one.
    package var version: String?
    package var outcome: Reason
    package var cost: NanoUSD
    package var source: CostSource
    /// What the agent's own calls for this one cost, beside `cost`.
    package var callsCost = NanoUSD.zero
    /// What would have refused it, where the policy only observes.
    package var observed: Reason?
    /// Nobody was called: the answer was kept from an earlier request.
    package var isCached = false
    /// Its sidecar's last word was that nothing went wrong, and what it cost.
    package var isSettledWell = false

    package init(
        agent: String, model: String, outcome: Reason, cost: NanoUSD = .zero,
        source: CostSource = .none
    ) {
        self.agent = agent
        self.model = model
        self.outcome = outcome
        self.cost = cost
        self.source = source
    }

    package var totalCost: NanoUSD { cost + callsCost }
}

/// What came of a step, for the answer.
package struct StepReport: Hashable, Sendable {
    package struct Fallback: Hashable, Sendable {
        package var from: String
        package var reason: Reason
    }

    package var name: String
    package var end: PlanProgress.End
    package var attempts: [AttemptReport] = []
    package var latencyMilliseconds: Int64 = 0
    package var fallback: Fallback?
    package var downgrade: CandidateOrder.Downgrade?
    package var problemDetail: String?
    /// The ledger's own words, where money was the reason.
    package var ledgerRefusal: LedgerRefusal?

    package init(name: String, end: PlanProgress.End) {
        self.name = name
        self.end = end
    }

    package var cost: NanoUSD { attempts.reduce(.zero) { $0 + $1.totalCost } }

    /// The least certain of the attempts' sources.
    package var source: CostSource {
        attempts.map(\.source).max { $0.rawValue < $1.rawValue } ?? .none
    }
}

extension StepReport {
    /// As `POST /analyze` answers it.
    package var json: JSONValue {
        var object: JSONObject = ["name": .string(name)]
        if let last = attempts.last {
            object["agent"] = .string(last.agent)
            object["model"] = .string(last.model)
        }
        object["status"] = .string(status)
        if case .ok(let result) = end { object["result"] = result }
        object["latency_ms"] = .number(JSONNumber(latencyMilliseconds))
        object["cost_usd"] = .string(cost.usd)
        if source != .none { object["cost_source"] = .string(source.name) }
        object["attempts"] = .array(attempts.map(\.json))
        if let fallback {
            object["fallback"] = [
                "from": .string(fallback.from), "reason": .string(fallback.reason.name),
            ]
        }
        if let downgrade {
            object["downgrade"] = [
                "from": .string(downgrade.from), "reason": .string(downgrade.reason),
            ]
        }
        object["problem"] = problem
        return .object(object)
    }

    private var status: String {
        switch end {
        case .ok: "ok"
        case .failed, .cancelled: "failed"
        case .skipped: "skipped"
        }
    }

    private var problem: JSONValue? {
        switch end {
        case .ok: return nil
        case .failed(let reason): return problem(reason, problemDetail)
        case .cancelled: return problem(.cancelled, problemDetail)
        case .skipped(let skip):
            return ["title": "The step was skipped", "detail": .string(skip.detail)]
        }
    }

    private func problem(_ reason: Reason, _ detail: String?) -> JSONValue {
        var object: JSONObject = [
            "reason": .string(reason.name), "title": .string(reason.title),
        ]
        if let detail { object["detail"] = .string(detail) }
        return .object(object)
    }
}

extension PlanProgress.Skip {
    var detail: String {
        switch self {
        case .notInTier: "The caller's tier does not have this step."
        case .excluded: "The caller's preferences exclude every agent of this step."
        case .inputAbsent(let name): "There is no \(name)."
        case .dependency(let name): "It depends on \(name), which failed."
        case .ended: "The request ended before it began."
        }
    }
}

extension AttemptReport {
    fileprivate var json: JSONValue {
        var object: JSONObject = [
            "agent": .string(agent), "model": .string(model),
            "outcome": .string(outcome == .admitted ? "ok" : outcome.name),
            "cost_usd": .string(cost.usd),
        ]
        object["version"] = version.map { .string($0) }
        if source != .none { object["cost_source"] = .string(source.name) }
        if callsCost > .zero { object["calls_cost_usd"] = .string(callsCost.usd) }
        if let observed { object["observed"] = .string(observed.name) }
        if isCached { object["cached"] = true }
        return .object(object)
    }
}
