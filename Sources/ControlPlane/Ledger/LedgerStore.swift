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
    /// What was found when Redis was looked at last.
    struct Grants {
        /// Why nothing is granted now; empty when all is well.
        var problems: [String] = ["Redis has not been looked at yet"]
        var checkedNanoseconds: UInt64 = 0
        /// Replicas of each primary. A connection that is not among them is one that came later:
        /// perhaps to another server.
        var replicas: [RedisOrigin: Int] = [:]
    }

    let redis: Redis
    let sessions: Sessions
    let isTrial: Bool
    let archive: Archive?
    let grants = Mutex(Grants())
    let reported = Mutex(ReportMemory())

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

    // MARK: Who speaks

    struct Standing {
        /// Alive and not adopted: may be granted leases.
        var mayAcquire: Bool
        /// Whose leases it reports: its own and its predecessors'.
        var speaksFor: Set<Incarnation>
        /// The epoch that the store is in.
        var epoch: Int64
    }

    func standing(of incarnation: Incarnation) async throws -> Standing {
        let replies = try await redis.readAll([
            [
                "HMGET", StoreKeys.incarnation(incarnation), "joined_at", "adopted_by", "seen",
                "written_off",
            ],
            ["SMEMBERS", StoreKeys.speaksFor(incarnation)],
            ["HGET", StoreKeys.epoch, "number"],
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
        return Standing(
            mayAcquire: mayAcquire, speaksFor: speaksFor, epoch: replies[2].integer ?? 0)
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
            // Nobody looks for a minute's leases: they end by themselves.
            if !request.account.isRate { index[request.account.description] = randomToken() }
            calls.append(
                LedgerCalls.acquire(
                    request, policyNumber: policyNumber, mayObserve: mayObserve))
        }
        // The index comes first: a crash in between leaves an entry too many, never one too few.
        let first =
            ["HSET", StoreKeys.accounts(holder)] + index.flatMap { [$0.key, $0.value] }
        let (answers, origins) = try await redis.runAllNoting(
            LedgerScripts.acquire, calls, first: index.isEmpty ? nil : first)
        var replies = answers[...]
        // Without a majority nobody is told of a grant; who asks again gets the same one.
        let isKept = try await isKeptByMajority(origins)
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

    /// States the limits of accounts for all their periods, as a policy version has them. Answers
    /// those in force.
    package func setLimits(
        _ accounts: [(account: SubjectBinding.Account, maxLease: NanoUSD)], policyNumber: Int64
    ) async throws -> [NanoUSD] {
        let replies = try await redis.runAll(
            LedgerScripts.setLimit,
            accounts.map { account, maxLease in
                let limit = min(max(0, account.limit.rawValue), LedgerLimits.amountMax)
                return (
                    [StoreKeys.limit(account.unit, account.scope, account.period, account.id)],
                    [String(limit), String(policyNumber), String(min(maxLease.rawValue, limit))]
                )
            })
        return try replies.map { reply in
            guard let limit = reply.array?.first?.integer else {
                throw RedisError.unexpectedReply("set_limit")
            }
            return NanoUSD(limit)
        }
    }

    private func randomToken() -> String { String(UInt64.random(in: .min ... .max), radix: 36) }
}
