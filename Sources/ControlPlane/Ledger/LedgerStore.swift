import Synchronization
import WeirCore
import WeirLedger
import WeirMeshProtocol

/// The ledger in Redis: accounts, leases, incarnations and finals. Every rule is in a script
/// (`LedgerScripts`, `MeshScripts`); here requests are cut into scripts' calls and answers put
/// together. Replicas of the control plane share nothing but Redis.
///
/// Functions throw `MeshRefusal` for an incarnation that has to join again, and `RedisError`.
package final class LedgerStore: Sendable {
    private struct Grants {
        /// Why nothing is granted now; empty when all is well.
        var problems: [String] = ["Redis has not been looked at yet"]
        var checkedNanoseconds: UInt64 = 0
        var replicas = 0
    }

    let redis: Redis
    let sessions: Sessions
    private let isTrial: Bool
    private let archive: Archive?
    private let grants = Mutex(Grants())

    /// `isTrial`: grant although Redis may forget what it acknowledged. `archive`: what was spent,
    /// should Redis lose it.
    package init(
        redis: Redis, sessions: Sessions, isTrial: Bool = false, archive: Archive? = nil
    ) {
        self.redis = redis
        self.sessions = sessions
        self.isTrial = isTrial
        self.archive = archive
    }

    // MARK: Whether to grant

    /// Begins the ledger's epoch where Redis has none; answers its number. `hasPast`: this mesh has
    /// granted before (the archive knows records of it), so Redis lost its data, and live holders
    /// get time to report before anything is granted.
    @discardableResult
    package func begin(hasPast: Bool) async throws -> Int64 {
        try await epoch(beginningQuiet: hasPast ? StoreLimits.epochQuietMilliseconds : 0).number
    }

    private struct Epoch {
        var number: Int64
        var quietMilliseconds: Int64
        var isRestored: Bool
    }

    private func epoch(beginningQuiet quiet: Int64) async throws -> Epoch {
        let reply = try await redis.run(
            MeshScripts.begin, keys: [StoreKeys.epoch, StoreKeys.lastIncarnation],
            arguments: [String(quiet)])
        guard let numbers = reply.array?.compactMap(\.integer), numbers.count == 3 else {
            throw RedisError.unexpectedReply("begin")
        }
        return Epoch(
            number: numbers[0], quietMilliseconds: numbers[1], isRestored: numbers[2] == 1)
    }

    /// What keeps the store from granting: settings of Redis under which acknowledged writes can be
    /// lost (a trial grants all the same), and a new epoch over an old mesh. Looked at again each
    /// few seconds, whoever asks.
    package func check() async throws -> [String] {
        let now = MonotonicClock.nowNanoseconds
        let isKnownGood = grants.withLock { grants in
            grants.checkedNanoseconds > 0 && grants.problems.isEmpty
                && now &- grants.checkedNanoseconds < StoreLimits.persistenceCheckNanoseconds
        }
        if isKnownGood { return [] }
        let status = try await RedisPersistence.status(of: redis)
        var problems = isTrial ? [] : status.problems
        // An epoch that is gone while we run was lost: the mesh has a past.
        let epoch = try await epoch(beginningQuiet: StoreLimits.epochQuietMilliseconds)
        if epoch.quietMilliseconds > 0 {
            problems.append("a new epoch grants nothing for \(epoch.quietMilliseconds) ms more")
        }
        if !epoch.isRestored, let archive {
            do {
                try await restore(from: archive)
            } catch {
                problems.append("what was spent cannot be restored: \(error)")
            }
        }
        let found = problems
        grants.withLock {
            $0 = Grants(
                problems: found, checkedNanoseconds: now, replicas: status.replicas)
        }
        return found
    }

    // MARK: Who speaks

    struct Standing {
        /// Alive and not adopted: may be granted leases.
        var mayAcquire: Bool
        /// Whose leases it reports: its own and its predecessors'.
        var speaksFor: Set<Incarnation>
    }

    func standing(of incarnation: Incarnation) async throws -> Standing {
        let replies = try await redis.readAll([
            [
                "HMGET", StoreKeys.incarnation(incarnation), "joined_at", "adopted_by", "seen",
                "written_off",
            ],
            ["SMEMBERS", StoreKeys.speaksFor(incarnation)],
        ])
        guard let row = replies[0].array, row.count == 4, !row[0].isNull else {
            throw MeshRefusal(reason: "unauthenticated", detail: "unknown incarnation; join again")
        }
        guard row[3].isNull || !row[1].isNull else {
            throw MeshRefusal(reason: "unauthenticated", detail: "written off; join again")
        }
        var mayAcquire = row[1].isNull
        if row[2].isNull {
            let reply = try await redis.run(
                MeshScripts.touch, keys: [StoreKeys.incarnation(incarnation)], arguments: [])
            mayAcquire = reply.integer == 1
        }
        var speaksFor: Set = [incarnation]
        for number in (replies[1].texts ?? []).compactMap({ Int64($0) }) {
            speaksFor.insert(Incarnation(number))
        }
        return Standing(mayAcquire: mayAcquire, speaksFor: speaksFor)
    }

    // MARK: Leases

    /// One answer for each request, in their order. `policyNumber` is that of the policy which this
    /// replica holds; where that observes nobody (`mayObserve`), every limit holds.
    package func acquire(
        _ requests: [LeaseAcquire], by holder: Incarnation, policyNumber: Int64,
        mayObserve: Bool = false
    ) async throws -> [LeaseGrant] {
        let standing = try await standing(of: holder)
        let problems = try await check()
        let serves = standing.mayAcquire && problems.isEmpty
        var calls: [LedgerCalls.Call] = []
        var index: [String: String] = [:]
        for request in requests where serves && request.lease.incarnation == holder {
            index[request.account.description] = randomToken()
            calls.append(
                LedgerCalls.acquire(
                    request, policyNumber: policyNumber, mayObserve: mayObserve))
        }
        if !index.isEmpty {
            // The index comes first: a crash in between leaves an entry too many, never one too
            // few.
            try await redis.command(
                ["HSET", StoreKeys.accounts(holder)] + index.flatMap { [$0.key, $0.value] },
                isIdempotent: true)
        }
        var replies = try await redis.runAll(LedgerScripts.acquire, calls)[...]
        // Without a majority nobody is told of a grant; who asks again gets the same one.
        let isKept = calls.isEmpty ? true : try await isKeptByMajority()
        var grants: [LeaseGrant] = []
        for request in requests {
            if serves, request.lease.incarnation == holder, let reply = replies.popFirst(), isKept {
                grants.append(try LedgerCalls.grant(request, reply))
            } else {
                grants.append(LedgerCalls.refusal(request, .unavailable))
            }
        }
        return grants
    }

    /// Whether most data nodes have all writes until here (rule 12). WAIT is not consensus: what a
    /// failover to the node that lacks them loses is found by reconciling.
    func isKeptByMajority() async throws -> Bool {
        let replicas = grants.withLock { $0.replicas }
        let needed = (replicas + 1) / 2
        guard needed > 0 else { return true }
        let reply = try await redis.command(
            ["WAIT", String(needed), String(StoreLimits.replicaWaitMilliseconds)],
            isIdempotent: true)
        return (reply.integer ?? 0) >= Int64(needed)
    }

    /// States the limit of an account for all its periods, as a policy version has it.
    package func setLimit(
        _ account: SubjectBinding.Account, maxLease: NanoUSD, policyNumber: Int64
    ) async throws {
        let limit = min(max(0, account.limit.rawValue), LedgerLimits.amountMax)
        _ = try await redis.run(
            LedgerScripts.setLimit,
            keys: [StoreKeys.limit(account.unit, account.scope, account.period, account.id)],
            arguments: [
                String(limit), String(policyNumber), String(min(maxLease.rawValue, limit)),
            ])
    }

    private func randomToken() -> String { String(UInt64.random(in: .min ... .max), radix: 36) }
}
