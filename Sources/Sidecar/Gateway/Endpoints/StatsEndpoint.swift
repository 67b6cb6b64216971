import WeirCore
import WeirMeshProtocol
import WeirPolicy

/// `GET /stats`, for operators: what happens now, from the reports of all members of the mesh, and
/// what it cost, from the records. Without the control plane it is what this gateway knows alone,
/// and says so.
struct StatsEndpoint: GatewayEndpoint {
    /// A view that is older than this is not what happens now.
    private static let staleNanoseconds: UInt64 = 10_000_000_000

    let identity: CallerIdentity
    let dependencies: GatewayDependencies
    let path = "/stats"
    let methods = ["GET", "HEAD"]

    func respond(
        to request: GatewayRequest, on worker: GatewayWorker
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        guard let snapshot = dependencies.snapshot() else {
            throw GatewayRefusal(
                .controlPlaneLost, "This gateway has no policy yet.", retryAfterSeconds: 1)
        }
        let caller = try await identity.identify(
            request, snapshot: snapshot, now: worker.clock.now
        ).caller
        let message = UserRequest(
            subject: .init(
                user: caller.user, tenant: caller.tenant, tier: caller.tier.name,
                roles: caller.roles),
            parameters: try request.allParameters())
        let costs: JSONValue
        switch await dependencies.ask(.stats, message) {
        case .answered(let body): costs = body
        case .refused(let refusal): throw GatewayRefusal(refusal)
        case .unavailable: costs = ["reason": "the control plane does not answer now"]
        }
        let known = dependencies.sight.mesh(nowNanoseconds: worker.clock.nowNanoseconds)
        let document = StatsDocument(
            at: worker.clock.now,
            mesh: known.flatMap {
                $0.ageNanoseconds < Self.staleNanoseconds
                    ? ($0.state, $0.ageNanoseconds / 1_000_000) : nil
            }, own: dependencies.metrics.vitals, agents: dependencies.sight.agents,
            version: snapshot.version)
        return .json(
            200, document.json(costs: costs), [GatewayField("cache-control", "no-store")])
    }
}

/// The answer of `GET /stats`. Pure.
struct StatsDocument {
    let at: UnixTime
    /// What the control plane told, and how many milliseconds ago; `nil`: nothing of now.
    let mesh: (state: MeshState, ageMilliseconds: UInt64)?
    /// Of this gateway.
    let own: GatewayVitals
    let agents: [MeshSight.Agent]
    let version: PolicyVersion

    func json(costs: JSONValue) -> JSONValue {
        var body: JSONObject = [
            "at": .string(at.rfc3339), "scope": .string(mesh == nil ? "gateway" : "mesh"),
        ]
        body["sources"] = sources
        body["health"] = health
        body["requests"] = requests
        body["fallbacks"] = detours(.fallback)
        body["downgrades"] = detours(.downgrade)
        body["agents"] = .array(agents.map(agent))
        body["gateways"] = .array(gateways.map(gateway))
        body["policy"] = policy
        body["costs"] = costs
        return .object(body)
    }

    private var sources: JSONValue {
        guard let mesh else {
            return [
                "requests": "this gateway, the last minute",
                "agents": "what this gateway was told last", "costs": "records of all sidecars",
            ]
        }
        return [
            "requests": "reports of all gateways, the last minute",
            "agents": "reports of all sidecars, the last minute",
            "costs": "records of all sidecars",
            "reports_age_ms": .number(JSONNumber(mesh.ageMilliseconds)),
            "members": .number(JSONNumber(mesh.state.members.count)),
            "members_omitted": .number(JSONNumber(mesh.state.omitted)),
        ]
    }

    private var health: JSONValue {
        [
            "system_health_score": AgentHealthDocument.number(MeshSight.score(agents)),
            "how": .string(
                "sum of weight x availability over the sum of weights; availability is the share "
                    + "of endpoints that served, over the last minute"),
            "parts": .array(
                agents.map {
                    [
                        "agent": .string($0.view.name), "weight": .number(JSONNumber($0.weight)),
                        "availability": AgentHealthDocument.number($0.availability),
                        "state": .string($0.view.state.rawValue),
                    ]
                }),
        ]
    }

    // MARK: Requests

    private var gateways: [MeshState.Member] {
        mesh?.state.members.filter { $0.role == .gateway && $0.isConnected } ?? []
    }

    private var vitals: [GatewayVitals] {
        mesh == nil ? [own] : gateways.compactMap { $0.health?.gateway }
    }

    private var requests: JSONValue {
        let all = vitals.flatMap(\.requests)
        let total = all.reduce(0) { $0 + $1.count }
        let window = vitals.map(\.windowMilliseconds).max() ?? 0
        var object: JSONObject = [
            "window_seconds": .number(JSONNumber(window / 1_000)),
            "total": .number(JSONNumber(total)),
            "per_second": window > 0
                ? AgentHealthDocument.number(Double(total) * 1_000 / Double(window)) : .null,
            "partial": .number(JSONNumber(count(all) { $0.status == "partial" })),
        ]
        object["by_status"] = sums(all, \.status)
        object["by_type"] = sums(all, \.type)
        object["by_tier"] = sums(all, \.tier)
        AgentHealthDocument.writeLatencies(
            vitals.reduce([]) { LatencyBuckets.sum($0, $1.latencies) }, to: &object)
        return .object(object)
    }

    private func count(
        _ all: [GatewayVitals.Requests], where isMeant: (GatewayVitals.Requests) -> Bool
    ) -> Int64 {
        all.filter(isMeant).reduce(0) { $0 + $1.count }
    }

    private func sums(
        _ all: [GatewayVitals.Requests], _ name: (GatewayVitals.Requests) -> String
    ) -> JSONValue {
        let groups = Dictionary(grouping: all, by: name).sorted { $0.key < $1.key }
        return .object(
            groups.reduce(into: JSONObject()) { object, group in
                object[group.key] = .number(JSONNumber(group.value.reduce(0) { $0 + $1.count }))
            })
    }

    private func detours(_ kind: GatewayVitals.Detour.Kind) -> JSONValue {
        let all = vitals.flatMap(\.detours).filter { $0.kind == kind }
        return [
            "total": .number(JSONNumber(all.reduce(0) { $0 + $1.count })),
            "list": .array(
                all.map {
                    [
                        "from": .string($0.from), "to": .string($0.to),
                        "reason": .string($0.reason), "count": .number(JSONNumber($0.count)),
                    ]
                }),
        ]
    }

    // MARK: Members

    private func agent(_ agent: MeshSight.Agent) -> JSONValue {
        let healths = agent.view.endpoints.compactMap { endpoint in
            endpoint.member?.health.map { (address: endpoint.address, health: $0) }
        }
        let calls = agent.view.calls
        let total = calls.successes + calls.failures
        var object: JSONObject = [
            "agent": .string(agent.view.name), "state": .string(agent.view.state.rawValue),
            "in_flight": .number(JSONNumber(healths.reduce(0) { $0 + $1.health.requestsInFlight })),
            "waiting": .number(
                JSONNumber(healths.reduce(0) { $0 + ($1.health.agent?.waiting ?? 0) })),
            "calls_per_second": calls.windowMilliseconds > 0
                ? AgentHealthDocument.number(
                    Double(total) * 1_000 / Double(calls.windowMilliseconds)) : .null,
        ]
        AgentHealthDocument.write(calls, to: &object)
        object["breakers"] = .array(
            healths.flatMap { entry in
                (entry.health.agent?.endpoints ?? []).map { breaker in
                    [
                        "endpoint": .string(entry.address), "address": .string(breaker.address),
                        "state": .string(breaker.breaker.rawValue),
                        "since": .string(breaker.since.rfc3339),
                    ] as JSONValue
                }
            })
        return .object(object)
    }

    private func gateway(_ member: MeshState.Member) -> JSONValue {
        var object: JSONObject = [
            "instance": .string(member.instance),
            "reported_ms_ago": .number(JSONNumber(member.silentMilliseconds)),
        ]
        if let health = member.health {
            object["state"] = .string(health.state.rawValue)
            object["in_flight"] = .number(JSONNumber(health.requestsInFlight))
        }
        return .object(object)
    }

    /// Who runs which version, and who refused a newer one.
    private var policy: JSONValue {
        let members = mesh?.state.members.filter(\.isConnected) ?? []
        let versions = Dictionary(grouping: members) { $0.policy?.number ?? 0 }
        return [
            "version": .number(JSONNumber(version.number)),
            "members_by_version": .object(
                versions.sorted { $0.key < $1.key }.reduce(into: JSONObject()) {
                    $0[String($1.key)] = .number(JSONNumber($1.value.count))
                }),
            "refused_by": .array(
                members.filter(\.hasRefusedPolicy).map {
                    .string("\($0.agent ?? "gateway")/\($0.instance)")
                }),
        ]
    }
}
