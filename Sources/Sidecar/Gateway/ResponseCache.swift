import SidecarCore
import Synchronization
import WeirCore
import WeirCrypto
import WeirMeshProtocol
import WeirPolicy

/// An answer that was paid for once.
struct CachedAnswer: Hashable, Sendable {
    var contentType: String
    var body: [UInt8]
    /// As the answer named it.
    var model: String
    /// What it cost then: what is saved each time.
    var cost: NanoUSD

    /// With what a key and the tables take.
    var byteCount: Int { body.count + 512 }
}

/// The answers of one agent. Pure. All are kept equally long, so the oldest is the first to end,
/// and the first to go where there is no room.
struct CacheShelf {
    struct Key: Hashable {
        /// Whose answers these are: nobody else ever sees them.
        var owner: String
        var model: String
        var policy: PolicyVersion
        /// SHA-256 of the request as it goes to the agent, in one spelling.
        var digest: [UInt8]
    }

    private struct Entry {
        var answer: CachedAnswer
        var endsNanoseconds: UInt64
    }

    private var entries: [Key: Entry] = [:]
    private var order: ArraySlice<Key> = []
    private(set) var bytes = 0
    var count: Int { entries.count }

    func answer(for key: Key, now: UInt64) -> CachedAnswer? {
        guard let entry = entries[key], entry.endsNanoseconds > now else { return nil }
        return entry.answer
    }

    /// Of two answers to one request the first is kept. `room`: bytes that all agents leave.
    mutating func put(
        _ answer: CachedAnswer, for key: Key, _ limits: AgentPolicy.Cache, room: Int, now: UInt64
    ) {
        while let oldest = order.first, let entry = entries[oldest], entry.endsNanoseconds <= now {
            removeOldest()
        }
        guard entries[key] == nil, answer.byteCount <= min(limits.bytesMax, room + bytes) else {
            return
        }
        let bytesMax = min(limits.bytesMax, room + bytes)
        while entries.count >= limits.entriesMax || bytes + answer.byteCount > bytesMax {
            removeOldest()
        }
        let (ends, overflow) = now.addingReportingOverflow(
            UInt64(limits.ttlMilliseconds) * 1_000_000)
        entries[key] = Entry(answer: answer, endsNanoseconds: overflow ? .max : ends)
        order.append(key)
        bytes += answer.byteCount
    }

    private mutating func removeOldest() {
        guard let oldest = order.popFirst() else { return }
        bytes -= entries.removeValue(forKey: oldest)?.answer.byteCount ?? 0
        // A slice keeps what stood before it.
        if order.startIndex > max(64, order.count) { order = ArraySlice(Array(order)) }
    }
}

/// What this gateway keeps of agents whose policy wants it, in memory. An answer is given again
/// only to the very same request: of the same user or tenant, to the same agent and model, under
/// the same policy, the same JSON to the value. Streams are never kept.
package final class ResponseCache: Sendable {
    private let shelves = Mutex<[String: CacheShelf]>([:])
    private let bytesMax: Int
    private let registry: Metrics
    private let lookups: Metrics.Family
    private let saved: Metrics.Family

    package init(_ registry: Metrics, bytesMax: Int = GatewayLimits.cacheBytesMax) {
        self.registry = registry
        self.bytesMax = bytesMax
        lookups = registry.family(
            .counter, "weir_cache_lookups_total",
            help: "Requests to agents whose answers are kept, by whether one was there.",
            labels: ["agent", "result"])
        saved = registry.family(
            .counterOfBillionths, "weir_cache_saved_usd_total",
            help: "What answers that were given again had cost.", labels: ["agent"])
        registry.collect { [weak self] text in self?.show(in: &text) }
    }

    private func show(in text: inout MetricsText) {
        let kept = shelves.withLock { $0.mapValues(\.bytes) }.sorted { $0.key < $1.key }
        text.family("weir_cache_bytes", .gauge, help: "Answers kept, by agent.")
        for (agent, bytes) in kept {
            text.sample("weir_cache_bytes", [("agent", agent)], "\(bytes)")
        }
    }

    func answer(
        to prepared: AgentCaller.Prepared, of caller: Caller, policy: PolicyVersion, now: UInt64
    ) -> CachedAnswer? {
        guard let key = Self.key(prepared, caller, policy) else { return nil }
        let agent = prepared.agent.name
        let answer = shelves.withLock { $0[agent]?.answer(for: key, now: now) }
        registry.add(registry.series(lookups, [agent, answer == nil ? "miss" : "hit"]))
        if let answer {
            registry.add(
                registry.series(saved, [agent]), UInt64(clamping: answer.cost.rawValue))
        }
        return answer
    }

    func keep(
        _ answer: CachedAnswer, to prepared: AgentCaller.Prepared, of caller: Caller,
        policy: PolicyVersion, now: UInt64
    ) {
        guard let limits = prepared.agent.cache,
            answer.body.count <= GatewayLimits.cachedAnswerBytesMax,
            let key = Self.key(prepared, caller, policy)
        else { return }
        shelves.withLock { shelves in
            let room = bytesMax - shelves.values.reduce(0) { $0 + $1.bytes }
            shelves[prepared.agent.name, default: CacheShelf()].put(
                answer, for: key, limits, room: max(0, room), now: now)
        }
    }

    /// `nil` for what is not kept.
    private static func key(
        _ prepared: AgentCaller.Prepared, _ caller: Caller, _ policy: PolicyVersion
    ) -> CacheShelf.Key? {
        guard let cache = prepared.agent.cache, !prepared.bound.isStream,
            let body = try? JSON.parse(prepared.body)
        else { return nil }
        // Who has no tenant shares with nobody.
        let owner: String
        switch (cache.scope, caller.tenant) {
        case (.tenant, let tenant?): owner = "tenant/" + tenant
        case (.tenant, nil), (.user, _): owner = "user/" + caller.user
        }
        return CacheShelf.Key(
            owner: owner, model: prepared.bound.model, policy: policy,
            digest: Crypto.sha256(body.canonicalBytes))
    }
}

extension AgentCaller {
    /// The kept answer to a request, and an attempt that cost nothing.
    func kept(_ prepared: Prepared) -> (answer: CachedAnswer, attempt: AttemptReport)? {
        guard
            let answer = cache?.answer(
                to: prepared, of: caller, policy: snapshot.version, now: clock.nowNanoseconds)
        else { return nil }
        var attempt = AttemptReport(
            agent: prepared.agent.name, model: answer.model, outcome: .admitted)
        attempt.isCached = true
        return (answer, attempt)
    }

    /// Keeps an answer that did what it was asked for.
    func keep(
        _ body: [UInt8], contentType: String, _ attempt: AttemptReport, to prepared: Prepared
    ) {
        guard attempt.outcome == .admitted, attempt.isSettledWell else { return }
        cache?.keep(
            CachedAnswer(
                contentType: contentType, body: body, model: attempt.model,
                cost: attempt.totalCost),
            to: prepared, of: caller, policy: snapshot.version, now: clock.nowNanoseconds)
    }
}
