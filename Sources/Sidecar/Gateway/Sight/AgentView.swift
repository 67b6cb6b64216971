import WeirCore
import WeirMeshProtocol
import WeirPolicy

/// One agent as a gateway knows it: the endpoints that it may send to, and what the control plane
/// heard of each. Pure.
package struct AgentView: Hashable, Sendable {
    package enum State: String, Sendable { case serving, degraded, unavailable }

    package struct Endpoint: Hashable, Sendable {
        package enum State: String, Sendable {
            case serving, degraded, draining
            /// It stopped reporting less than a minute ago.
            case silent
            /// The control plane gave it to this gateway and has not said more.
            case unreported
        }

        package var address: String
        package var state: State
        /// From 0 to 1: how much of the agent can be reached by it.
        package var servingShare: Double
        /// What the control plane heard.
        package var member: MeshState.Member?
    }

    package let name: String
    package let endpoints: [Endpoint]

    /// Of every agent of the policy, by name.
    static func all(_ snapshot: GatewaySnapshot, _ mesh: MeshState?) -> [AgentView] {
        var members: [String: [MeshState.Member]] = [:]
        for member in mesh?.members ?? [] where member.role == .agent {
            members[member.agent ?? "", default: []].append(member)
        }
        return snapshot.policy.agents.keys.sorted().map { name in
            AgentView(name, members[name] ?? [], snapshot.endpoints[name] ?? [])
        }
    }

    private init(
        _ name: String, _ members: [MeshState.Member], _ known: [AgentEndpoint]
    ) {
        self.name = name
        let told = Set(members.map(\.incarnation))
        let untold = known.filter { !told.contains($0.incarnation) }
        endpoints =
            members.map { member in
                // The address that this gateway uses, which its environment may have fixed.
                let own = known.first { $0.incarnation == member.incarnation }?.address
                return Endpoint(member, at: own ?? member.endpoint ?? "")
            }
            + untold.map {
                Endpoint(address: $0.address, state: .unreported, servingShare: 1, member: nil)
            }
    }

    /// Share of the endpoints that serve. Those that leave on purpose do not count; one that fell
    /// silent does, until it is forgotten.
    package var servingShare: Double {
        let counted = endpoints.filter { $0.state != .draining }
        guard !counted.isEmpty else { return 0 }
        return counted.reduce(0) { $0 + $1.servingShare } / Double(counted.count)
    }

    package var state: State {
        switch servingShare {
        case 1...: .serving
        case 0: .unavailable
        default: .degraded
        }
    }

    /// All calls of the window, over all endpoints.
    package var calls: CallSummary {
        var sum = CallSummary()
        for case let calls? in endpoints.map(\.member?.health?.agent?.calls) { sum.add(calls) }
        return sum
    }

    package var lastError: LastError? {
        endpoints.compactMap(\.member?.health?.agent?.lastError).max { $0.at < $1.at }
    }

    /// Why it does not serve as it should, for people.
    package var reasons: [String] {
        if endpoints.isEmpty { return [Reason.noEndpoint.name] }
        return endpoints.flatMap { endpoint -> [String] in
            switch endpoint.state {
            case .serving, .unreported: []
            case .draining: ["\(endpoint.address) is draining"]
            case .silent: ["\(endpoint.address) does not report"]
            case .degraded: endpoint.troubles.map { "\(endpoint.address): \($0)" }
            }
        }
    }
}

extension AgentView.Endpoint {
    fileprivate init(_ member: MeshState.Member, at address: String) {
        self.address = address
        self.member = member
        let share = member.health?.agent?.servingShare ?? 1
        if !member.isConnected {
            state = .silent
        } else if member.health?.state == .draining {
            state = .draining
        } else if share < 1 || member.health?.state == .degraded {
            state = .degraded
        } else {
            state = .serving
        }
        servingShare = member.isConnected ? share : 0
    }

    fileprivate var troubles: [String] {
        let breakers = member?.health?.agent?.endpoints.filter { $0.breaker != .closed } ?? []
        return (member?.health?.reasons ?? [])
            + breakers.map { "the circuit to \($0.address) is \($0.breaker.text)" }
    }
}

extension AgentVitals.Breaker {
    fileprivate var text: String {
        switch self {
        case .closed: "closed"
        case .open: "open"
        case .halfOpen: "half open"
        }
    }
}
