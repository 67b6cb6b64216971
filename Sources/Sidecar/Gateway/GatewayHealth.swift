import WeirCore
import WeirMeshProtocol
import WeirPolicy

/// `GET /health`: whether this gateway can serve, and what it lacks. 503 only when it can serve
/// nobody; a lost control plane or an agent that does not serve is degraded service, not none.
struct GatewayHealth {
    static let version = "0.1.0"

    let snapshot: GatewaySnapshot?
    let controlPlane: ControlPlaneView
    let process: ProcessView
    let agents: [MeshSight.Agent]

    private typealias Finding = (part: String, reason: String)

    func answer() -> GatewayAnswer {
        let failures = self.failures
        let degraded = failures + deficits
        let status =
            !failures.isEmpty ? "unavailable" : degraded.isEmpty ? "ok" : "degraded"
        return .json(failures.isEmpty ? 200 : 503, body(status, degraded), [])
    }

    /// Why nobody can be served.
    private var failures: [Finding] {
        guard let snapshot else { return [("policy", "none received yet")] }
        var findings: [Finding] = []
        if process.isDraining { findings.append(("gateway", "draining")) }
        if process.journalHasFailed { findings.append(("journal", "cannot be written")) }
        if !snapshot.policy.agents.keys.contains(where: { snapshot.endpoints[$0] != nil }) {
            findings.append(("agents", Reason.noEndpoint.name))
        }
        return findings
    }

    /// What works in part.
    private var deficits: [Finding] {
        var findings: [Finding] = []
        if !controlPlane.isReachable {
            findings.append(("control_plane", "silent for \(controlPlane.silentMilliseconds) ms"))
        }
        if process.policyProblems > 0 {
            findings.append(
                ("policy", "a newer one was refused (\(process.policyProblems) problems)"))
        }
        for agent in agents where agent.view.state != .serving {
            findings.append(("agent/\(agent.view.name)", reason(agent)))
        }
        return findings
    }

    /// Anybody may ask, so addresses stay inside: `/agents/health` has them, with a token.
    private func reason(_ agent: MeshSight.Agent) -> String {
        let counted = agent.view.endpoints.filter { $0.state != .draining }
        guard !counted.isEmpty else { return Reason.noEndpoint.name }
        let serving = counted.count { $0.servingShare >= 1 }
        return "\(serving) of \(counted.count) endpoints serve, since \(agent.since.rfc3339)"
    }

    private func body(_ status: String, _ degraded: [Finding]) -> JSONValue {
        var body: JSONObject = ["status": .string(status), "version": .string(Self.version)]
        if let version = snapshot?.version {
            body["policy_version"] = .number(JSONNumber(version.number))
            body["policy_age_ms"] = process.policyAgeMilliseconds.map { .number(JSONNumber($0)) }
        }
        body["control_plane"] = [
            "reachable": .bool(controlPlane.isReachable),
            "silent_ms": .number(JSONNumber(controlPlane.silentMilliseconds)),
        ]
        body["system_health_score"] = AgentHealthDocument.number(MeshSight.score(agents))
        body["degraded"] = .array(
            degraded.map { ["part": .string($0.part), "reason": .string($0.reason)] })
        return .object(body)
    }
}
