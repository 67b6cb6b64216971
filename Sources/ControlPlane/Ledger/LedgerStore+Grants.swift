import Synchronization
import WeirCore
import WeirMeshProtocol

/// Whether Redis may be trusted with a grant (rule 12): its settings, its history, its replicas.
extension LedgerStore {
    /// Begins the ledger's epoch where Redis has none; answers its number. `hasPast`: this mesh has
    /// granted before (the archive knows records of it), so Redis lost its data, and live holders
    /// get time to report before anything is granted.
    @discardableResult
    package func begin(hasPast: Bool) async throws -> Int64 {
        try await epoch(quietMilliseconds: hasPast ? StoreLimits.epochQuietMilliseconds : 0).number
    }

    private struct Epoch {
        var number: Int64
        var quietMilliseconds: Int64
        var isRestored: Bool
    }

    private func epoch(
        quietMilliseconds quiet: Int64, histories: Set<String> = []
    ) async throws -> Epoch {
        let reply = try await redis.run(
            EpochScripts.begin,
            keys: [
                StoreKeys.epoch, StoreKeys.lastIncarnation, StoreKeys.histories, StoreKeys.live,
                StoreKeys.hearing, StoreKeys.missing,
            ],
            arguments: [
                StoreKeys.mesh, String(quiet), String(MeshLimits.silentMilliseconds),
            ] + histories.sorted())
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
        return isKnownGood ? [] : try await lookAgain()
    }

    private func lookAgain() async throws -> [String] {
        let now = MonotonicClock.nowNanoseconds
        let status = try await RedisPersistence.status(of: redis)
        var problems = isTrial ? [] : status.problems
        // An epoch that is gone while we run was lost: the mesh has a past.
        let epoch = try await epoch(
            quietMilliseconds: StoreLimits.epochQuietMilliseconds, histories: status.histories)
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

    /// Whether most data nodes have all that these connections have written, and the server behind
    /// each is the one that was looked at.
    func isKeptByMajority(_ origins: Set<RedisOrigin>) async throws -> Bool {
        if grants.withLock({ grants in !origins.allSatisfy { grants.replicas[$0] != nil } }),
            !(try await lookAgain()).isEmpty
        {
            return false
        }
        for origin in origins {
            guard try await isOnReplicas(origin) else { return false }
        }
        return true
    }

    /// WAIT is not consensus: what a failover to a node that lacks a write loses is found by
    /// reconciling.
    func isOnReplicas(_ origin: RedisOrigin) async throws -> Bool {
        guard let replicas = grants.withLock({ $0.replicas[origin] }) else {
            return try await hasBeenLookedAt(origin)
        }
        let needed = (replicas + 1) / 2
        guard needed > 0 else { return true }
        let kept = try await redis.wait(
            for: needed, milliseconds: StoreLimits.replicaWaitMilliseconds, origin)
        guard let kept, kept >= needed else {
            redis.distrustPrimary()
            return false
        }
        return true
    }

    /// Reports go on while nothing is granted, so whether it may be does not matter here.
    private func hasBeenLookedAt(_ origin: RedisOrigin) async throws -> Bool {
        _ = try await lookAgain()
        return grants.withLock { $0.replicas[origin] != nil }
            ? try await isOnReplicas(origin) : false
    }
}
