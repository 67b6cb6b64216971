import WeirCore
import WeirLedger
import WeirMeshProtocol

/// A life of a sidecar's ledger that has money or requests of accounts, that parents of calls wait
/// for, or for which money is withheld.
package struct LeaseHolder: Hashable, Sendable {
    package enum State: String, Sendable, CaseIterable {
        /// It reported lately: what it does not need comes back by itself.
        case alive
        /// Nobody has heard of it for a while; it may come back with its log.
        case silent
        /// A later life continues its log.
        case adopted
        case writtenOff = "written_off"
    }

    package struct Share: Hashable, Sendable {
        package var account: AccountKey
        /// n$, or requests, as the account counts.
        package var held: NanoUSD

        package init(account: AccountKey, held: NanoUSD) {
            self.account = account
            self.held = held
        }

        /// The largest first.
        package static func ordered(_ amounts: [AccountKey: NanoUSD]) -> [Share] {
            amounts.map { Share(account: $0.key, held: $0.value) }.sorted {
                $0.held == $1.held
                    ? $0.account.description < $1.account.description : $0.held > $1.held
            }
        }
    }

    package var incarnation: Incarnation
    package var role: Role
    package var agent: String?
    package var instance: String
    package var state: State
    package var adoptedBy: Incarnation?
    package var joinedAt: UnixTime
    /// `nil`: none, or more than a day ago.
    package var lastReportAt: UnixTime?
    /// What it holds of each account, the largest first; none of nothing.
    package var shares: [Share] = []
    /// Calls that parents sent it and ask about now.
    package var awaitedCalls = 0
    /// Since when `maxLease` of each account is withheld for it, because the store may have lost
    /// what it was granted, and it has not said since what it has; `nil`: nothing is.
    package var missingSince: UnixTime?

    package func held(_ unit: AccountKey.Unit) -> NanoUSD {
        shares.reduce(.zero) { $1.account.unit == unit ? $0 + $1.held : $0 }
    }
}

/// Who holds what, and what becomes of it when somebody never comes back (LEDGER rule 8).
extension LedgerStore {
    // MARK: Who holds what

    /// Some of those that hold something, in the order of their numbers, and after whom to go on.
    /// A page ends early where its holders have much.
    package func holders(
        after last: Incarnation?, limit: Int
    ) async throws -> (holders: [LeaseHolder], next: Incarnation?) {
        let missing = try await redis.read("SMEMBERS", StoreKeys.missing).texts ?? []
        var lives = Set(missing.compactMap { Int64($0) }.map { Incarnation($0) })
        for prefix in [StoreKeys.accountsOfLives, StoreKeys.inquiriesToLives] {
            let keys = try await redis.keys(matching: prefix + "*", max: StoreLimits.holdersMax)
            let numbers = keys.compactMap { Int64($0.dropFirst(prefix.count)) }
            lives.formUnion(numbers.map { Incarnation($0) })
        }
        var found: [LeaseHolder] = []
        var accounts = 0
        var looked = last
        for life in lives.sorted() where last.map({ life > $0 }) ?? true {
            guard found.count < limit, accounts < StoreLimits.holdersPageAccounts else {
                return (found, looked)
            }
            looked = life
            guard let holder = try await holder(life) else { continue }
            accounts += holder.shares.count
            // A closed lease stays in the index until the next report.
            if !holder.shares.isEmpty || holder.awaitedCalls > 0 || holder.missingSince != nil {
                found.append(holder)
            }
        }
        return (found, nil)
    }

    /// One life, whatever it holds; `nil` when nobody of this number is known.
    package func holder(_ incarnation: Incarnation) async throws -> LeaseHolder? {
        let replies = try await redis.readAll([
            ["HGETALL", StoreKeys.incarnation(incarnation)],
            ["ZSCORE", StoreKeys.live, incarnation.description],
            ["HLEN", StoreKeys.inquiries(incarnation)],
            ["HKEYS", StoreKeys.accounts(incarnation)],
            ["SISMEMBER", StoreKeys.missing, incarnation.description],
            ["HGET", StoreKeys.epoch, "began"],
        ])
        let row = replies[0].fields
        guard let role = row["role"].flatMap(Role.init(rawValue:)),
            let joined = row["joined_at"].flatMap({ Int64($0) })
        else { return nil }
        let heard = replies[1].integer
        let now = try await redis.time().milliseconds
        let state: LeaseHolder.State
        if row["written_off"] != nil {
            state = .writtenOff
        } else if row["adopted_by"] != nil {
            state = .adopted
        } else {
            let isHeard = now - (heard ?? 0) < StoreLimits.endpointFreshMilliseconds
            state = isHeard ? .alive : .silent
        }
        var holder = LeaseHolder(
            incarnation: incarnation, role: role, agent: row["agent"],
            instance: row["instance"] ?? "", state: state,
            adoptedBy: row["adopted_by"].flatMap { Int64($0) }.map { Incarnation($0) },
            joinedAt: UnixTime(milliseconds: joined),
            lastReportAt: heard.map { UnixTime(milliseconds: $0) },
            awaitedCalls: Int(replies[2].integer ?? 0))
        if replies[4].integer == 1 {
            holder.missingSince = replies[5].integer.map { UnixTime(milliseconds: $0) }
        }
        let accounts = (replies[3].texts ?? []).compactMap { AccountKey($0) }
        holder.shares = try await shares(of: accounts, by: incarnation)
        return holder
    }

    /// By the leases themselves, as a write-off counts them: who adopted some of them has them in
    /// its name.
    private func shares(
        of accounts: [AccountKey], by incarnation: Incarnation
    ) async throws -> [LeaseHolder.Share] {
        var amounts: [AccountKey: NanoUSD] = [:]
        for start in stride(from: 0, to: accounts.count, by: StoreLimits.redisPipelineMax) {
            let end = min(accounts.count, start + StoreLimits.redisPipelineMax)
            let batch = accounts[start..<end]
            let replies = try await redis.readAll(
                batch.map { ["HVALS", StoreKeys.leases($0, incarnation)] })
            for (account, reply) in zip(batch, replies) {
                let held = (reply.texts ?? []).reduce(Int64(0)) { $0 + Self.held(ofLease: $1) }
                if held > 0 { amounts[account] = NanoUSD(held) }
            }
        }
        return LeaseHolder.Share.ordered(amounts)
    }

    /// "holder granted consumed released", as the scripts pack it.
    private static func held(ofLease packed: String) -> Int64 {
        let numbers = packed.split(separator: " ").compactMap { Int64($0) }
        return numbers.count == 4 ? max(0, numbers[1] - numbers[2] - numbers[3]) : 0
    }

    // MARK: Write-off

    package enum WriteOff: Sendable {
        /// How much of each account counts as spent from now on, the largest first.
        case done([LeaseHolder.Share])
        /// Nobody of this number has joined.
        case unknown
        /// It was heard lately, and nobody adopted it: it may be spending.
        case alive
    }

    /// A life and those of which it continues the log: what they hold is lost with it.
    package func livesEnding(with incarnation: Incarnation) async throws -> [Incarnation] {
        let earlier = try await redis.read("SMEMBERS", StoreKeys.speaksFor(incarnation)).texts ?? []
        let numbers = Set(earlier.compactMap { Int64($0) }.map { Incarnation($0) })
        return [incarnation] + numbers.subtracting([incarnation]).sorted()
    }

    /// Counts everything that a lost incarnation and its predecessors still hold as spent, and
    /// delegations that were addressed to them, once their parents ask; the caller audits it. From
    /// then on they are granted nothing, and nobody adopts them. Repeating it finds what a grant
    /// under way, or an end of the store in between, left behind.
    ///
    /// `isForced`: also one that is alive. It can spend what it holds, which is counted already,
    /// and has to join anew for more.
    package func writeOff(
        _ incarnation: Incarnation, isForced: Bool = false
    ) async throws -> WriteOff {
        // A clock that was set back may have heard it in the future.
        let silence = isForced ? -LedgerLimits.amountMax : StoreLimits.endpointFreshMilliseconds
        let lives = try await livesEnding(with: incarnation)
        for life in lives {
            let (replies, origins) = try await redis.runAllNoting(
                MeshScripts.writeOff,
                [
                    (
                        [StoreKeys.incarnation(life), StoreKeys.live, StoreKeys.missing],
                        [life.description, String(silence)]
                    )
                ])
            switch replies[0].text {
            case "ok": try await mustBeKept(origins)
            // Rows of predecessors are forgotten after a time; what they held is not.
            case "unknown" where life != incarnation: break
            case "unknown": return .unknown
            case "alive": return .alive
            default: throw RedisError.unexpectedReply("write_off")
            }
        }
        var amounts: [AccountKey: NanoUSD] = [:]
        for life in lives {
            for (account, amount) in try await spend(whatIsHeldBy: life) where amount > .zero {
                amounts[account, default: .zero] += amount
            }
        }
        return .done(LeaseHolder.Share.ordered(amounts))
    }

    private func spend(
        whatIsHeldBy incarnation: Incarnation
    ) async throws -> [(AccountKey, NanoUSD)] {
        let entries = try await redis.read("HGETALL", StoreKeys.accounts(incarnation)).fields
        let accounts = entries.compactMap { name, token in
            AccountKey(name).map { (key: $0, name: name, token: token) }
        }.sorted { $0.name < $1.name }
        let (replies, origins) = try await redis.runAllNoting(
            LedgerScripts.writeOff,
            accounts.map { (StoreKeys.ledger($0.key, incarnation), [incarnation.description]) })
        try await mustBeKept(origins)
        _ = try await redis.runAll(
            MeshScripts.unindex,
            accounts.map { ([StoreKeys.accounts(incarnation)], [$0.name, $0.token]) })
        return zip(accounts, replies).map { ($0.key, NanoUSD($1.integer ?? 0)) }
    }
}
