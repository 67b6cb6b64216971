import WeirCore
import WeirLedger
import WeirPolicy

// What the parts of a mesh have seen lately, said with their reports, and what the control plane
// makes of all of them. Times are of the clock of whoever saw it; counts are of a window that ends
// with the report. Everything is bounded by `MeshLimits`.

/// How the calls of a window went.
package struct CallSummary: Hashable, Sendable, Codable {
    /// How long was really looked at: a minute, or less after a start.
    package var windowMilliseconds: Int64 = 0
    package var successes: Int64 = 0
    /// The agent's fault: errors, broken answers, deadlines, connections that it did not take.
    package var failures: Int64 = 0
    /// Neither: refused before the agent was asked, or left by their caller.
    package var others: Int64 = 0
    /// How many calls took how long: one number for each of `LatencyBuckets.bounds` and one for
    /// what is above, not cumulative. Empty where nothing was looked at.
    package var latencies: [Int64] = []

    package init() {}

    /// `nil` without a call that says anything of the agent.
    package var successRate: Double? {
        let total = successes + failures
        return total > 0 ? Double(successes) / Double(total) : nil
    }

    /// Both together; the window is the longer one.
    package mutating func add(_ other: CallSummary) {
        windowMilliseconds = max(windowMilliseconds, other.windowMilliseconds)
        successes &+= other.successes
        failures &+= other.failures
        others &+= other.others
        latencies = LatencyBuckets.sum(latencies, other.latencies)
    }
}

/// The buckets that latencies are counted in, here and in every histogram of the metrics.
package enum LatencyBuckets {
    /// In nanoseconds: 1 ms to a minute.
    package static let bounds: [UInt64] = [
        1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000,
    ].map { $0 * 1_000_000 }

    package static func sum(_ left: [Int64], _ right: [Int64]) -> [Int64] {
        (0..<min(bounds.count + 1, max(left.count, right.count))).map { index in
            (index < left.count ? left[index] : 0) &+ (index < right.count ? right[index] : 0)
        }
    }

    /// The latency below which a share of the calls stays, in milliseconds, interpolated within its
    /// bucket as Prometheus does; beyond the last bound it is that bound. `nil` without calls.
    package static func quantile(_ share: Double, of counts: [Int64]) -> Double? {
        let total = counts.reduce(0) { $0 + max(0, $1) }
        guard total > 0 else { return nil }
        let rank = share * Double(total)
        var below: Int64 = 0
        for (count, bound) in zip(counts, bounds.indices) where count > 0 {
            if Double(below + count) >= rank {
                let lower = bound == 0 ? 0 : Double(bounds[bound - 1])
                let part = (rank - Double(below)) / Double(count)
                return (lower + part * (Double(bounds[bound]) - lower)) / 1_000_000
            }
            below += count
        }
        return bounds.last.map { Double($0) / 1_000_000 }
    }
}

package struct LastError: Hashable, Sendable, Codable {
    /// A `Reason` by its name.
    package var reason: String
    package var at: UnixTime

    package init(reason: String, at: UnixTime) {
        self.reason = reason
        self.at = at
    }
}

/// What an agent's sidecar has seen of its agent.
package struct AgentVitals: Hashable, Sendable, Codable {
    package enum Breaker: String, Sendable, Codable {
        case closed, open
        case halfOpen = "half_open"
    }

    /// An address that the agent is reached at.
    package struct Endpoint: Hashable, Sendable, Codable {
        package var address: String
        package var breaker: Breaker
        /// When the breaker was first seen in this position; looked at once a second.
        package var since: UnixTime

        package init(address: String, breaker: Breaker, since: UnixTime) {
            self.address = address
            self.breaker = breaker
            self.since = since
        }
    }

    package var endpoints: [Endpoint]
    /// What the health checks say; `nil` without checks.
    package var isHealthy: Bool?
    package var calls: CallSummary
    package var waiting: Int
    package var lastError: LastError?

    package init(
        endpoints: [Endpoint], isHealthy: Bool?, calls: CallSummary, waiting: Int,
        lastError: LastError?
    ) {
        self.endpoints = endpoints
        self.isHealthy = isHealthy
        self.calls = calls
        self.waiting = waiting
        self.lastError = lastError
    }

    /// From 0 to 1: how much of the agent this sidecar can reach.
    package var servingShare: Double {
        guard isHealthy != false else { return 0 }
        guard !endpoints.isEmpty else { return 1 }
        return Double(endpoints.count { $0.breaker == .closed }) / Double(endpoints.count)
    }
}

/// What a gateway has seen of its users' requests.
package struct GatewayVitals: Hashable, Sendable, Codable {
    /// Requests that ended in the window.
    package struct Requests: Hashable, Sendable, Codable {
        package var type: String
        package var tier: String
        /// `complete`, `partial` or a reason.
        package var status: String
        package var count: Int64

        package init(type: String, tier: String, status: String, count: Int64) {
            self.type = type
            self.tier = tier
            self.status = status
            self.count = count
        }
    }

    /// Steps that another agent served than the plan says, in the window.
    package struct Detour: Hashable, Sendable, Codable {
        package enum Kind: String, Sendable, Codable { case fallback, downgrade }
        package var kind: Kind
        package var from: String
        package var to: String
        package var reason: String
        package var count: Int64

        package init(kind: Kind, from: String, to: String, reason: String, count: Int64) {
            self.kind = kind
            self.from = from
            self.to = to
            self.reason = reason
            self.count = count
        }
    }

    package var windowMilliseconds: Int64 = 0
    package var requests: [Requests] = []
    package var detours: [Detour] = []
    /// As those of `CallSummary`.
    package var latencies: [Int64] = []

    package init() {}
}

/// Everybody who is in the mesh, as last reported: the answer of `GET /mesh/v1/state`, which
/// gateways ask for.
package struct MeshState: Hashable, Sendable, Codable {
    package struct Member: Hashable, Sendable, Codable {
        package var incarnation: Incarnation
        package var role: Role
        package var agent: String?
        package var endpoint: String?
        package var instance: String
        /// Since its last report.
        package var silentMilliseconds: Int64
        /// What it runs, and whether it refused something newer.
        package var policy: PolicyVersion?
        package var hasRefusedPolicy: Bool
        package var health: SidecarHealth?

        package init(
            incarnation: Incarnation, role: Role, agent: String?, endpoint: String?,
            instance: String, silentMilliseconds: Int64, policy: PolicyVersion?,
            hasRefusedPolicy: Bool, health: SidecarHealth?
        ) {
            self.incarnation = incarnation
            self.role = role
            self.agent = agent
            self.endpoint = endpoint
            self.instance = instance
            self.silentMilliseconds = silentMilliseconds
            self.policy = policy
            self.hasRefusedPolicy = hasRefusedPolicy
            self.health = health
        }

        /// It reports; otherwise it is on its way out of the mesh.
        package var isConnected: Bool { silentMilliseconds < MeshLimits.silentMilliseconds }
    }

    package var at: UnixTime
    package var members: [Member]
    /// Members beyond the message's limit.
    package var omitted: Int

    package init(at: UnixTime, members: [Member], omitted: Int) {
        self.at = at
        self.members = members
        self.omitted = omitted
    }
}
