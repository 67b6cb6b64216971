import WeirCore
import WeirMeshProtocol

/// `MeshState` from the registry. Every gateway asks once a second, so that what was read for one
/// is good for the others too: the store is read at most twice a second, by one reader at a time.
package actor MeshStateView {
    private let freshness: Duration

    private let sidecars: SidecarRegistry
    private let redis: Redis
    private var known: (state: JSONValue, at: ContinuousClock.Instant)?
    private var reading: Task<JSONValue, any Error>?

    package init(
        sidecars: SidecarRegistry, redis: Redis, freshness: Duration = .milliseconds(500)
    ) {
        self.freshness = freshness
        self.sidecars = sidecars
        self.redis = redis
    }

    /// As the wire carries it.
    package func current() async throws -> JSONValue {
        if let known, ContinuousClock.now - known.at < freshness { return known.state }
        if let reading { return try await reading.value }
        let task = Task { try JSON.encodeValue(try await read()) }
        reading = task
        defer { reading = nil }
        let state = try await task.value
        known = (state, ContinuousClock.now)
        return state
    }

    private nonisolated func read() async throws -> MeshState {
        let now = try await redis.time()
        let seen = try await sidecars.live(
            since: UnixTime(milliseconds: now.milliseconds - MeshLimits.stateMilliseconds))
        // The newest reports are first: what is left out has been silent for longest.
        let members = seen.prefix(MeshLimits.stateMembersMax).map { Self.member($0, now: now) }
        return MeshState(
            at: now, members: members.sorted { $0.incarnation < $1.incarnation },
            omitted: seen.count - members.count)
    }

    private static func member(_ status: SidecarStatus, now: UnixTime) -> MeshState.Member {
        MeshState.Member(
            incarnation: status.incarnation, role: status.role, agent: status.agent,
            endpoint: status.endpoint, instance: status.instance,
            silentMilliseconds: max(0, now.milliseconds - status.seenAt.milliseconds),
            policy: status.ack.flatMap { $0.applied ? $0.version : nil },
            hasRefusedPolicy: status.ack.map { !$0.applied } ?? false,
            health: status.health)
    }
}
