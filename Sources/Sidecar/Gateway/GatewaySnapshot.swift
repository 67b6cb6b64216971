import Synchronization
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// One sidecar that serves an agent, and the key that delegations to it are sealed with.
package struct AgentEndpoint: Hashable, Sendable {
    package var incarnation: Incarnation
    package var address: String
    package var hopKeyID: UInt32
    package var hopKey: [UInt8]
    /// Of the agent, where the sidecar says one.
    package var version: String?

    package init(
        incarnation: Incarnation, address: String, hopKeyID: UInt32, hopKey: [UInt8],
        version: String? = nil
    ) {
        self.version = version
        self.incarnation = incarnation
        self.address = address
        self.hopKeyID = hopKeyID
        self.hopKey = hopKey
    }
}

/// Everything that a request is decided by: one policy version and where the agents are. Immutable;
/// a request keeps the one that it began with.
package struct GatewaySnapshot: Sendable {
    package let version: PolicyVersion
    package let policy: Policy
    /// This gateway's own life: the issuer of its delegations.
    package let incarnation: Incarnation
    package let endpoints: [String: [AgentEndpoint]]
    /// Counts the snapshots of this process.
    package fileprivate(set) var generation: UInt64 = 0

    /// Endpoints whose hop key cannot be read are left out: no delegation could be sealed for them.
    package init(
        version: PolicyVersion, policy: Policy, incarnation: Incarnation,
        endpoints: [Projection.Endpoint]
    ) {
        self.version = version
        self.policy = policy
        self.incarnation = incarnation
        var table: [String: [AgentEndpoint]] = [:]
        for endpoint in endpoints {
            guard let key = Base64URL.decode(endpoint.hopKey.secret), !key.isEmpty else { continue }
            table[endpoint.agent, default: []].append(
                AgentEndpoint(
                    incarnation: endpoint.incarnation, address: endpoint.address,
                    hopKeyID: endpoint.hopKey.id, hopKey: key, version: endpoint.version))
        }
        self.endpoints = table
    }
}

/// Who asks, once token and binding are known.
package struct Caller: Hashable, Sendable {
    package var user: String
    package var tenant: String?
    package var tier: TierPolicy
    package var roles: [String]
    /// Within what the tier allowed when the binding was made.
    package var preferences: Preferences
    package var knownBy = KnownBy.user
    package var tags = Tags.none

    package init(
        user: String, tenant: String?, tier: TierPolicy, roles: [String],
        preferences: Preferences = Preferences()
    ) {
        self.user = user
        self.tenant = tenant
        self.tier = tier
        self.roles = roles
        self.preferences = preferences
    }

    package var role: UserRole { roles.highestRole }
}

/// The snapshot in force. The uplink puts new ones in, every request takes the one of its moment.
package final class GatewayState: Sendable {
    private let current = Mutex<GatewaySnapshot?>(nil)

    package init() {}

    package var snapshot: GatewaySnapshot? { current.withLock { $0 } }

    package func apply(_ projection: Projection, policy: Policy, incarnation: Incarnation) {
        var next = GatewaySnapshot(
            version: projection.version, policy: policy, incarnation: incarnation,
            endpoints: projection.endpoints)
        current.withLock { current in
            next.generation = (current?.generation ?? 0) + 1
            current = next
        }
    }
}
