import SidecarCore
import WeirCore
import WeirMeshProtocol

/// Agents as `GET /agents/health` and `GET /stats` show them. Pure.
enum AgentHealthDocument {
    /// What anybody may know.
    static func names(_ agents: [MeshSight.Agent]) -> JSONValue {
        .array(
            agents.map {
                ["name": .string($0.view.name), "state": .string($0.view.state.rawValue)]
            }
        )
    }

    static func detail(_ agents: [MeshSight.Agent]) -> JSONValue { .array(agents.map(detail)) }

    private static func detail(_ agent: MeshSight.Agent) -> JSONValue {
        let view = agent.view
        var object: JSONObject = [
            "name": .string(view.name), "state": .string(view.state.rawValue),
            "since": .string(agent.since.rfc3339),
            "reasons": .array(view.reasons.map(JSONValue.string)),
            "availability": number(agent.availability),
        ]
        write(view.calls, to: &object)
        object["last_error"] = lastError(view.lastError)
        object["endpoints"] = .array(view.endpoints.map(endpoint))
        return .object(object)
    }

    private static func endpoint(_ endpoint: AgentView.Endpoint) -> JSONValue {
        var object: JSONObject = [
            "endpoint": .string(endpoint.address), "state": .string(endpoint.state.rawValue),
        ]
        guard let member = endpoint.member else { return .object(object) }
        object["instance"] = .string(member.instance)
        object["reported_ms_ago"] = .number(JSONNumber(member.silentMilliseconds))
        guard let health = member.health else { return .object(object) }
        object["since"] = (health.since?.rfc3339).map(JSONValue.string)
        object["in_flight"] = .number(JSONNumber(health.requestsInFlight))
        guard let vitals = health.agent else { return .object(object) }
        object["waiting"] = .number(JSONNumber(vitals.waiting))
        object["passes_checks"] = vitals.isHealthy.map(JSONValue.bool)
        object["breakers"] = .array(
            vitals.endpoints.map {
                [
                    "address": .string($0.address), "state": .string($0.breaker.rawValue),
                    "since": .string($0.since.rfc3339),
                ]
            })
        write(vitals.calls, to: &object)
        object["last_error"] = lastError(vitals.lastError)
        return .object(object)
    }

    static func write(_ calls: CallSummary, to object: inout JSONObject) {
        object["window_seconds"] = .number(JSONNumber(calls.windowMilliseconds / 1_000))
        object["successes"] = .number(JSONNumber(calls.successes))
        object["failures"] = .number(JSONNumber(calls.failures))
        object["success_rate"] = calls.successRate.map(number) ?? .null
        writeLatencies(calls.latencies, to: &object)
    }

    static func writeLatencies(_ counts: [Int64], to object: inout JSONObject) {
        for (name, share) in [("p50_ms", 0.5), ("p95_ms", 0.95)] {
            object[name] = LatencyBuckets.quantile(share, of: counts).map(number) ?? .null
        }
    }

    private static func lastError(_ error: LastError?) -> JSONValue {
        guard let error else { return .null }
        return ["reason": .string(error.reason), "at": .string(error.at.rfc3339)]
    }

    /// With three decimals: more would be noise.
    static func number(_ value: Double) -> JSONValue {
        JSONNumber((value * 1_000).rounded() / 1_000).map(JSONValue.number) ?? .null
    }
}
