import ControlPlaneStore
import HTTPTypes
import Hummingbird
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// `GET /v1/sidecars`: who is in the mesh, who runs which policy, and what those that refused one
/// said.
struct SidecarsAPI: Sendable {
    let services: ControlPlaneServices

    func addRoutes(to table: RouteTable) { table.add("/v1/sidecars", [.get: list]) }

    private func list(_ request: Request, _ context: ServerContext) async throws -> Response {
        let active = try await services.policies.currentVersion()
        let now = try await services.redis.time()
        let statuses = try await services.sidecars.list()
            .sorted { ($0.agent ?? "", $0.incarnation) < ($1.agent ?? "", $1.incarnation) }
        var object: JSONObject = [:]
        object["policy"] = active.map(PolicyAPI.json)
        object["sidecars"] = .array(statuses.map { Self.json($0, active: active, now: now) })
        return .json(.object(object))
    }

    static func json(
        _ status: SidecarStatus, active: PolicyVersion?, now: UnixTime
    ) -> JSONValue {
        let silence = now.milliseconds - status.seenAt.milliseconds
        var object: JSONObject = [
            "incarnation": .number(JSONNumber(status.incarnation.rawValue)),
            "role": .string(status.role.rawValue), "instance": .string(status.instance),
        ]
        object["agent"] = status.agent.map { .string($0) }
        object["agent_version"] = status.agentVersion.map { .string($0) }
        object["endpoint"] = status.endpoint.map { .string($0) }
        object["joined_at"] = .string(status.joinedAt.rfc3339)
        object["last_report_at"] = .string(status.seenAt.rfc3339)
        object["connected"] = .bool(silence < StoreLimits.endpointFreshMilliseconds)
        object["policy"] = policy(status.ack, active: active)
        object["health"] = status.health.map(health)
        object["alarm"] = status.alarm.map { .string($0) }
        return .object(object)
    }

    private static func policy(_ ack: PolicyAck?, active: PolicyVersion?) -> JSONValue {
        guard let ack else { return ["state": "none"] }
        let version = PolicyAPI.json(ack.version)
        guard ack.applied else {
            return [
                "state": "refused",
                "refused": [
                    "version": version, "problems": .array(ack.problems.map(\.json)),
                ],
            ]
        }
        return ["state": ack.version == active ? "current" : "behind", "applied": version]
    }

    private static func health(_ health: SidecarHealth) -> JSONValue {
        [
            "state": .string(health.state.rawValue),
            "reasons": .array(health.reasons.map { .string($0) }),
            "requests_in_flight": .number(JSONNumber(health.requestsInFlight)),
            "journal_bytes": .number(JSONNumber(health.journalBytes)),
        ]
    }
}
