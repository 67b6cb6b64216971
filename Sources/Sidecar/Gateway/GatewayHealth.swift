import WeirCore
import WeirPolicy

/// `GET /health`: whether this gateway can serve, and what it lacks. 503 only when it can serve
/// nobody; a lost control plane or an agent without a sidecar is degraded service, not none.
struct GatewayHealth {
    static let version = "0.1.0"

    let snapshot: GatewaySnapshot?
    let controlPlane: ControlPlaneView

    func answer() -> GatewayAnswer {
        guard let snapshot else {
            return .json(503, body(status: "unavailable", [("policy", "none received yet")]), [])
        }
        var degraded: [(part: String, reason: String)] = []
        if !controlPlane.isReachable {
            degraded.append(("control_plane", "silent for \(controlPlane.silentMilliseconds) ms"))
        }
        for agent in snapshot.policy.agents.keys.sorted()
        where snapshot.endpoints[agent]?.isEmpty ?? true {
            degraded.append(("agent/\(agent)", Reason.noEndpoint.name))
        }
        let served = snapshot.policy.agents.keys.contains { snapshot.endpoints[$0] != nil }
        let status = served ? (degraded.isEmpty ? "ok" : "degraded") : "unavailable"
        return .json(served ? 200 : 503, body(status: status, degraded), [])
    }

    private func body(status: String, _ degraded: [(part: String, reason: String)]) -> JSONValue {
        var body: JSONObject = ["status": .string(status), "version": .string(Self.version)]
        if let version = snapshot?.version {
            body["policy_version"] = .number(JSONNumber(version.number))
        }
        body["control_plane"] = [
            "reachable": .bool(controlPlane.isReachable),
            "silent_ms": .number(JSONNumber(controlPlane.silentMilliseconds)),
        ]
        body["degraded"] = .array(
            degraded.map { ["part": .string($0.part), "reason": .string($0.reason)] })
        return .object(body)
    }

    /// `system_health_score`: the mean over agents of whether any of their sidecars is known. The
    /// share of endpoints that serve comes with the breakers' states.
    static func score(_ snapshot: GatewaySnapshot?) -> Double {
        guard let snapshot, !snapshot.policy.agents.isEmpty else { return 0 }
        let served = snapshot.policy.agents.keys.count {
            !(snapshot.endpoints[$0]?.isEmpty ?? true)
        }
        return Double(served) / Double(snapshot.policy.agents.count)
    }
}
