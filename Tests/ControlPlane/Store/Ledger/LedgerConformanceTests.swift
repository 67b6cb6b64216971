import Testing
import WeirCore
import WeirLedger

@testable import ControlPlaneStore

/// Runs random operations against the scripts on a real Redis and against `AccountBook`, and
/// compares every answer and all that is kept.
///
/// 1. Some incarnations acquire, report and release leases of one account, with wrong, repeated and
///    late messages among them; limits change by policy.
/// 2. After each operation the answers must be equal; Redis's clock, which the answer tells, is
///    given to the model.
/// 3. At times the whole state is compared, row by row.
@Suite(.timeLimit(.minutes(2))) struct LedgerConformanceTests {
    private static let seeds: [UInt64] = [1, 2, 3, 4, 5, 6, 7]

    @Test(arguments: seeds) func scriptsFollowTheModel(seed: UInt64) async throws {
        let server = try PrivateRedis()
        let redis = try Redis(url: server.url)
        var run = try await ConformanceRun(redis: redis, seed: seed)
        for step in 0..<700 {
            do {
                try await run.step()
                if step % 50 == 49 { try await run.compareState() }
            } catch {
                Issue.record("seed \(seed), step \(step): \(error)")
                return
            }
        }
        #expect(run.grantedCount > 20, "the operations of seed \(seed) do not grant enough to tell")
    }
}

private struct Difference: Error, CustomStringConvertible {
    let description: String
}

private struct ConformanceRun {
    private static let incarnations = (1...4).map { Incarnation(Int64($0)) }
    private let redis: Redis
    private let account: AccountKey
    private var book: AccountBook
    private var random: SplitMix
    private var policyNumber: Int64 = 1
    private var limit: Int64
    private var maxLease: Int64 = 300
    private var known: [LeaseID] = []
    private(set) var grantedCount = 0

    init(redis: Redis, seed: UInt64) async throws {
        self.redis = redis
        random = SplitMix(state: seed)
        let now = try await redis.time()
        // A minute may end meanwhile: then the model, which has Redis's clock, says so, too. It has
        // half a minute or more to go, or begins within that.
        let kind: Period.Kind = seed == 7 ? .minute : [.month, .day, .forever][Int(seed % 3)]
        let time = seed == 7 ? UnixTime(seconds: now.seconds + 30) : now
        account = AccountKey(
            unit: .usd, scope: .user, period: Period(kind, at: time), id: "a/b {x} é")
        // One seed works at the edge of what doubles count exactly.
        limit = seed == 6 ? LedgerLimits.amountMax : 2_000
        if seed == 6 { maxLease = LedgerLimits.amountMax / 3 }
        book = AccountBook(account: account, limit: NanoUSD(limit), policyNumber: 1)
        try await stateLimit()
    }

    private var scale: Int64 { limit / 20 }

    mutating func step() async throws {
        switch random.next(in: 0...99) {
        case 0...44: try await acquire()
        case 45...89: try await report()
        case 90...94: try await changeLimit()
        case 95: try await writeOff()
        default: try await unknown()
        }
    }

    private func stateLimit() async throws {
        _ = try await redis.run(
            LedgerScripts.setLimit, keys: [StoreKeys.limit(account)],
            arguments: [String(limit), String(policyNumber), String(maxLease)])
    }

    private mutating func changeLimit() async throws {
        policyNumber += 1
        if limit < LedgerLimits.amountMax { limit = random.next(in: 500...4_000) }
        try await stateLimit()
        book.policyChanged(limit: NanoUSD(limit), policyNumber: policyNumber)
        // An older version changes nothing, however late it comes.
        _ = try await redis.run(
            LedgerScripts.setLimit, keys: [StoreKeys.limit(account)],
            arguments: ["1", String(policyNumber - 1), "1"])
    }

    private mutating func acquire() async throws {
        var lease = LeaseID(
            incarnation: Self.incarnations[Int(random.next(in: 0...3))],
            number: random.next(in: 0...60))
        if random.next(in: 0...4) == 0, let again = known.randomElement(using: &random) {
            lease = again
        }
        let need = random.next(in: 0...scale)
        let request = LeaseAcquire(
            lease: lease, account: account, need: NanoUSD(need),
            want: NanoUSD(random.next(in: 0...scale * 4)),
            closedBelow: random.next(in: 0...9) == 0 ? random.next(in: 0...30) : 0,
            policyNumber: policyNumber - (random.next(in: 0...9) == 0 ? 1 : 0),
            observes: random.next(in: 0...9) == 0)
        let missing = random.next(in: 0...9) == 0 ? Int(random.next(in: 1...4)) : 0
        let store = LedgerCalls.acquire(
            request, policyNumber: 0, mayObserve: true, missing: missing)
        let reply = try await redis.run(
            LedgerScripts.acquire, keys: store.keys, arguments: store.arguments)
        let parts = try #require(reply.array)
        let now = UnixTime(milliseconds: try #require(parts[3].integer))
        let expected = book.acquire(
            request,
            terms: AccountBook.Terms(
                limit: NanoUSD(limit), policyNumber: request.policyNumber,
                maxLease: NanoUSD(maxLease), now: now, missing: missing))
        let answer = try LedgerCalls.grant(request, reply)
        guard answer == expected else {
            throw Difference(description: "\(request)\nmodel \(expected)\nRedis \(answer)")
        }
        if answer.status == .granted {
            known.append(lease)
            grantedCount += 1
        }
    }

    private mutating func report() async throws {
        let holder = Self.incarnations[Int(random.next(in: 0...3))]
        var counters: [LeaseCounters] = []
        // Leases of one incarnation, some of them twice, some of them never granted.
        let owner = Self.incarnations[Int(random.next(in: 0...3))]
        for _ in 0..<random.next(in: 0...6) {
            let number =
                known.filter { $0.incarnation == owner }.randomElement(using: &random)?
                .number ?? random.next(in: 0...80)
            counters.append(
                LeaseCounters(
                    lease: LeaseID(incarnation: owner, number: number), account: account,
                    consumed: NanoUSD(random.next(in: -1...scale)),
                    released: NanoUSD(random.next(in: -1...scale * 2)),
                    // Of leases that were granted and of some that a failover may have lost.
                    granted: random.next(in: 0...2) == 0
                        ? NanoUSD(random.next(in: -1...scale * 4)) : nil))
        }
        let highest = random.next(in: 0...60)
        let reply = try await send(counters, owner: owner, by: holder, highest: highest)
        let refused = counters.filter { !book.report($0, by: holder) }.count
        let parts = try #require(reply.array)
        let state = book.state(for: holder)
        let expected = [
            state.limit.rawValue, state.consumed.rawValue,
            state.consumed.rawValue - state.consumedByOthers.rawValue, state.held.rawValue,
            Int64(refused),
        ]
        let answer = parts[1...5].compactMap(\.integer)
        guard answer == expected else {
            throw Difference(
                description: "\(counters) by \(holder)\nmodel \(expected)\nRedis \(answer)")
        }
    }

    private mutating func unknown() async throws {
        let holder = Self.incarnations[Int(random.next(in: 0...3))]
        let highest = random.next(in: 0...60)
        let reply = try await send([], owner: holder, by: holder, highest: highest)
        let answer = Set(
            stride(from: 0, to: reply.array?[7].array?.count ?? 0, by: 3).compactMap {
                reply.array?[7].array?[$0].integer
            })
        let expected = Set(
            book.unknown(to: holder, listed: [], highest: highest)
                .filter { $0.lease.incarnation == holder }.map(\.lease.number))
        guard answer == expected else {
            throw Difference(description: "unknown: model \(expected), Redis \(answer)")
        }
    }

    private mutating func writeOff() async throws {
        let incarnation = Self.incarnations[Int(random.next(in: 0...3))]
        let reply = try await redis.run(
            LedgerScripts.writeOff, keys: StoreKeys.ledger(account, incarnation),
            arguments: [incarnation.description])
        let expected = book.writeOff(incarnation)
        guard reply.integer == expected else {
            throw Difference(description: "write-off: model \(expected), Redis \(reply)")
        }
    }

    private func send(
        _ counters: [LeaseCounters], owner: Incarnation, by holder: Incarnation, highest: Int64
    ) async throws -> RedisReply {
        let call = LedgerCalls.report(
            account, owner, counters, by: holder, highest: highest)
        return try await redis.run(
            LedgerScripts.report, keys: call.keys, arguments: call.arguments)
    }

    func compareState() async throws {
        let fields = try await redis.read("HGETALL", StoreKeys.account(account)).fields
        let expected = [
            "granted": book.granted, "consumed": book.consumed, "released": book.released,
            "overrun": book.overrun, "held": book.held,
        ]
        for (name, amount) in expected where Int64(fields[name] ?? "0") != amount {
            throw Difference(description: "\(name): model \(amount), Redis \(fields[name] ?? "-")")
        }
        for incarnation in Self.incarnations {
            let rows = try await redis.read("HGETALL", StoreKeys.leases(account, incarnation))
                .fields
            let model = book.leases.filter { $0.key.incarnation == incarnation }
            let texts = model.map { id, lease in
                (
                    String(id.number),
                    "\(lease.holder) \(lease.granted) \(lease.consumed) \(lease.released)"
                )
            }
            guard rows == Dictionary(uniqueKeysWithValues: texts) else {
                throw Difference(description: "leases of \(incarnation): \(model) \(rows)")
            }
        }
    }
}
