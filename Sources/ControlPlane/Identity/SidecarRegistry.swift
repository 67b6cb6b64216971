import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// What the control plane knows about one sidecar or gateway.
package struct SidecarStatus: Hashable, Sendable {
    package var incarnation: Incarnation
    package var role: Role
    package var agent: String?
    /// Which version of the agent it says to serve.
    package var agentVersion: String?
    package var endpoint: String?
    package var instance: String
    package var joinedAt: UnixTime
    /// Of its last report, or of its join.
    package var seenAt: UnixTime
    package var health: SidecarHealth?
    package var ack: PolicyAck?
    /// Something that must not happen, for people.
    package var alarm: String?
}

/// Who is in the mesh, where, how it feels and which policy it runs. Joining writes the rows
/// (`LedgerStore.join`).
package struct SidecarRegistry: Sendable {
    private let redis: Redis

    package init(redis: Redis) { self.redis = redis }

    /// Notes a report's health. `false`: the incarnation is not known; it has to join again.
    @discardableResult
    package func heartbeat(_ health: SidecarHealth, by incarnation: Incarnation) async throws
        -> Bool
    {
        var health = health
        health.reasons = Array(health.reasons.prefix(StoreLimits.problemsKeptMax))
        health.bound()
        let reply = try await redis.run(
            RegistryScripts.heartbeat,
            keys: [StoreKeys.incarnation(incarnation), StoreKeys.live, StoreKeys.hearing],
            arguments: [
                incarnation.description, health.state.rawValue,
                try JSON.encodeValue(health).text, String(StoreLimits.accountKeepMilliseconds),
                String(StoreLimits.sidecarKeepMilliseconds),
            ])
        return reply.integer == 1
    }

    /// Notes what a sidecar says about a policy. The answer is an alarm, kept with the sidecar: it
    /// runs the same version with another hash than the store has.
    @discardableResult
    package func acknowledge(
        _ ack: PolicyAck, by incarnation: Incarnation, active: PolicyVersion?
    ) async throws -> String? {
        var ack = ack
        ack.problems = Array(ack.problems.prefix(StoreLimits.problemsKeptMax))
        var alarm: String?
        if let active, active.epoch == ack.version.epoch, active.number == ack.version.number,
            active.hash != ack.version.hash
        {
            alarm = "policy \(active) has the hash \(active.hash) and not \(ack.version.hash)"
        }
        try await redis.command(
            [
                "HSET", StoreKeys.incarnation(incarnation), "ack",
                try JSON.encodeValue(ack).text, "alarm", alarm ?? "",
            ], isIdempotent: true)
        return alarm
    }

    package func status(of incarnation: Incarnation) async throws -> SidecarStatus? {
        let replies = try await redis.readAll([
            ["HGETALL", StoreKeys.incarnation(incarnation)],
            ["ZSCORE", StoreKeys.live, incarnation.description],
        ])
        return status(incarnation, replies[0].fields, seen: replies[1].integer)
    }

    /// Everybody that reported within a day and was not succeeded, the newest report first.
    package func list() async throws -> [SidecarStatus] {
        let now = try await redis.time()
        return try await live(
            since: UnixTime(milliseconds: now.milliseconds - StoreLimits.sidecarKeepMilliseconds))
    }

    /// Where gateways find agents: sidecars that have reported lately and are not draining.
    package func endpoints() async throws -> [Projection.Endpoint] {
        let fresh = try await live(since: try await reportsCountSince())
        let secrets = try await redis.readAll(
            fresh.map {
                ["HGET", StoreKeys.incarnation($0.incarnation), "hop_secret"]
            })
        var endpoints: [Projection.Endpoint] = []
        for (status, reply) in zip(fresh, secrets) {
            guard status.role == .agent, status.health?.state != .draining,
                let agent = status.agent, let address = status.endpoint, let secret = reply.text
            else { continue }
            endpoints.append(
                Projection.Endpoint(
                    agent: agent, incarnation: status.incarnation, address: address,
                    hopKey: HopKey(
                        id: LedgerStore.hopKeyID(status.incarnation), secret: secret),
                    version: status.agentVersion))
        }
        // One order for one set, because a projection is known by its hash.
        return endpoints.sorted { $0.incarnation < $1.incarnation }
    }

    /// From when on a report says that its sidecar is there. While nobody could be heard (the
    /// control plane or its store was away), and until everybody has had the time to speak again,
    /// silence says nothing: who was there before it is there still. Otherwise a control plane that
    /// comes back would take every agent away from its gateways.
    private func reportsCountSince() async throws -> UnixTime {
        let silence = StoreLimits.endpointFreshMilliseconds
        let now = try await redis.time().milliseconds
        let hearing = try await redis.read("HGETALL", StoreKeys.hearing).fields
        func time(_ field: String) -> Int64 { hearing[field].flatMap { Int64($0) } ?? 0 }
        var heard = now
        if now - time("last") >= silence {
            heard = time("last")
        } else if now - time("since") < silence {
            heard = time("before")
        }
        return UnixTime(milliseconds: max(0, heard - silence))
    }

    /// Those that reported since then, the newest report first.
    func live(since time: UnixTime) async throws -> [SidecarStatus] {
        let reply = try await redis.read(
            "ZRANGE", StoreKeys.live, "+inf", String(time.milliseconds), "BYSCORE", "REV",
            "LIMIT", "0", String(StoreLimits.sidecarsListedMax), "WITHSCORES")
        guard let texts = reply.texts else { throw RedisError.unexpectedReply("ZRANGE") }
        var seen: [(Incarnation, Int64)] = []
        for position in stride(from: 0, to: texts.count - 1, by: 2) {
            guard let number = Int64(texts[position]), let time = Int64(texts[position + 1])
            else { continue }
            seen.append((Incarnation(number), time))
        }
        let rows = try await redis.readAll(
            seen.map { ["HGETALL", StoreKeys.incarnation($0.0)] })
        return zip(seen, rows).compactMap { entry, row in
            status(entry.0, row.fields, seen: entry.1)
        }
    }

    private func status(
        _ incarnation: Incarnation, _ row: [String: String], seen: Int64?
    ) -> SidecarStatus? {
        guard row["adopted_by"] == nil, let role = row["role"].flatMap(Role.init(rawValue:)),
            let joined = row["joined_at"].flatMap({ Int64($0) })
        else { return nil }
        func decoded<T: Decodable>(_ field: String, _ type: T.Type) -> T? {
            row[field].flatMap { try? JSON.decode(type, from: Array($0.utf8)) }
        }
        return SidecarStatus(
            incarnation: incarnation, role: role, agent: row["agent"],
            agentVersion: row["agent_version"], endpoint: row["endpoint"],
            instance: row["instance"] ?? "", joinedAt: UnixTime(milliseconds: joined),
            seenAt: UnixTime(milliseconds: seen ?? joined),
            health: decoded("health", SidecarHealth.self), ack: decoded("ack", PolicyAck.self),
            alarm: row["alarm"].flatMap { $0.isEmpty ? nil : $0 })
    }
}

extension SidecarHealth {
    /// What is kept for everybody to read is as much as the protocol says.
    fileprivate mutating func bound() {
        if let agent {
            self.agent?.endpoints = Array(agent.endpoints.prefix(MeshLimits.vitalEndpointsMax))
        }
        if let gateway {
            self.gateway?.requests = Array(gateway.requests.prefix(MeshLimits.vitalRequestsMax))
            self.gateway?.detours = Array(gateway.detours.prefix(MeshLimits.vitalDetoursMax))
        }
    }
}

enum RegistryScripts {
    /// Keys: the incarnation's row, the live set, hearing. Arguments: incarnation, state, health,
    /// how long the row and the place in the set are kept without a report. Answer: 1, or 0 when
    /// unknown.
    static let heartbeat = RedisScript(
        name: "heartbeat",
        source: LedgerScripts.prelude + """
            if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
            local before = redis.call('HGET', KEYS[1], 'state')
            local now = clock()
            redis.call('HSET', KEYS[1], 'state', ARGV[2], 'health', ARGV[3])
            redis.call('PEXPIRE', KEYS[1], ARGV[4])
            hear(KEYS[3], KEYS[2], \(StoreLimits.endpointFreshMilliseconds))
            redis.call('ZADD', KEYS[2], text(now), ARGV[1])
            redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', text(now - tonumber(ARGV[5])))
            if before ~= ARGV[2] and (before == 'draining' or ARGV[2] == 'draining') then
              redis.call('PUBLISH', 'weir:endpoints', ARGV[1])
            end
            return 1
            """,
        isIdempotent: true)
}
