import Synchronization
import WeirCore
import WeirLedger
import WeirMeshProtocol

/// Reports and releases: the counters of leases, and the finals of children.
extension LedgerStore {
    /// Releases are reports of single leases: the counters say all.
    package func release(_ counters: [LeaseCounters], by holder: Incarnation) async throws {
        guard !counters.isEmpty else { return }
        let standing = try await standing(of: holder)
        let groups = grouped(counters, standing)
        let (_, origins) = try await redis.runAllNoting(
            LedgerScripts.report,
            groups.map {
                LedgerCalls.report(
                    $0.key.account, $0.key.incarnation, $0.value, by: holder, highest: -1)
            })
        try await mustBeKept(origins)
    }

    /// Merges a report; the answer has what the holder must know.
    package func report(_ report: Report, by holder: Incarnation) async throws -> ReportResponse {
        let standing = try await standing(of: holder)
        try await keep(report.childFinals)
        try await forget(report.acknowledgedFinals, standing)
        let lost = try await ask(report.openChildren, standing)

        var groups = grouped(report.leases, standing)
        var index: [LeaseGroup: String] = [:]
        for incarnation in standing.speaksFor.sorted() {
            let entries = try await redis.read("HGETALL", StoreKeys.accounts(incarnation)).fields
            for (name, token) in entries {
                guard let account = AccountKey(name) else { continue }
                let group = LeaseGroup(account: account, incarnation: incarnation)
                index[group] = token
                groups[group, default: []] += []
            }
        }
        var response = ReportResponse(finals: [], recalls: [], unknown: [], states: [])
        let now = MonotonicClock.nowNanoseconds
        let news = reported.withLock {
            $0.news(in: groups, of: holder, epoch: standing.epoch, now: now)
        }
        try await merge(news, report, by: holder, index: index, into: &response)
        reported.withLock { $0.merged(news, of: holder, epoch: standing.epoch, now: now) }
        // A report that was built before the holder heard of the epoch may lack what was granted
        // since; one that does not know of epochs has only this to say.
        if standing.missing.contains(holder), report.epoch ?? standing.epoch == standing.epoch {
            _ = try await redis.run(
                EpochScripts.heard, keys: [StoreKeys.epoch, StoreKeys.missing],
                arguments: [holder.description, String(standing.epoch)])
            missing.store(standing.missing.count - 1, ordering: .relaxed)
        }
        response.epoch = standing.epoch
        response.finals = try await finals(standing)
        response.inquiries = try await takeInquiries(for: holder)
        response.writtenOff = lost.isEmpty ? nil : lost
        return response
    }

    /// What is answered is not said again: a holder forgets a closed lease once its report was
    /// answered. Unkept by the replicas, it is told to come again.
    func mustBeKept(_ origins: Set<RedisOrigin>) async throws {
        for origin in origins {
            guard try await isOnReplicas(origin) else {
                throw RedisError.connectionLost(maybeExecuted: true)
            }
        }
    }

    private func merge(
        _ groups: [LeaseGroup: [LeaseCounters]], _ report: Report, by holder: Incarnation,
        index: [LeaseGroup: String], into response: inout ReportResponse
    ) async throws {
        // A predecessor's leases come before the own ones, so that the states, of which each
        // account's last one counts, are those after everything.
        let ordered = groups.sorted { $0.key.incarnation < $1.key.incarnation }
        let (replies, origins) = try await redis.runAllNoting(
            LedgerScripts.report,
            ordered.map {
                LedgerCalls.report(
                    $0.key.account, $0.key.incarnation, $0.value, by: holder,
                    highest: report.highestLease)
            })
        try await mustBeKept(origins)
        var states: [AccountKey: AccountState] = [:]
        var closed: [LedgerCalls.Call] = []
        for ((group, _), reply) in zip(ordered, replies) {
            guard let parts = reply.array, parts.count == 9, let open = parts[6].integer else {
                throw RedisError.unexpectedReply("report")
            }
            let numbers = parts[..<5].compactMap(\.integer)
            guard numbers.count == 5 else { throw RedisError.unexpectedReply("report") }
            // A failover may have lost the limit; until it is stated again there is nothing to say.
            if numbers[1] >= 0 {
                states[group.account] = LedgerCalls.accountState(
                    group.account, limit: numbers[1], consumed: numbers[2], own: numbers[3],
                    held: numbers[4])
            }
            response.unknown += unknown(group, parts[7])
            response.recalls += (parts[8].texts ?? []).compactMap { Int64($0) }.map {
                LeaseID(incarnation: group.incarnation, number: $0)
            }
            if open > 0, index[group] == nil, !group.account.isRate {
                // A lease that a failover had lost: whoever writes off has to find it.
                try await redis.command(
                    [
                        "HSET", StoreKeys.accounts(group.incarnation), group.account.description,
                        "0",
                    ], isIdempotent: true)
            } else if open == 0, let token = index[group] {
                closed.append(
                    (
                        [StoreKeys.accounts(group.incarnation)],
                        [group.account.description, token]
                    ))
            }
        }
        response.states = states.values.sorted { $0.account.description < $1.account.description }
        _ = try await redis.runAll(MeshScripts.unindex, closed)
    }

    private func grouped(
        _ counters: [LeaseCounters], _ standing: Standing
    ) -> [LeaseGroup: [LeaseCounters]] {
        var groups: [LeaseGroup: [LeaseCounters]] = [:]
        for entry in counters where standing.speaksFor.contains(entry.lease.incarnation) {
            let group = LeaseGroup(account: entry.account, incarnation: entry.lease.incarnation)
            groups[group, default: []].append(entry)
        }
        return groups
    }

    private func unknown(_ group: LeaseGroup, _ reply: RedisReply) -> [UnknownLease] {
        let numbers = (reply.array ?? []).compactMap(\.integer)
        return stride(from: 0, to: numbers.count - numbers.count % 3, by: 3).map { position in
            UnknownLease(
                lease: LeaseID(incarnation: group.incarnation, number: numbers[position]),
                account: group.account, granted: NanoUSD(numbers[position + 1]),
                consumed: NanoUSD(numbers[position + 2]))
        }
    }

    // MARK: Finals of children

    /// Into the mailboxes of their parents: the answer to the report that brought them says that
    /// they are kept.
    private func keep(_ finals: [ChildFinal]) async throws {
        var mailboxes: [Incarnation: [String]] = [:]
        for final in finals where final.consumed.rawValue >= 0 {
            mailboxes[final.key.lease.incarnation, default: []] += [
                name(of: final.key), String(final.consumed.rawValue),
            ]
        }
        _ = try await redis.runAll(
            MeshScripts.finals,
            mailboxes.map { parent, entries in
                ([StoreKeys.finals(parent)], [String(StoreLimits.finalsKeepSeconds)] + entries)
            })
    }

    private func forget(_ keys: [ChildKey], _ standing: Standing) async throws {
        var mailboxes: [Incarnation: [String]] = [:]
        for key in keys where standing.speaksFor.contains(key.lease.incarnation) {
            mailboxes[key.lease.incarnation, default: []].append(name(of: key))
        }
        for (parent, names) in mailboxes {
            try await redis.command(
                ["HDEL", StoreKeys.finals(parent)] + names, isIdempotent: true)
        }
    }

    private func finals(_ standing: Standing) async throws -> [ChildFinal] {
        let parents = standing.speaksFor.sorted()
        let replies = try await redis.readAll(
            parents.map {
                [
                    "HRANDFIELD", StoreKeys.finals($0), String(MeshLimits.finalsPerMessageMax),
                    "WITHVALUES",
                ]
            })
        var finals: [ChildFinal] = []
        for (parent, reply) in zip(parents, replies) {
            for (name, consumed) in reply.fields {
                let parts = name.split(separator: ".")
                guard parts.count == 2, let number = Int64(parts[0]), let child = Int64(parts[1]),
                    let amount = Int64(consumed)
                else { continue }
                let lease = LeaseID(incarnation: parent, number: number)
                finals.append(
                    ChildFinal(
                        key: ChildKey(lease: lease, child: child), consumed: NanoUSD(amount)))
            }
        }
        finals.sort { ($0.key.lease, $0.key.child) < ($1.key.lease, $1.key.child) }
        return Array(finals.prefix(MeshLimits.finalsPerMessageMax))
    }

    // MARK: Questions of parents

    /// Those whose audience was written off: nobody will ever say what they cost.
    private func ask(
        _ children: [OpenChild], _ standing: Standing
    ) async throws -> [ChildKey] {
        let own = children.filter { standing.speaksFor.contains($0.key.lease.incarnation) }
        guard !own.isEmpty else { return [] }
        let limits = [Int64(MeshLimits.inquiriesPerMessageMax), StoreLimits.inquiriesKeepSeconds]
        let reply = try await redis.run(
            MeshScripts.ask, keys: [StoreKeys.lastIncarnation],
            arguments: [StoreKeys.mesh] + limits.map(String.init)
                + own.flatMap {
                    ["\($0.key.lease.incarnation)", name(of: $0.key), "\($0.audience)"]
                })
        return (reply.texts ?? []).compactMap(childKey)
    }

    /// "PARENT.LEASE.CHILD".
    private func childKey(_ name: String) -> ChildKey? {
        let numbers = name.split(separator: ".").compactMap { Int64($0) }
        guard numbers.count == 3 else { return nil }
        let lease = LeaseID(incarnation: Incarnation(numbers[0]), number: numbers[1])
        return ChildKey(lease: lease, child: numbers[2])
    }

    /// Reading and taking away are two steps: a question that comes a second time in between is
    /// lost, and repeated by who asks.
    private func takeInquiries(for holder: Incarnation) async throws -> [OpenChild] {
        let key = StoreKeys.inquiries(holder)
        let fields = try await redis.read("HGETALL", key).fields
        guard !fields.isEmpty else { return [] }
        try await redis.command(["HDEL", key] + fields.map { $0.0 }, isIdempotent: true)
        return fields.compactMap { name, audience in
            guard let key = childKey(name), let audience = Int64(audience) else { return nil }
            return OpenChild(key: key, audience: Incarnation(audience))
        }
    }

    private func name(of key: ChildKey) -> String { "\(key.lease.number).\(key.child)" }
}
