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
    let missing = Atomic(0)

    /// Holders for which `maxLease` of each account is withheld, as was seen last.
    package var missingHolders: Int { missing.load(ordering: .relaxed) }

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
        /// A gateway, alive, not adopted, and has said what it has: may be granted leases.
        var mayAcquire: Bool
        /// Whose leases it reports: its own and its predecessors'.
        var speaksFor: Set<Incarnation>
        /// The epoch that the store is in, and since when.
        var epoch: Int64
        var epochBegan: UnixTime
        /// Who has not said in this epoch what it has.
        var missing: Set<Incarnation>

        /// Holders for which `maxLease` of the account is withheld.
        func missing(in account: AccountKey) -> Int {
            IncarnationBook.mayBeLost(account.period, epochBegan: epochBegan) ? missing.count : 0
        }
    }

    func standing(of incarnation: Incarnation) async throws -> Standing {
        let replies = try await redis.readAll([
            [
                "HMGET", StoreKeys.incarnation(incarnation), "joined_at", "adopted_by", "seen",
                "written_off", "role",
            ],
            ["SMEMBERS", StoreKeys.speaksFor(incarnation)],
            ["HMGET", StoreKeys.epoch, "number", "began"],
            ["SMEMBERS", StoreKeys.missing],
        ])
        guard let row = replies[0].array, row.count == 5, !row[0].isNull else {
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
        let epoch = replies[2].texts ?? []
        let missing = Set(
            (replies[3].texts ?? []).compactMap { Int64($0) }.map { Incarnation($0) })
        self.missing.store(missing.count, ordering: .relaxed)
        return Standing(
            mayAcquire: mayAcquire && row[4].text == Role.gateway.rawValue
                && !missing.contains(incarnation),
            speaksFor: speaksFor, epoch: epoch.first.flatMap { Int64($0) } ?? 0,
            epochBegan: UnixTime(milliseconds: epoch.last.flatMap { Int64($0) } ?? 0),
            missing: missing)
    }

    // MARK: Leases

    /// One answer for each request, in their order. `policyNumber` is that of the policy which this
    /// replica holds; where that observes nobody (`mayObserve`), every limit holds.
    package func acquire(
        _ requests: [LeaseAcquire], by holder: Incarnation, policyNumber: Int64,
        mayObserve: Bool = false
    ) async throws -> LeasesResponse {
        let acquisition = try await acquisition(
            of: requests, by: holder, policyNumber: policyNumber, mayObserve: mayObserve)
        let (replies, origins) = try await redis.runAllNoting(
            acquisition.calls, first: acquisition.first)
        return try await answer(acquisition, replies[...], from: origins)
    }

    /// Leases that are asked for, as far as they may be: what to run, and for whom.
    struct Acquisition {
        var requests: [LeaseAcquire]
        var holder: Incarnation
        var serves: Bool
        var epoch: Int64
        var calls: [ScriptCall] = []
        /// To be carried out before the calls.
        var first: [String]?
    }

    func acquisition(
        of requests: [LeaseAcquire], by holder: Incarnation, policyNumber: Int64, mayObserve: Bool
    ) async throws -> Acquisition {
        // First, because it may begin an epoch.
        let problems = try await check()
        let standing = try await standing(of: holder)
        var acquisition = Acquisition(
            requests: requests, holder: holder, serves: standing.mayAcquire && problems.isEmpty,
            epoch: standing.epoch)
        var index: [String: String] = [:]
        for request in requests where acquisition.serves && request.lease.incarnation == holder {
            // Nobody looks for a minute's leases: they end by themselves.
            if !request.account.isRate { index[request.account.description] = randomToken() }
            let (keys, arguments) = LedgerCalls.acquire(
                request, policyNumber: policyNumber, mayObserve: mayObserve,
                missing: standing.missing(in: request.account))
            acquisition.calls.append(
                ScriptCall(script: LedgerScripts.acquire, keys: keys, arguments: arguments))
        }
        // The index comes first: a crash in between leaves an entry too many, never one too few.
        let first = ["HSET", StoreKeys.accounts(holder)] + index.flatMap { [$0.key, $0.value] }
        acquisition.first = index.isEmpty ? nil : first
        return acquisition
    }

    /// `replies`: of its calls.
    func answer(
        _ acquisition: Acquisition, _ replies: ArraySlice<RedisReply>,
        from origins: Set<RedisOrigin>
    ) async throws -> LeasesResponse {
        var replies = replies
        // Without a majority nobody is told of a grant; who asks again gets the same one.
        let isKept = try await isKeptByMajority(origins)
        var grants: [LeaseGrant] = []
        for request in acquisition.requests {
            if acquisition.serves, request.lease.incarnation == acquisition.holder,
                let reply = replies.popFirst(), isKept
            {
                grants.append(try LedgerCalls.grant(request, reply))
            } else {
                grants.append(LedgerCalls.refusal(request, .unavailable))
            }
        }
        return LeasesResponse(grants: grants, epoch: acquisition.epoch)
    }

    /// States the limits of accounts for all their periods, as a policy version has them. Answers
    /// those in force.
    package func setLimits(
        _ accounts: [(account: SubjectBinding.Account, maxLease: NanoUSD)], policyNumber: Int64
    ) async throws -> [NanoUSD] {
        let calls = accounts.map {
            LedgerCalls.setLimit($0.account, maxLease: $0.maxLease, policyNumber: policyNumber)
        }
        return try await redis.runAllNoting(calls).replies.map(LedgerCalls.limitInForce)
    }

    private func randomToken() -> String { String(UInt64.random(in: .min ... .max), radix: 36) }
}
